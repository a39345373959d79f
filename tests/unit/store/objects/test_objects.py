"""Payloads in an object store: where they are, what becomes of them, and what is said when they cannot be had."""

from __future__ import annotations

import logging
import secrets
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import fakeredis
import pytest

from claude_batch_tasks.errors import JobNotFound, PayloadDamaged, ResultsMissing, StoreUnavailable
from claude_batch_tasks.store import Store, lost_records
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.objects import names
from claude_batch_tasks.store.objects.bucket import MARKER, Bucket
from claude_batch_tasks.store.objects.places import Places
from claude_batch_tasks.store.objects.store import with_objects
from claude_batch_tasks.store.objects.sweep import GRACE, Sweep
from claude_batch_tasks.store.packing import Packer
from claude_batch_tasks.store.redis import RedisStore
from tests.unit.store.contract.samples import (
    BATCH,
    JOB,
    LONG,
    NO_ROWS,
    NONCE,
    batch_record,
    body_of,
    create_bare_job,
    create_job,
    create_staged_job,
    job_record,
    make_chunk,
)
from tests.unit.store.redis.movable_time import MovableTime

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

OpenAt = Callable[..., Store]


@pytest.fixture
def redis_client() -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis(server=fakeredis.FakeServer())


@pytest.fixture
def clock(redis_client: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch) -> MovableTime:
    return MovableTime(redis_client, monkeypatch)


@pytest.fixture
def open_at(redis_client: fakeredis.FakeRedis, clock: MovableTime) -> OpenAt:
    """``open_at(url, *keys)``: another process's store, with the same ledger."""

    def open_at(url: str | None, *keys: str) -> Store:
        ledger = RedisStore(clock.move_client(redis_client), "the test's server", Cipher(keys))
        return with_objects(ledger, url, keys)

    return open_at


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def url(folder: Path) -> str:
    return f"file://{folder}"


@pytest.fixture
def store(open_at: OpenAt, url: str) -> Store:
    return open_at(url)


@pytest.fixture
def job(store: Store) -> str:
    return create_staged_job(store)


def publish(store: Store, attempt: int = 1, *rows: bytes, keep: tuple[int, ...] = ()) -> None:
    store.leases.acquire_lease(BATCH, 0, "me", LONG)
    store.results.write_rows(JOB, 0, attempt, rows or (b"row",))
    positions = array("I", [0, 2**32 - 1]).tobytes()
    assert store.results.publish_rows(BATCH, "me", attempt, pieces=positions, eligible_places=b"abcd", keep=keep)


def files(folder: Path) -> list[str]:
    found = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != MARKER)


def find_file(folder: Path, name: str) -> Path:
    [found] = [path for path in folder.rglob(name) if path.is_file()]
    return found


class TestThePayloadsOfAJob:
    def test_are_objects_and_the_ledger_has_none(
        self, store: Store, folder: Path, redis_client: fakeredis.FakeRedis
    ) -> None:
        text = "a long prompt " * 200
        create_job(store, job_record(batches=1), [batch_record()], make_chunk(0, *(f"{n} {text}" for n in range(9))))
        publish(store, 1, b"an answer " * 5000)
        lists = [redis_client.lrange(key, 0, -1) for key in redis_client.keys("*") if redis_client.type(key) == b"list"]
        assert sum(len(chunk) for chunks in lists for chunk in chunks) < 1500
        ends = {path.rsplit("/", 1)[1] for path in files(folder) if "/index/" not in path}
        assert ends == {"bodies", "ids", "rows", "places"}
        assert list(store.results.read_rows(JOB, 0, 1)) == [b"an answer " * 5000]

    def test_are_read_by_a_process_without_the_setting(self, job: str, store: Store, open_at: OpenAt) -> None:
        """Their place is in the ledger; the credentials are in the environment."""
        publish(store)
        other = open_at(None)
        assert list(other.payloads.read_bodies(job, 1)) == [body_of("a1", "b1")]
        assert other.payloads.find_custom_id(job, 1, 1) == "b1"
        assert other.payloads.read_index(job, 7) == b"index"
        assert list(other.results.read_rows(job, 0, 1)) == [b"row"]
        assert other.results.find_chunks(job, 0, 1, [0, 1]) == {0: 0}
        assert other.results.read_eligible(job, 0, 1) == b"abcd"
        other.storage.delete_job(job)

    def test_stay_where_they_are_when_the_setting_changes(
        self, job: str, store: Store, open_at: OpenAt, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        publish(store, 1, b"first")
        another = tmp_path_factory.mktemp("another")
        moved = open_at(f"file://{another}")
        publish(moved, 2, b"second", keep=(1,))
        assert files(another)
        assert [list(moved.results.read_rows(job, 0, attempt)) for attempt in (1, 2)] == [[b"first"], [b"second"]]
        assert list(moved.payloads.read_bodies(job, 0)) == [body_of("a0", "b0")]
        switched_off = open_at(None)
        publish(switched_off, 3, b"third", keep=(1, 2))
        assert [list(store.results.read_rows(job, 0, attempt)) for attempt in (1, 2, 3)] == [
            [b"first"],
            [b"second"],
            [b"third"],
        ]

    def test_of_a_job_that_began_without_an_object_store_stay_in_the_ledger(
        self, open_at: OpenAt, store: Store, folder: Path
    ) -> None:
        create_staged_job(open_at(None))
        assert list(store.payloads.read_bodies(JOB, 0)) == [body_of("a0", "b0")]
        assert store.payloads.find_chunk(JOB, 0, 1) == (0, body_of("a0", "b0"))
        assert store.payloads.find_custom_id(JOB, 0, 1) == "b0"
        assert store.storage.missing_keys(JOB, 0, ["body", "ids"]) == []
        assert files(folder) == []
        publish(store)
        assert {path.rsplit("/", 1)[1] for path in files(folder)} == {"rows", "places"}
        assert list(open_at(None).results.read_rows(JOB, 0, 1)) == [b"row"]
        store.storage.delete_job(JOB)
        assert files(folder) == []

    def test_are_encrypted_each_for_its_place(self, open_at: OpenAt, folder: Path) -> None:
        store = open_at(f"file://{folder}", KEY)
        create_staged_job(store)
        publish(store, 1, b"the secret answer")
        assert all(b"secret" not in (folder / name).read_bytes() for name in files(folder))
        first, second = sorted(folder.rglob("bodies"))
        second.write_bytes(first.read_bytes())
        with pytest.raises(PayloadDamaged):
            list(open_at(None, KEY).payloads.read_bodies(JOB, 1))

    def test_are_deleted_and_missed_without_the_key(self, open_at: OpenAt, folder: Path) -> None:
        with_key, without = open_at(f"file://{folder}", KEY), open_at(f"file://{folder}")
        create_staged_job(with_key)
        publish(with_key)
        assert without.storage.missing_keys(JOB, 0, ["body", "rows:1", "pieces:1"]) == []
        without.storage.delete_job(JOB)
        assert files(folder) == []

    def test_of_an_adopted_job_have_an_index(self, store: Store, open_at: OpenAt, url: str) -> None:
        create_bare_job(store, JOB, adopted=True)
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        store.results.write_rows(JOB, 0, 1, [b"row"])
        assert store.results.publish_rows(BATCH, "me", 1, **NO_ROWS, index=[(3, b"entries"), (200, b"more")])
        for each in (store, open_at(url), open_at(None)):
            assert each.storage.missing_keys(JOB, 0, ["index:1", "index:2"]) == [
                f"{each.records.name_batch(JOB, 0)}:index:2"
            ]
            found = [each.payloads.read_index(JOB, part, batch=0, attempt=1) for part in (3, 200, 4)]
            assert found == [b"entries", b"more", b""]

    def test_that_are_damaged_say_so(self, store: Store, job: str, folder: Path, open_at: OpenAt, url: str) -> None:
        publish(store)
        rows = find_file(folder, "rows")
        rows.write_bytes(b"x" + rows.read_bytes()[1:])
        with pytest.raises(PayloadDamaged):
            list(store.results.read_rows(job, 0, 1))
        rows.write_bytes(b"short")
        with pytest.raises(PayloadDamaged):
            list(open_at(url).results.read_rows(job, 0, 1))

    def test_are_those_of_the_attempt_that_was_published(
        self, store: Store, job: str, open_at: OpenAt, url: str
    ) -> None:
        """Two workers download the same attempt; the one that has the lease publishes what it wrote."""
        other = open_at(url)
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        store.results.write_rows(job, 0, 1, [b"mine"])
        other.results.write_rows(job, 0, 1, [b"other", b"wise cut"])
        assert store.results.publish_rows(BATCH, "me", 1, **NO_ROWS)
        assert list(store.results.read_rows(job, 0, 1)) == [b"mine"]


class TestWhatIsGone:
    def test_is_named_by_its_place(self, store: Store, job: str, folder: Path, open_at: OpenAt, url: str) -> None:
        publish(store)
        names_ = ["body", "ids", "rows:1", "pieces:1", "eligible:1", "outcomes"]
        [outcomes] = store.storage.missing_keys(job, 0, names_)
        assert outcomes.endswith("outcomes")
        for name in ("rows", "places"):
            find_file(folder, name).unlink()
        fresh = open_at(url)
        found = fresh.storage.missing_keys(job, 0, names_)
        assert [name.rsplit("/", 1)[-1] for name in found[1:]] == ["rows", "places", "places"]
        assert all(name.startswith(f"file://{folder}/") for name in found[1:])
        with pytest.raises(ResultsMissing, match="is gone from the object store"):
            list(fresh.results.read_rows(job, 0, 1))

    def test_is_said_with_what_to_do_about_it(self, store: Store, job: str, folder: Path) -> None:
        """A lifecycle rule removed them before the batch was created."""
        for path in folder.rglob("bodies"):
            path.unlink()
        record = store.jobs.read_job(job)
        assert record is not None
        error = lost_records.of_requests(store, job, record, 0, store.records.read_batches(job)[0])
        assert str(error).startswith(
            f"job {job}, batch 1 of 2: 2 of 2 requests are gone from the store (file://{folder}/"
        )
        assert str(error).endswith("no lifecycle rule, remove objects of jobs that the store still has.")

    def test_is_missed_by_a_process_without_the_setting(
        self, store: Store, job: str, folder: Path, open_at: OpenAt
    ) -> None:
        """The setting was removed since: what is lost is downloaded again nevertheless."""
        publish(store)
        find_file(folder, "rows").unlink()
        assert [name.rsplit("/", 1)[-1] for name in open_at(None).storage.missing_keys(job, 0, ["rows:1"])] == ["rows"]

    def test_is_downloaded_again_into_its_place(
        self, store: Store, job: str, folder: Path, open_at: OpenAt, url: str
    ) -> None:
        publish(store)
        find_file(folder, "rows").unlink()
        fresh = open_at(url)
        fresh.results.write_rows(job, 0, 1, [b"again"], copy=":copy")
        assert fresh.results.restore_rows(job, 0, 1, ":copy", **NO_ROWS)
        assert list(fresh.results.read_rows(job, 0, 1)) == [b"again"]
        assert fresh.storage.missing_keys(job, 0, ["rows:1", "pieces:1"]) == []
        assert len(list(folder.rglob("rows"))) == len(list(folder.rglob("places"))) == 1

    def test_is_that_of_a_job_that_is_deleted_while_it_is_read(self, store: Store, open_at: OpenAt, url: str) -> None:
        chunks = [make_chunk(0, secrets.token_hex(3_000_000)) for _ in range(5)]
        create_job(store, job_record(batches=1), [batch_record()], *chunks)
        reader = store.payloads.read_bodies(JOB, 0)
        next(reader)
        open_at(url).storage.delete_job(JOB)
        with pytest.raises(JobNotFound, match="expired or was deleted"):
            list(reader)

    def test_is_not_concluded_from_a_folder_that_is_empty(
        self, store: Store, job: str, folder: Path, open_at: OpenAt, url: str
    ) -> None:
        """A disk that is not mounted, or another bucket."""
        publish(store)
        away = folder.rename(folder.parent / "away")
        folder.mkdir()
        fresh = open_at(url)
        for read in (
            lambda: list(fresh.payloads.read_bodies(job, 0)),
            lambda: fresh.storage.missing_keys(job, 0, ["body"]),
            lambda: fresh.results.read_chunk(job, 0, 1, 0),
        ):
            with pytest.raises(StoreUnavailable, match="Nothing was taken for lost"):
                read()
        folder.rmdir()
        away.rename(folder)
        assert list(fresh.payloads.read_bodies(job, 0)) == [body_of("a0", "b0")]


class TestWhatIsStaged:
    def test_stays_when_it_is_discarded_after_a_job_was_made(self, store: Store, job: str) -> None:
        """The answer to the create was lost, and whoever submitted gives up."""
        store.payloads.discard_staged(job, NONCE, 2)
        assert list(store.payloads.read_bodies(job, 0)) == [body_of("a0", "b0")]

    def test_that_breaks_off_leaves_no_object(self, store: Store, folder: Path) -> None:
        def pieces() -> Iterator[object]:
            yield make_chunk(0, "x" * 6_000_000)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.payloads.stage_requests(JOB, NONCE, pieces())  # type: ignore[arg-type]
        assert files(folder) == []


class TestASweep:
    @pytest.fixture(autouse=True)
    def _made(self, job: str) -> None:
        """There is a job, and requests of another that was never made."""

    @pytest.fixture
    def sweep(self, store: Store, url: str) -> Callable[[], None]:
        def sweep() -> None:
            sweep = Sweep(store, Places(store, url, Packer(Cipher())))
            for shard in range(names.SHARDS):
                sweep.sweep_shard(shard)

        return sweep

    def stage(self, store: Store) -> None:
        store.payloads.stage_requests("job-2", "never", [make_chunk(0, "a")])
        store.payloads.stage_index("job-2", "never", [(0, b"x")])

    def test_removes_what_no_job_has_after_a_while(
        self, store: Store, folder: Path, sweep: Callable[[], None], clock: MovableTime
    ) -> None:
        before = files(folder)
        self.stage(store)
        sweep()
        assert len(files(folder)) > len(before), "they are young"
        store.jobs.persist_job(JOB)
        clock(GRACE + 10)
        sweep()
        assert files(folder) == before

    def test_removes_nothing_when_the_ledger_does_not_answer(
        self,
        store: Store,
        folder: Path,
        sweep: Callable[[], None],
        clock: MovableTime,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        clock(GRACE + 10)
        before = files(folder)

        def fail(job_id: str) -> None:
            raise StoreUnavailable("no answer")

        monkeypatch.setattr(store.jobs, "read_job", fail)
        with pytest.raises(StoreUnavailable):
            sweep()
        assert files(folder) == before

    @pytest.mark.parametrize("when", ["before", "meanwhile"])
    def test_removes_nothing_of_a_ledger_that_was_emptied(
        self,
        store: Store,
        folder: Path,
        sweep: Callable[[], None],
        clock: MovableTime,
        redis_client: fakeredis.FakeRedis,
        monkeypatch: pytest.MonkeyPatch,
        when: str,
    ) -> None:
        before, read_job = files(folder), store.jobs.read_job

        def lose_all(job_id: str) -> object:
            redis_client.flushall()
            clock(GRACE + 10)
            return read_job(job_id)

        clock(GRACE + 10)
        if when == "before":
            redis_client.flushall()
            clock(GRACE + 10)
        else:
            monkeypatch.setattr(store.jobs, "read_job", lose_all)
        sweep()
        assert files(folder) == before

    def test_checks_each_folder_once_a_day_of_all_workers(
        self, store: Store, open_at: OpenAt, monkeypatch: pytest.MonkeyPatch, url: str
    ) -> None:
        swept: list[int] = []
        monkeypatch.setattr(Sweep, "sweep_shard", lambda _, shard: swept.append(shard))
        for each in (store, open_at(url)):
            for _ in range(names.SHARDS * 5):  # all but one in 150
                each.storage.forget_expired()
        assert len(swept) == len(set(swept)) > names.SHARDS * 0.98

    def test_that_fails_stops_nothing_else(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(_: Bucket, **how: object) -> None:
            raise StoreUnavailable("no answer")

        monkeypatch.setattr(Bucket, "mark", fail)
        store.storage.forget_expired()
        assert "were not removed: no answer" in caplog.text


class TestTheNameOfAnObject:
    @pytest.mark.parametrize(
        "job_id", ["a", "a:b", "{a}", "a*/../b", "..", "a b", "ü😀", "a.b~c%=", "A", "x" * 1000, "ü" * 300]
    )
    def test_says_whose_it_is(self, store: Store, folder: Path, job_id: str) -> None:
        store.payloads.stage_requests(job_id, NONCE, [make_chunk(0, "a")])
        store.payloads.stage_index(job_id, NONCE, [(0, b"x")])
        assert store.jobs.create_job(job_id, job_record(batches=1), [batch_record()], LONG)
        store.results.write_rows(job_id, 0, 1, [b"row"])
        owners = [names.find_owner(name) for name in files(folder)]
        assert owners == [names.Owner(job_id, NONCE)] * 4
        assert list(store.payloads.read_bodies(job_id, 0)) == [body_of("a")]
        store.storage.delete_job(job_id)
        assert [path.name for path in folder.iterdir()] == [MARKER], "no empty folder is left either"

    def test_of_anything_else_is_nobodys(self) -> None:
        for path in ("", MARKER, "a/b/c", "a/b/c/index/x"):
            assert names.find_owner(path) is None


def test_a_delete_that_reaches_the_ledger_alone_says_what_is_left(
    store: Store, job: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    def fail(_: Bucket, folder: str) -> None:
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(Bucket, "remove_folder", fail)
    with pytest.raises(
        StoreUnavailable, match=r"was deleted, but for its objects in file://.*nothing needs to be repeated"
    ):
        store.storage.delete_job(job)
    assert store.jobs.read_job(job) is None


def test_rows_of_a_job_that_is_gone_are_not_written(store: Store, folder: Path) -> None:
    with pytest.raises(JobNotFound):
        store.results.write_rows("nobody", 0, 1, [b"row"])
    assert not store.results.restore_rows("nobody", 0, 1, ":copy", **NO_ROWS)
    store.results.discard_rows("nobody", 0, 1, copy=":copy")
    assert files(folder) == []
