"""What became of the calls of on_result."""

from __future__ import annotations

import pytest

from claude_batch_tasks import rules
from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import (
    JOB,
    LONG,
    Contents,
    OpenStore,
    batch_record,
    call_at_once,
    job_record,
)


def requests_of(store: Store) -> int:
    job = store.jobs.read_job(JOB)
    assert job is not None
    return job.requests


class TestWhatWasDelivered:
    REASON = "tests.save: ValueError"

    def test_is_counted_once_for_each_request(self, store: Store, job: str) -> None:
        assert store.deliveries.count_deliveries(job, 1) == (0, 0, 0)
        store.results.mark_announced(job, 0, range(2))
        assert store.deliveries.record_delivered(job, [(0, 1)]) == (1, False, False)
        assert store.deliveries.record_delivered(job, [(0, 1)]) == (0, False, False), "a message that came twice"
        assert store.deliveries.count_deliveries(job, 1) == (2, 1, 0)
        assert store.deliveries.read_delivered(job) == b"\x80"

    def test_is_complete_when_nothing_is_left(self, store: Store, job: str) -> None:
        last = requests_of(store) - 1
        assert store.deliveries.record_delivered(job, [(0, last)]) == (last, False, False)
        assert store.deliveries.record_delivered(job, [(last, 1)]) == (1, True, False)
        assert store.deliveries.record_delivered(job, [(0, last + 1)]) == (0, False, False)

    def test_is_no_failure_any_more(self, store: Store, job: str) -> None:
        assert store.deliveries.record_failed(job, [(0, 2)], self.REASON) == (2, False, True)
        assert store.deliveries.count_deliveries(job, 1) == (2, 0, 2)
        store.deliveries.record_delivered(job, [(1, 1)])
        assert store.deliveries.count_deliveries(job, 1) == (2, 1, 1)
        assert store.deliveries.record_failed(job, [(1, 1)], self.REASON) == (0, False, False)
        assert store.deliveries.count_deliveries(job, 1) == (2, 1, 1)

    def test_has_failed_for_each_reason_for_a_first_time(self, store: Store, job: str) -> None:
        for position, kind, is_new in [(0, "A", True), (1, "A", False), (2, "B", True), (3, "A", False)]:
            found = store.deliveries.record_failed(job, [(position, 1)], f'tests.sp/ä"x: {kind}')
            assert found is not None
            assert found.new_reason == is_new
        record = store.jobs.read_job(job)
        assert record is not None
        assert record.delivery_errors == ['tests.sp/ä"x: B', 'tests.sp/ä"x: A'], "the last one last"

    def test_has_a_bounded_number_of_reasons(self, store: Store, job: str) -> None:
        for number in range(rules.DELIVERY_REASONS + 5):
            store.deliveries.record_failed(job, [(0, 1)], "first")
            store.deliveries.record_call(job, [(0, 1)])
            store.deliveries.record_failed(job, [(0, 1)], f"reason {number}")
            store.deliveries.record_call(job, [(0, 1)])
        record = store.jobs.read_job(job)
        assert record is not None
        assert len(record.delivery_errors) == rules.DELIVERY_REASONS

    def test_counts_when_each_of_several_tasks_has_ended(self, store: Store, job: str) -> None:
        assert store.deliveries.record_delivered(job, [(0, 2)], 0, 3) == (0, False, False)
        assert store.deliveries.record_delivered(job, [(0, 2)], 0, 3) == (0, False, False)
        assert store.deliveries.record_delivered(job, [(1, 1)], 2, 3) == (0, False, False)
        assert store.deliveries.record_delivered(job, [(0, 2)], 1, 3) == (1, False, False)
        assert store.deliveries.count_deliveries(job, 1) == (1, 1, 0)

    def test_is_void_when_it_is_handed_over_again(self, store: Store, job: str) -> None:
        store.results.mark_announced(job, 0, range(3))
        store.deliveries.record_delivered(job, [(0, 1)], 0, 2)
        store.deliveries.record_delivered(job, [(0, 2)], 1, 2)
        store.deliveries.record_failed(job, [(1, 1)], self.REASON)
        store.deliveries.record_call(job, [(0, 2)], 2)
        assert store.deliveries.count_deliveries(job, 1) == (3, 0, 0)
        store.deliveries.record_delivered(job, [(0, 2)], 0, 2)
        assert store.deliveries.count_deliveries(job, 1) == (3, 0, 0), "the other task has not ended yet"

    def test_says_when_something_was_heard_of_it(self, store: Store, job: str) -> None:
        record = store.jobs.read_job(job)
        assert record is not None
        assert record.delivery_at is None
        store.deliveries.note_activity(job)
        record = store.jobs.read_job(job)
        assert record is not None
        assert record.delivery_at == pytest.approx(store.now(), abs=5)

    def test_is_of_no_request_that_the_job_does_not_have(self, store: Store, job: str) -> None:
        count = requests_of(store)
        store.deliveries.record_delivered(job, [(count - 1, 100_000), (10**6, 5)])
        assert store.deliveries.count_deliveries(job, 1).delivered == 1

    def test_may_be_in_many_places(self, store: Store) -> None:
        store.jobs.create_job("many", job_record(requests=5000), [batch_record()], LONG, staged=False)
        found = store.deliveries.record_delivered("many", [(position, 1) for position in range(0, 5000, 2)])
        assert found == (2500, False, False)
        found = store.deliveries.record_delivered("many", [(position, 1) for position in range(1, 5000, 2)])
        assert found == (2500, True, False)

    def test_is_nothing_of_a_job_that_is_gone(self, store: Store, job: str, contents: Contents) -> None:
        store.deliveries.record_delivered(job, [(0, 2)], 0, 2)
        store.deliveries.record_failed(job, [(0, 2)], self.REASON)
        store.storage.delete_job(job)
        before = contents()
        assert store.deliveries.record_delivered(job, [(0, 1)]) is None
        assert store.deliveries.record_failed(job, [(0, 1)], self.REASON) is None
        store.deliveries.record_call(job, [(0, 1)])
        store.deliveries.note_activity(job)
        assert contents() == before == set()

    def test_is_recorded_once_among_many(self, open_store: OpenStore, store: Store, job: str) -> None:
        def record(store: Store, _: int) -> bool:
            found = store.deliveries.record_delivered(job, [(0, requests_of(store))])
            return found is not None and found.complete

        assert call_at_once(open_store, record, range(20)).count(True) == 1
