"""Records of batches and senders."""

from __future__ import annotations

import pytest

from claude_batch_tasks.errors import ResultsMissing
from claude_batch_tasks.records import BatchRecord, JobRecord, LaneRecord, Round, Unit
from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import (
    BATCH,
    JOB,
    SENDER,
    Contents,
    OpenStore,
    batch_record,
    call_at_once,
    create_job,
    job_record,
    read_job,
)

FULL_JOB = job_record(
    client="tenant-b", queue="slow", options={"fallback": "off", "poll_min": 0.5}, state="failed", started_at=2.0,
    ended_at=3.25, cancel_requested=True, fallback_granted=7, summary={"batch_ids": ["x"]}, error="ü😀\n",
    on_result='{"task": "save"}', stopped='"no" credit',
)  # fmt: skip

FULL_BATCH = batch_record(
    state="lost", turn=2, intent_at=1.25, rejected_ids=["msgbatch_1"], batch_id="msgbatch_2", provisional=True,
    counts={"succeeded": 3}, due_at=9.5, published=4, usage={"input_tokens": 10**15}, granted=0, done=True,
    outcome={"type": "errored", "error": {"type": "x", "message": "y"}}, error=["BatchLost", ["gone", None, 2.5]],
    rounds=[Round(batch_id=None, attempt=3, counts={"x": 2}, usage={}, costs={"m": None}, eligible=2, open={})],
    smaller=2, smaller_bytes=77, costs={"m": "0.10", "unknown": None}, least=0, most=2**53, note="ü",
)  # fmt: skip


class TestRecords:
    @pytest.mark.parametrize(
        ("job", "batch"), [(job_record(), batch_record()), (FULL_JOB, FULL_BATCH)], ids=["defaults", "everything"]
    )
    def test_come_back_as_they_went_in(self, store: Store, job: JobRecord, batch: BatchRecord) -> None:
        create_job(store, job, [batch, batch])
        assert store.jobs.read_job(JOB) == job
        assert store.records.read_batch(JOB, 1) == batch
        assert store.records.read_batches(JOB) == [batch, batch]
        assert store.records.read_job_and_batches(JOB) == (job, [batch, batch])

    def test_of_nothing_are_none(self, store: Store, contents: Contents) -> None:
        assert store.jobs.read_job("nobody") is None
        assert store.records.read_batch("nobody", 0) is None
        assert store.records.read_batches("nobody") == []
        assert store.records.read_job_and_batches("nobody") == (None, [])
        assert store.records.read_sender(Unit("nobody", 0, 0)) == LaneRecord()
        assert contents() == set()

    def test_are_changed_one_field_at_a_time(self, store: Store, job: str) -> None:
        store.jobs.update_job(job, state="running", started_at=7.5)
        assert store.jobs.read_job(job) == job_record(state="running", started_at=7.5)

    def test_of_a_job_that_is_gone_are_not_brought_back_by_a_late_change(
        self, store: Store, contents: Contents
    ) -> None:
        store.jobs.update_job("gone", cancel_requested=True)
        assert contents() == set()

    def test_of_a_sender_begin_empty(self, store: Store, job: str) -> None:
        assert store.records.read_sender(SENDER) == LaneRecord()
        assert store.records.read_position(SENDER) == store.records.read_position(BATCH) == -1


class TestABatchWhoseRecordIsGone:
    @pytest.fixture(autouse=True)
    def _half_a_job(self, store: Store) -> None:
        """Of two batches, the store knows the first."""
        create_job(store, job_record(state="running"), [batch_record()])

    def test_is_none_among_others(self, store: Store) -> None:
        assert store.records.read_batch(JOB, 1) is None
        assert store.records.find_batches(JOB) == [batch_record(), None]
        with pytest.raises(ResultsMissing, match="the records of 1 of the 2 batches"):
            store.records.read_batches(JOB)

    def test_gets_a_new_one_once(self, store: Store) -> None:
        new = batch_record(first=2, state="lost", read_only=True, done=True)
        assert store.records.replace_batch(JOB, 1, new, 2)
        assert store.records.read_batches(JOB) == [batch_record(), new]
        assert read_job(store).through == 1
        assert not store.records.replace_batch(JOB, 1, batch_record(first=2), 2)
        assert not store.records.replace_batch(JOB, 0, batch_record(), 2)
        assert not store.records.replace_batch("nobody", 0, batch_record(), 2)
        assert store.records.read_batches(JOB) == [batch_record(), new]
        assert store.schedule.are_scheduled([Unit(JOB)]) == [True], "that its job may end, whose last message is missed"

    def test_gets_a_new_one_from_one_of_many(self, open_store: OpenStore) -> None:
        def replace(store: Store, number: int) -> bool:
            return store.records.replace_batch(JOB, 1, batch_record(first=2, looks=number), 2)

        assert call_at_once(open_store, replace, range(16)).count(True) == 1


class TestWhatIsToBeRestored:
    def test_is_fetched_again_by_one_worker(self, open_store: OpenStore, store: Store) -> None:
        wanted = ["a", "b", *(f"job {number}" for number in range(20))]
        for job_id in [*wanted, "b"]:
            store.records.request_restore(job_id)
        taken = call_at_once(open_store, lambda store, _: store.records.take_restore_requests(3), range(16))
        assert all(len(some) <= 3 for some in taken)
        assert sorted(job_id for some in taken for job_id in some) == sorted(
            {"a", "b", *(f"job {n}" for n in range(20))}
        )
        assert store.records.take_restore_requests(3) == []
