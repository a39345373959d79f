"""Retry jobs, and which requests each of them took from other jobs."""

from __future__ import annotations

import pytest

from claude_batch_tasks.errors import JobNotFound
from claude_batch_tasks.records import Claim, JobRecord, JobState, RetryLink, Unit
from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import (
    JOB,
    Contents,
    OpenStore,
    PassTime,
    batch_record,
    call_at_once,
    job_record,
    make_chunk,
    read_job,
)


class TestRetries:
    """A retry takes its requests from other jobs in the step in which it is made."""

    OTHER = "job-2"

    @pytest.fixture
    def ended(self, store: Store, job: str) -> str:
        assert store.jobs.update_job(job, state="completed", ended_at=2.0)
        return job

    def stage(self, store: Store, job_id: str = OTHER) -> JobRecord:
        """Stage a retry of two batches of two requests."""
        record = job_record(nonce=f"n{job_id}", state="running", parent=JOB)
        chunks = [make_chunk(number, f"a{number}", f"b{number}") for number in range(2)]
        store.payloads.stage_requests(job_id, record.nonce, chunks)
        store.payloads.stage_index(job_id, record.nonce, [(7, b"index")])
        return record

    def create(self, store: Store, *claims: Claim, job_id: str = OTHER, due: tuple[int, ...] = (0,)) -> bool:
        record, batches = self.stage(store, job_id), [batch_record(), batch_record(first=2)]
        return store.retries.create_retry(job_id, record, batches, claims, due)

    def test_take_what_they_are_made_of(self, store: Store, ended: str) -> None:
        assert self.create(store, Claim(ended, 0, {1: b"\x02"}))
        assert read_job(store).retries == [RetryLink(job_id=self.OTHER, taken={"1": 1})]
        assert [store.retries.read_taken(ended, number, 1) for number in range(2)] == [[b""], [b"\x02"]]
        made = read_job(store, self.OTHER)
        assert (made.parent, made.state) == (ended, "running")
        assert list(store.payloads.read_custom_ids(self.OTHER, 1)) == [["a1", "b1"]]
        assert store.payloads.read_index(self.OTHER, 7) == b"index"
        assert set(store.jobs.job_ids()) == {ended, self.OTHER}

    def test_leave_the_record_of_a_batch_as_it_was(self, store: Store, ended: str) -> None:
        before = store.records.find_batches(ended)
        assert self.create(store, Claim(ended, 0, {1: b"\x01\xff\x00\x80"}))
        assert store.records.find_batches(ended) == before
        assert store.records.read_batch(ended, 1) == before[1]
        assert store.retries.read_taken(ended, 1, 1) == [b"\x01\xff\x00\x80"]

    def test_begin_with_the_batches_that_are_due(self, store: Store, ended: str) -> None:
        assert self.create(store, Claim(ended, 0, {}), due=(1,))
        assert store.schedule.take_due(10)[0] == [Unit(self.OTHER, 1)]
        assert store.schedule.are_scheduled([Unit(self.OTHER, 0), Unit(self.OTHER, 1)]) == [False, True]

    def test_do_not_expire_while_they_run(self, store: Store, ended: str, pass_time: PassTime) -> None:
        store.jobs.expire_job(ended, 1)
        assert self.create(store, Claim(ended, 0, {0: b"\x01"}))
        pass_time(1.5)
        assert store.jobs.read_job(ended) is None
        assert list(store.payloads.read_custom_ids(self.OTHER, 0)) == [["a0", "b0"]]

    def test_are_made_once_for_each_choice(self, store: Store, ended: str, contents: Contents) -> None:
        assert self.create(store, Claim(ended, 0, {0: b"\x01"}))
        before = contents()
        assert not self.create(store, Claim(ended, 0, {0: b"\x02"}), job_id="job-3")
        store.payloads.discard_staged("job-3", "njob-3", 2)
        assert contents() == before
        assert read_job(store).retries == [RetryLink(job_id=self.OTHER, taken={"0": 1})]
        assert self.create(store, Claim(ended, 1, {0: b"\x02", 1: b"\x03"}), job_id="job-3")
        assert store.retries.read_taken(ended, 0, 2) == [b"\x01", b"\x02"]
        assert [retry.taken for retry in read_job(store).retries] == [{"0": 1}, {"0": 1, "1": 2}]

    def test_are_one_of_many_at_once(self, open_store: OpenStore, store: Store, ended: str) -> None:
        def create(store: Store, number: int) -> bool:
            return self.create(store, Claim(ended, 0, {0: b"\x01"}), job_id=f"job-{number}")

        assert sorted(call_at_once(open_store, create, range(10, 18)))[-2:] == [False, True]
        assert len(read_job(store).retries) == 1

    def test_take_from_all_jobs_or_from_none(self, store: Store, ended: str) -> None:
        assert not self.create(store, Claim(ended, 0, {0: b"\x01"}), Claim("nobody", 0, {0: b"\x01"}))
        assert store.jobs.read_job(self.OTHER) is None
        assert read_job(store).retries == []
        assert store.retries.read_taken(ended, 0, 1) == [b""]

    @pytest.mark.parametrize("state", ["staged", "running", "revoked"])
    def test_take_nothing_from_a_job_that_has_not_ended(self, store: Store, ended: str, state: JobState) -> None:
        store.jobs.update_job(ended, state=state)
        assert not self.create(store, Claim(ended, 0, {0: b"\x01"}))
        assert store.jobs.read_job(self.OTHER) is None

    def test_whose_requests_have_expired_are_not_made(self, store: Store, ended: str) -> None:
        record = self.stage(store)
        store.payloads.discard_staged(self.OTHER, record.nonce, 2)
        with pytest.raises(JobNotFound, match="has expired"):
            store.retries.create_retry(self.OTHER, record, [batch_record()], [Claim(ended, 0, {})], [0])
        assert read_job(store).retries == []

    def test_what_they_took_goes_with_the_job(self, store: Store, ended: str, contents: Contents) -> None:
        assert self.create(store, Claim(ended, 0, {0: b"\x01"}))
        for job_id in (ended, self.OTHER):
            store.storage.delete_job(job_id)
        assert contents() == set()

    def test_keep_what_they_come_from(self, store: Store, ended: str, pass_time: PassTime) -> None:
        store.retries.extend_job(ended, 1)
        pass_time(1.5)
        assert read_job(store).state == "completed"  # it was not to expire at all
        store.jobs.expire_job(ended, 1)
        store.retries.extend_job(ended, 60)
        pass_time(1.5)
        assert read_job(store).state == "completed"
        assert list(store.payloads.read_custom_ids(ended, 0)) == [["a0", "b0"]]
        store.retries.extend_job(ended, 1)  # never shorter
        pass_time(1.5)
        assert read_job(store).state == "completed"
