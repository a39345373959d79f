"""What is stored of a job beside its records: what of it is gone, and what is left when all of it was removed."""

from __future__ import annotations

from collections.abc import Callable

from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import (
    JOB,
    LONG,
    NONCE,
    Contents,
    PassTime,
    batch_record,
    create_bare_job,
    create_job,
    job_record,
    live,
    make_chunk,
)


class TestWhatIsLeftOfAJob:
    def test_leaves_nothing_behind_when_it_expires(
        self,
        store: Store,
        job: str,
        contents: Contents,
        pass_time: PassTime,
        forget_expired: Callable[[Store], None],
    ) -> None:
        live(store)
        store.jobs.expire_job(job, 1)
        pass_time(1.5)
        forget_expired(store)
        assert contents() == set()
        assert store.jobs.read_job(job) is None

    def test_leaves_nothing_behind_when_it_is_deleted(self, store: Store, job: str, contents: Contents) -> None:
        live(store)
        store.storage.delete_job(job)
        assert contents() == set()

    def test_leaves_nothing_behind_when_staging_failed(self, store: Store, contents: Contents) -> None:
        for number in (0, 0, 1, 2):
            store.payloads.stage_requests(JOB, NONCE, [make_chunk(number, "a")])
        store.payloads.discard_staged(JOB, NONCE, 3)
        assert contents() == set()
        store.payloads.discard_staged(JOB, NONCE, 0)

    def test_is_of_whoever_made_it_first(self, store: Store, contents: Contents) -> None:
        assert create_job(store, job_record(nonce="first", batches=1), [batch_record()])
        made = contents()
        store.payloads.stage_requests(JOB, "second", [make_chunk(0, "b")])
        store.payloads.stage_index(JOB, "second", [(0, b"second")])
        assert not store.jobs.create_job(JOB, job_record(nonce="second", batches=1), [batch_record()], LONG)
        assert store.payloads.read_index(JOB, 7) == b"index"
        assert list(store.payloads.read_custom_ids(JOB, 0)) == [["a"]]
        store.payloads.discard_staged(JOB, "second", 1)
        assert contents() == made

    def test_of_others_is_left_alone(self, store: Store, job: str, contents: Contents) -> None:
        before = contents()
        create_job(store, job_record(batches=1), [batch_record()], job_id="job-2")
        store.storage.delete_job("job-2")
        store.storage.delete_job("job-3")
        assert contents() == before

    def test_leaves_no_earlier_attempt_behind_when_it_is_deleted(
        self, store: Store, job: str, contents: Contents
    ) -> None:
        live(store, attempts=3)
        store.storage.delete_job(job)
        assert contents() == set()

    def test_is_removed_from_the_list_of_all(self, store: Store, pass_time: PassTime) -> None:
        store.jobs.expire_job(create_bare_job(store, "job"), 1)
        pass_time(1.5)
        store.storage.forget_expired()
        assert list(store.jobs.job_ids()) == []


class TestWhatIsMissingOfAJob:
    def test_is_named(self, store: Store, job: str) -> None:
        assert store.storage.missing_keys(job, 0, ["body", "ids"]) == []
        assert store.storage.missing_keys(job, None, ["index"]) == []
        [outcomes, rows] = store.storage.missing_keys(job, 0, ["outcomes", "body", "rows:1"])
        assert outcomes.endswith("outcomes")
        assert rows.endswith("rows:1")
        assert len(store.storage.missing_keys("nobody", None, ["index"])) == 1

    def test_has_the_name_by_which_errors_call_it(self, store: Store, job: str) -> None:
        assert store.storage.missing_keys(job, None, ["batch:7"]) == [store.records.name_batch(job, 7)]
