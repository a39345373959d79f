"""Copies between two Redis servers: what is refused, what a second run does, and who may use which store when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import fakeredis
import msgspec
import pytest

from claude_batch_tasks.errors import StoreMoved
from claude_batch_tasks.records import Unit
from claude_batch_tasks.store.objects import with_objects
from claude_batch_tasks.store.objects.bucket import MARKER
from claude_batch_tasks.store.redis import RedisStore
from claude_batch_tasks.store.transfer import items
from claude_batch_tasks.store.transfer.copying import Copy, CopyRefused, CopyReport, release_store
from claude_batch_tasks.store.transfer.tally import Tally, tally
from tests.unit.store.contract.samples import (
    BATCH,
    JOB,
    LONG,
    NO_ROWS,
    add_ask,
    batch_record,
    body_of,
    create_bare_job,
    create_job,
    create_staged_job,
    job_record,
    make_presence,
)
from tests.unit.store.contract.transfer import export_all, fill

Open = Callable[[], RedisStore]


@pytest.fixture
def open_old() -> Open:
    server = fakeredis.FakeServer()
    return lambda: RedisStore(fakeredis.FakeRedis(server=server), "the old one")


@pytest.fixture
def open_new() -> Open:
    server = fakeredis.FakeServer()
    return lambda: RedisStore(fakeredis.FakeRedis(server=server), "the new one")


def copy(source: RedisStore, target: RedisStore, *, keep: bool = False, only_ended: bool = False) -> CopyReport:
    made = Copy(source, target, keep=keep, only_ended=only_ended)
    made.check()
    return made.run()


class Interrupted(Exception):
    """Stands for what ends a copy in the middle."""


def break_off(monkeypatch: pytest.MonkeyPatch, source: RedisStore, target: RedisStore, after: int) -> None:
    """Begin a copy, and end it once so many jobs were written."""
    done = []
    written = target.transfer.import_job

    def write(job_id: str, parts: Iterator[items.JobItem]) -> None:
        if len(done) == after:
            raise Interrupted
        written(job_id, parts)
        done.append(job_id)

    with monkeypatch.context() as patch:
        patch.setattr(target.transfer, "import_job", write)
        with pytest.raises(Interrupted):
            copy(source, target)


def test_all_of_it_is_copied_and_the_old_store_is_closed(open_old: Open, open_new: Open) -> None:
    old, new = open_old(), open_new()
    fill(old)
    report = copy(old, new)
    assert report.copied == len(list(new.transfer.list_ids())) == len(list(old.transfer.list_ids()))
    assert (report.unchanged, report.changed, report.gone, report.incomplete) == (0, 0, 0, {})
    assert report.parts["Job"] + report.parts["Pool"] >= report.copied
    assert report.shared == sum(1 for _ in new.transfer.export_shared())
    for job_id, parts in export_all(old).items():
        assert tally(new.transfer.export_job(job_id)) == tally(parts)
    assert open_new().jobs.read_states([JOB]) == ["running"]
    with pytest.raises(StoreMoved, match="moved to the new one"):
        open_old().jobs.read_states([JOB])


def test_a_store_that_is_kept_can_be_used_further(open_old: Open, open_new: Open) -> None:
    create_staged_job(open_old())
    copy(open_old(), open_new(), keep=True)
    assert open_old().jobs.read_states([JOB]) == open_new().jobs.read_states([JOB]) == ["staged"]


def test_a_store_that_was_closed_can_be_used_again(open_old: Open, open_new: Open) -> None:
    create_staged_job(open_old())
    copy(open_old(), open_new())
    mark = release_store(open_old())
    assert mark is not None
    assert mark.other.startswith("the new one")
    assert release_store(open_old()) is None
    assert open_old().jobs.read_states([JOB]) == ["staged"]


def test_a_copy_that_was_interrupted_continues(open_old: Open, open_new: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(open_old())
    count = len(list(open_old().transfer.list_ids()))
    break_off(monkeypatch, open_old(), open_new(), 3)
    with pytest.raises(StoreMoved, match="are being copied"):
        open_new().check_schema()
    assert open_old().jobs.read_states([JOB]) == ["running"], "it can still be used"
    assert len(list(_open_marked(open_new).transfer.list_ids())) == 3
    report = copy(open_old(), open_new())
    assert (report.copied, report.unchanged, report.changed) == (count - 3, 3, 0)
    assert tally(_open_marked(open_old).transfer.export_job(JOB)) == tally(open_new().transfer.export_job(JOB))


def _open_marked(opens: Open) -> RedisStore:
    store = opens()
    store.transfer.open()
    return store


def test_what_has_changed_since_is_copied_again(
    open_old: Open, open_new: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        create_bare_job(open_old(), f"job:{number}")
    break_off(monkeypatch, open_old(), open_new(), 2)
    open_old().jobs.update_job("job:0", label="later")
    open_old().storage.delete_job("job:1")
    report = copy(open_old(), open_new())
    assert (report.copied, report.unchanged, report.changed, report.removed) == (2, 0, 1, 0)
    record = open_new().jobs.read_job("job:0")
    assert record is not None
    assert record.label == "later"


def test_one_that_ends_between_the_mark_of_the_old_store_and_that_of_the_new_one_is_ended_by_a_second_run(
    open_old: Open, open_new: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_staged_job(open_old())
    new, marks = open_new(), []
    set_mark = new.transfer.set_mark

    def end_second(mark: items.Mark | None) -> None:
        marks.append(mark)
        if mark is None:
            raise Interrupted
        set_mark(mark)

    monkeypatch.setattr(new.transfer, "set_mark", end_second)
    with pytest.raises(Interrupted):
        copy(open_old(), new)
    for store in (open_old(), open_new()):
        with pytest.raises(StoreMoved):
            store.check_schema()
    assert copy(open_old(), open_new()).unchanged == 1
    assert open_new().jobs.read_states([JOB]) == ["staged"]
    with pytest.raises(CopyRefused, match=r"have been moved to the new one.* already"):
        copy(open_old(), open_new())


def test_what_runs_during_the_copy_is_noticed(open_old: Open, open_new: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    create_staged_job(open_old())
    old, new = open_old(), open_new()
    worker = open_old()
    worker.check_schema()
    shared = new.transfer.import_shared

    def work(parts: Iterator[items.SharedItem]) -> None:
        worker.leases.acquire_lease(BATCH, 0, "a worker of 0.2.0", LONG)
        shared(parts)

    with monkeypatch.context() as patch:
        patch.setattr(new.transfer, "import_shared", work)
        with pytest.raises(CopyRefused, match=r"something ran on the store at the old one.*Stop all workers"):
            copy(old, new)
    assert open_old().jobs.read_states([JOB]) == ["staged"], "it can still be used"
    with pytest.raises(StoreMoved):
        open_new().check_schema()
    assert copy(open_old(), open_new()).changed == 1
    assert open_new().records.read_position(BATCH) == 0


def test_what_was_not_written_as_it_was_read_is_noticed(
    open_old: Open, open_new: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_staged_job(open_old())
    new = open_new()
    written = new.transfer.import_job

    def write(job_id: str, parts: Iterator[items.JobItem]) -> None:
        written(job_id, (part for part in parts if not isinstance(part, items.IndexPart)))

    with monkeypatch.context() as patch:
        patch.setattr(new.transfer, "import_job", write)
        with pytest.raises(CopyRefused, match=r"does not have of job job-1 what was written \(IndexPart 1 / 0\)"):
            copy(open_old(), new)
    assert open_old().jobs.read_states([JOB]) == ["staged"]
    assert copy(open_old(), open_new()).changed == 1


@pytest.mark.parametrize("side", ["the old one", "the new one"])
def test_workers_must_have_stopped(side: str, open_old: Open, open_new: Open) -> None:
    create_staged_job(open_old())
    (open_old if side == "the old one" else open_new)().presence.report_worker(make_presence(), LONG)
    with pytest.raises(CopyRefused, match=rf"the store at {side}.* is used by 1 worker: celery@a\. Nothing was copied"):
        copy(open_old(), open_new())
    assert open_new().transfer.read_mark() is None
    assert list(open_new().transfer.list_ids()) == []


def test_jobs_that_have_ended_can_be_copied_while_workers_run(open_old: Open, open_new: Open) -> None:
    old = open_old()
    old.presence.report_worker(make_presence(), LONG)
    create_bare_job(old, "ended", state="completed")
    create_bare_job(old, "running")
    report = copy(old, open_new(), only_ended=True)
    assert (report.copied, report.skipped, report.shared) == (1, 1, 0)
    assert open_old().jobs.read_states(["running"]) == ["running"]
    with pytest.raises(StoreMoved):
        open_new().check_schema()
    old.presence.remove_worker("celery@a")
    report = copy(old, open_new())
    assert (report.copied, report.unchanged) == (1, 1)
    assert open_new().jobs.read_states(["ended", "running"]) == ["completed", "running"]


def test_a_job_that_the_target_has_already_is_not_replaced(open_old: Open, open_new: Open) -> None:
    create_bare_job(open_old(), "other")
    create_bare_job(open_old(), JOB)
    create_bare_job(open_new(), JOB, label="its own")
    with pytest.raises(CopyRefused, match=r"the store at the new one.* has 1 of the jobs already \(job-1"):
        copy(open_old(), open_new())
    assert open_new().transfer.read_mark() is None
    record = open_new().jobs.read_job(JOB)
    assert record is not None
    assert record.label == "its own"
    assert open_new().jobs.read_states(["other"]) == [None]


def test_a_store_is_not_copied_into_itself(open_old: Open, open_new: Open) -> None:
    with pytest.raises(CopyRefused, match="both are the store at the old one"):
        copy(open_old(), open_old())
    known = open_old()
    known.transfer.address = "the old one, by another name"
    with pytest.raises(CopyRefused, match="both are the store at the old one"):
        copy(open_old(), known)
    create_bare_job(open_old(), JOB)
    with pytest.raises(CopyRefused, match="has 1 of the jobs already"):
        copy(open_old(), known)
    assert open_old().jobs.read_states([JOB]) == ["running"]


def test_of_three_stores_none_is_taken_for_another(open_old: Open, open_new: Open) -> None:
    create_bare_job(open_old(), JOB)
    copy(open_old(), open_new())
    third = RedisStore(fakeredis.FakeRedis(server=fakeredis.FakeServer()), "a third one")
    with pytest.raises(CopyRefused, match="have been moved to the new one"):
        copy(open_old(), third)
    create_bare_job(third, "other")
    with pytest.raises(CopyRefused, match=r"the store at the old one.* has jobs that were moved to the new one"):
        copy(third, open_old())


def test_jobs_can_be_moved_back(open_old: Open, open_new: Open) -> None:
    for job_id in ("ended since", "went on", "the same"):
        create_bare_job(open_old(), job_id)
    copy(open_old(), open_new())
    new = open_new()
    new.leases.acquire_lease(Unit("went on", 0), 0, "me", LONG)
    assert new.leases.advance_unit(Unit("went on", 0), "me", 1)
    new.storage.delete_job("ended since")
    create_bare_job(new, "new")
    report = copy(open_new(), open_old())
    assert (report.copied, report.unchanged, report.changed, report.removed) == (2, 1, 1, 1)
    old = open_old()
    assert old.jobs.read_states(["ended since", "went on", "the same", "new"]) == [None, *["running"] * 3]
    assert old.records.read_position(Unit("went on", 0)) == 1
    with pytest.raises(StoreMoved):
        open_new().check_schema()


def test_a_dry_run_changes_nothing(open_old: Open, open_new: Open) -> None:
    fill(open_old())
    made = Copy(open_old(), open_new())
    made.check()
    report = made.preview()
    assert report.copied == len(list(open_old().transfer.list_ids()))
    assert report.shared > 0
    assert open_new().transfer.read_mark() is None
    assert open_old().transfer.read_mark() is None
    assert list(open_new().transfer.list_ids()) == []
    assert copy(open_old(), open_new()).parts == report.parts


def test_what_the_old_store_has_lost_is_told(open_old: Open, open_new: Open) -> None:
    old = open_old()
    create_job(old, job_record(batches=2), [batch_record(), batch_record(first=2)])
    client = old._connection.client
    client.delete("claude_batch:{job-1}:batch:0", "claude_batch:{job-1}:batch:1:body")
    report = copy(old, open_new())
    assert report.incomplete == {JOB: "records of 1 of 2 batches, 1 chunk of requests"}
    assert report.copied == 1


def test_a_pool_that_waits_takes_asks_in_the_new_store(open_old: Open, open_new: Open) -> None:
    add_ask(open_old(), "first")
    report = copy(open_old(), open_new())
    assert (report.copied, report.parts["Pool"]) == (1, 1)
    place = add_ask(open_new(), "second")
    assert (place.job_id, place.position) == ("pool-of-first", 1)
    [known] = open_new().asks.read_places(["first"])
    assert known is not None
    assert known.job_id == "pool-of-first"


class TestJobsWithObjects:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "objects").mkdir()
        return tmp_path / "objects"

    @pytest.mark.parametrize("place", ["objects", "elsewhere"])
    def test_are_read_and_continue_and_are_deleted(
        self, open_old: Open, open_new: Open, folder: Path, place: str
    ) -> None:
        """The URL stays, or is changed on the same day."""
        create_staged_job(with_objects(open_old(), f"file://{folder}"))
        copy(open_old(), open_new())
        (folder.parent / place).mkdir(exist_ok=True)
        new = with_objects(open_new(), f"file://{folder.parent / place}")
        assert list(new.payloads.read_bodies(JOB, 0)) == [body_of("a0", "b0")]
        assert new.storage.missing_keys(JOB, 0, ["body", "ids"]) == []
        new.leases.acquire_lease(BATCH, 0, "me", LONG)
        new.results.write_rows(JOB, 0, 1, [b"row"])
        assert new.results.publish_rows(BATCH, "me", 1, **NO_ROWS)
        assert list(new.results.read_rows(JOB, 0, 1)) == [b"row"]
        new.storage.delete_job(JOB)
        assert {path.name for path in folder.parent.rglob("*") if path.is_file()} == {MARKER}

    def test_are_those_of_one_store_so_that_no_other_removes_their_objects(
        self, open_old: Open, open_new: Open, folder: Path
    ) -> None:
        """As on a copy for tests, which knows nothing of what is submitted to the other store from then on."""
        create_staged_job(with_objects(open_old(), f"file://{folder}"))
        copy(open_old(), open_new(), keep=True)
        assert open_new().read_identity() != open_old().read_identity()
        assert list(with_objects(open_new(), None).payloads.read_bodies(JOB, 0)) == [body_of("a0", "b0")]

    def test_are_swept_by_the_store_that_they_were_moved_to(self, open_old: Open, open_new: Open, folder: Path) -> None:
        create_staged_job(with_objects(open_old(), f"file://{folder}"))
        copy(open_old(), open_new())
        assert open_new().read_identity() == _open_marked(open_old).read_identity()


class TestTally:
    def test_does_not_depend_on_the_order_but_on_everything_else(self) -> None:
        one, two = (items.Outcome(batch=0, position=n, outcome=b"x") for n in range(2))
        assert tally([one, two]) == tally([two, one])
        assert tally([one, two]) != tally([one])
        assert tally([one]) != tally([msgspec.structs.replace(one, outcome=b"y")])
        assert tally([one]).describe_difference(tally([one, two])) == "Outcome 1 / 2"
        assert len(tally([one]).digest) == 64

    def test_time_that_passes_is_no_difference(self) -> None:
        job = items.Job(record={"nonce": '"n"'}, remaining=7.0)
        assert tally([job]) == tally([msgspec.structs.replace(job, remaining=6.0)])
        assert Tally() == Tally()
