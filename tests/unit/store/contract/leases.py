"""Leases: one worker at a time runs a step of a unit, and only it writes the unit's record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from claude_batch_tasks.records import LaneRecord, Lease, Taken, Unit
from claude_batch_tasks.store import Store
from tests.unit.store.contract.records import FULL_BATCH, FULL_JOB
from tests.unit.store.contract.samples import (
    ACCOUNT,
    BATCH,
    CALLERS,
    JOB,
    LONG,
    NO_ROWS,
    OTHER_BATCH,
    SENDER,
    Contents,
    OpenStore,
    PassTime,
    batch_record,
    call_at_once,
    create_job,
    job_record,
    make_flight,
    read_batch,
    read_job,
    take_request,
)


class TestALease:
    UNITS = (BATCH, Unit(JOB, 1), Unit(JOB, 0, 1), Unit(JOB))

    @pytest.fixture(params=UNITS, ids=["batch", "another batch", "sender", "job"])
    def unit(self, request: pytest.FixtureRequest, job: str) -> Unit:
        return request.param  # type: ignore[no-any-return]

    def test_is_taken_by_the_first_who_comes(self, store: Store, unit: Unit) -> None:
        assert store.leases.acquire_lease(unit, 0, "me", LONG) == Lease("taken")

    def test_is_busy_for_others_and_says_for_how_long(self, store: Store, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 5, "me", LONG)
        lease = store.leases.acquire_lease(unit, 5, "you", LONG)
        assert lease.state == "busy"
        assert LONG - 30 < lease.remaining < LONG + 1

    def test_is_taken_again_by_its_owner(self, store: Store, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 5, "me", LONG)
        assert store.leases.acquire_lease(unit, 5, "me", LONG) == Lease("taken")

    def test_is_taken_over_when_its_owner_is_dead(self, store: Store, unit: Unit, pass_time: PassTime) -> None:
        store.leases.acquire_lease(unit, 5, "me", 0.01)
        pass_time(0.05)
        assert store.leases.acquire_lease(unit, 5, "you", LONG) == Lease("taken_over", failures=1)
        assert store.leases.acquire_lease(unit, 5, "me", LONG).state == "busy"

    def test_says_how_often_and_by_what_its_step_was_broken_off(
        self, store: Store, unit: Unit, pass_time: PassTime
    ) -> None:
        store.leases.acquire_lease(unit, 5, "me", LONG)
        assert store.leases.park_unit(unit, "me", 6, store.now(), step_failures=2, step_failure="MemoryError")
        assert store.leases.acquire_lease(unit, 6, "you", 0.01) == Lease("taken", failures=2, failure="MemoryError")
        pass_time(0.05)
        assert store.leases.acquire_lease(unit, 6, "third", LONG) == Lease("taken_over", failures=3)
        assert store.leases.advance_unit(unit, "third", 7, step_failures=0, step_failure=None)
        assert store.leases.acquire_lease(unit, 7, "you", LONG) == Lease("taken")

    def test_of_the_next_step_is_taken_without_the_failures_of_the_one_before(self, store: Store, unit: Unit) -> None:
        """Its message may come before that one has advanced the unit."""
        store.leases.acquire_lease(unit, 5, "me", LONG)
        assert store.leases.park_unit(unit, "me", 6, store.now(), step_failures=2, step_failure="MemoryError")
        assert store.leases.acquire_lease(unit, 6, "me", LONG).failures == 2
        assert store.leases.acquire_lease(unit, 7, "next", LONG) == Lease("taken")
        assert not store.leases.advance_unit(unit, "me", 7, step_failures=0)
        assert store.leases.acquire_lease(unit, 7, "next", LONG) == Lease("taken")

    def test_is_refused_to_a_message_of_the_past(self, store: Store, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 5, "me", LONG)
        assert store.leases.acquire_lease(unit, 4, "you", LONG) == Lease("stale")
        store.leases.advance_unit(unit, "me", 6)
        assert store.leases.acquire_lease(unit, 5, "you", LONG) == Lease("stale")
        assert store.leases.acquire_lease(unit, 5, "me", LONG) == Lease("stale")

    def test_goes_to_the_next_message_even_before_its_owner_moved_on(self, store: Store, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 5, "me", LONG)
        assert store.leases.acquire_lease(unit, 6, "next", LONG) == Lease("taken")
        assert not store.leases.write_record(unit, "me", failures=9)
        assert not store.leases.advance_unit(unit, "me", 6)

    def test_is_free_again_once_its_owner_moved_on(self, store: Store, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 5, "me", LONG)
        assert store.leases.advance_unit(unit, "me", 6)
        assert store.leases.acquire_lease(unit, 6, "you", LONG) == Lease("taken")

    def test_keeps_positions_as_large_as_a_life(self, store: Store, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 2 * 10**15 - 1, "me", LONG)
        assert store.leases.acquire_lease(unit, 2 * 10**15 - 2, "you", LONG) == Lease("stale")
        assert store.leases.acquire_lease(unit, 2 * 10**15, "you", LONG) == Lease("taken")

    def test_is_renewed_by_its_owner_alone(self, store: Store, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 5, "me", 5.0)
        assert store.leases.renew_lease(unit, "me", LONG)
        assert store.leases.acquire_lease(unit, 5, "you", LONG).remaining > 60
        assert not store.leases.renew_lease(unit, "you", LONG)

    def test_is_not_renewed_after_it_was_taken_over(self, store: Store, unit: Unit, pass_time: PassTime) -> None:
        store.leases.acquire_lease(unit, 5, "me", 0.01)
        pass_time(0.05)
        store.leases.acquire_lease(unit, 5, "you", LONG)
        assert not store.leases.renew_lease(unit, "me", LONG)

    def test_is_not_renewed_after_it_was_given_up(self, store: Store, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 5, "me", LONG)
        store.leases.advance_unit(unit, "me", 6)
        assert not store.leases.renew_lease(unit, "me", LONG)
        assert store.leases.acquire_lease(unit, 6, "you", LONG) == Lease("taken")

    def test_goes_to_one_of_many_who_want_it(self, open_store: OpenStore, unit: Unit) -> None:
        def acquire(store: Store, number: int) -> str:
            return store.leases.acquire_lease(unit, 5, f"worker-{number}", LONG).state

        assert sorted(call_at_once(open_store, acquire, range(24))) == ["busy"] * 23 + ["taken"]

    def test_is_taken_over_by_one_of_many(
        self, open_store: OpenStore, store: Store, unit: Unit, pass_time: PassTime
    ) -> None:
        def acquire(store: Store, number: int) -> str:
            return store.leases.acquire_lease(unit, 5, f"worker-{number}", LONG).state

        store.leases.acquire_lease(unit, 5, "me", 0.01)
        pass_time(0.05)
        assert sorted(call_at_once(open_store, acquire, range(24))) == ["busy"] * 23 + ["taken_over"]

    def test_of_one_unit_leaves_the_others_free(self, store: Store, job: str) -> None:
        for number, unit in enumerate((*self.UNITS, Unit(job, 0, 0))):
            assert store.leases.acquire_lease(unit, 5, f"worker-{number}", LONG) == Lease("taken")

    @pytest.mark.parametrize("unit", [Unit("nobody"), Unit("nobody", 0), Unit(JOB, 7)])
    def test_of_what_is_gone_is_not_to_be_had(self, store: Store, contents: Contents, job: str, unit: Unit) -> None:
        before = contents()
        assert store.leases.acquire_lease(unit, 0, "me", LONG) == Lease("gone")
        assert not store.leases.write_record(unit, "me", failures=1)
        assert not store.leases.renew_lease(unit, "me", LONG)
        assert not store.leases.advance_unit(unit, "me", 1, failures=1)
        assert contents() == before

    def test_of_a_sender_of_a_job_that_is_gone_leaves_nothing(self, store: Store, contents: Contents) -> None:
        store.leases.acquire_lease(Unit("gone", 0, 3), 0, "me", LONG)
        assert contents() == set()


class TestARecordUnderALease:
    def test_is_changed_by_its_owner(self, store: Store, job: str) -> None:
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        assert store.leases.write_record(
            BATCH, "me", state="in_progress", batch_id="msgbatch_1", counts={"succeeded": 1}
        )
        expected = batch_record(state="in_progress", batch_id="msgbatch_1", counts={"succeeded": 1})
        assert store.records.read_batch(job, 0) == expected
        assert store.records.read_batch(job, 1) == batch_record(first=2)

    def test_may_be_set_back_to_none(self, store: Store, job: str) -> None:
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        store.leases.write_record(BATCH, "me", intent_at=7.5)
        store.leases.write_record(BATCH, "me", intent_at=None)
        assert store.records.read_batch(job, 0) == batch_record()

    def test_is_not_changed_by_anybody_else(self, store: Store, job: str) -> None:
        assert not store.leases.write_record(BATCH, "me", state="failed")
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        assert not store.leases.write_record(BATCH, "you", state="failed")
        assert not store.leases.advance_unit(BATCH, "you", 1, state="failed")
        assert store.records.read_batch(job, 0) == batch_record()

    def test_is_not_changed_after_a_takeover(self, store: Store, job: str, pass_time: PassTime) -> None:
        store.leases.acquire_lease(BATCH, 0, "me", 0.01)
        pass_time(0.05)
        store.leases.acquire_lease(BATCH, 0, "you", LONG)
        assert not store.leases.write_record(BATCH, "me", batch_id="msgbatch_mine")
        assert store.leases.write_record(BATCH, "you", batch_id="msgbatch_yours")
        batch = store.records.read_batch(job, 0)
        assert batch is not None
        assert batch.batch_id == "msgbatch_yours"

    def test_changes_in_one_with_moving_on(self, store: Store, job: str) -> None:
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        assert store.leases.advance_unit(BATCH, "me", 1, failures=3, due_at=9.5)
        assert store.records.read_batch(job, 0) == batch_record(failures=3, due_at=9.5)

    def test_of_a_sender_is_its_own(self, store: Store, job: str) -> None:
        first, second = Unit(job, 0, 0), Unit(job, 0, 1)
        store.leases.acquire_lease(first, 0, "me", LONG)
        store.leases.write_record(first, "me", due_at=9.5)
        store.leases.advance_unit(first, "me", 1, failures=2)
        assert store.records.read_sender(first) == LaneRecord(failures=2, due_at=9.5)
        assert store.records.read_sender(second) == LaneRecord()
        assert store.records.read_batch(job, 0) == batch_record()

    def test_holds_nothing_that_its_lease_is_kept_in(self, store: Store) -> None:
        create_job(store, FULL_JOB, [FULL_BATCH, batch_record()])
        for unit in (BATCH, Unit(JOB)):
            store.schedule.add_units([unit], 5.0)
            assert store.schedule.find_lost(unit, 0)
            store.leases.acquire_lease(unit, 0, "me", LONG)
            store.leases.renew_lease(unit, "me", LONG)
            store.leases.advance_unit(unit, "me", 1)
        assert store.jobs.read_job(JOB) == FULL_JOB
        assert store.records.read_batch(JOB, 0) == FULL_BATCH


class TestCountingWhatIsDone:
    def test_counts_each_batch_once(self, store: Store, job: str) -> None:
        for number in (0, 1):
            store.leases.acquire_lease(Unit(job, number), 0, "me", LONG)
            store.leases.acquire_lease(Unit(job, number, 1), 0, "me", LONG)
        store.leases.acquire_lease(Unit(job), 0, "me", LONG)
        store.leases.write_record(Unit(job, 0), "me", done=False, looks=3)
        store.leases.write_record(Unit(job, 0, 1), "me", done=True)  # a sender, not a batch
        assert read_job(store).through == 0
        for _ in range(2):
            store.leases.write_record(Unit(job, 0), "me", done=True)
        assert not store.leases.write_record(Unit(job, 1), "you", done=True)
        assert read_job(store).through == 1
        store.leases.write_record(Unit(job, 1), "me", skipped=0, done=True)
        assert read_job(store).through == 2

    def test_tells_one_of_those_that_end_at_once_that_it_is_the_last(self, open_store: OpenStore, store: Store) -> None:
        create_job(store, job_record(batches=12, state="running"), [batch_record() for _ in range(12)])
        units = [Unit(JOB, number) for number in range(12)]
        for unit in units:
            store.leases.acquire_lease(unit, 0, "me", LONG)

        def end(store: Store, unit: Unit) -> int:
            return store.leases.end_batch(unit, "me", skipped=0) or 0

        assert sorted(call_at_once(open_store, end, units)) == list(range(1, 13))
        assert store.leases.end_batch(units[0], "me") == 12, "once more"
        assert store.leases.end_batch(units[0], "you") is None


#: What is refused to whoever has no lease, and what it answers then.
WRITES: dict[str, tuple[Callable[[Store], Any], Any]] = {
    "renew_lease": (lambda store: store.leases.renew_lease(BATCH, "me", LONG), False),
    "write_record": (lambda store: store.leases.write_record(BATCH, "me", failures=9), False),
    "end_batch": (lambda store: store.leases.end_batch(BATCH, "me", failures=9), None),
    "advance_unit": (lambda store: store.leases.advance_unit(BATCH, "me", 99, failures=9), False),
    "park_unit": (
        lambda store: store.leases.park_unit(BATCH, "me", 99, 5.0, account=ACCOUNT, flight=make_flight(), failures=9),
        False,
    ),
    "claim_id": (lambda store: store.batch_ids.claim_id(BATCH, "me", "msgbatch_1", force=True, failures=9), None),
    "release_id": (lambda store: store.batch_ids.release_id(BATCH, "me", "msgbatch_2", failures=9), False),
    "publish_rows": (lambda store: store.results.publish_rows(BATCH, "me", 1, **NO_ROWS, failures=9), False),
    "take_request": (lambda store: take_request(store, 0), Taken("taken_over")),
    "confirm_request": (lambda store: store.message_queue.confirm_request(SENDER, "me", 1, LONG), False),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("lost", ["it ran out", "the next message came", "it was released", "it was never taken"])
class TestWhoeverHasNoLease:
    def lose(self, store: Store, unit: Unit, lost: str, pass_time: PassTime) -> None:
        if lost == "it was never taken":
            return
        store.leases.acquire_lease(unit, 5, "me", 0.01 if lost == "it ran out" else LONG)
        if unit == SENDER:
            assert take_request(store, 1).state == "taken"
        if lost == "it ran out":
            pass_time(0.05)
            assert store.leases.acquire_lease(unit, 5, "you", LONG).state == "taken_over"
        elif lost == "the next message came":
            assert store.leases.acquire_lease(unit, 6, "you", LONG).state == "taken"
        else:
            assert store.leases.advance_unit(unit, "me", 6)

    def test_writes_nothing(self, store: Store, job: str, pass_time: PassTime, write: str, lost: str) -> None:
        store.jobs.update_job(job, state="running")
        store.message_queue.add_requests(job, 0, [0, 1])
        store.leases.acquire_lease(OTHER_BATCH, 0, "you", LONG)
        store.batch_ids.claim_id(OTHER_BATCH, "you", "msgbatch_2")
        store.results.write_rows(job, 0, 1, [b"row"])
        for unit in (BATCH, SENDER):
            self.lose(store, unit, lost, pass_time)
        before = read_batch(store), store.records.read_position(BATCH), store.message_queue.count_unfinished(job, 0)
        call, refused = WRITES[write]
        assert call(store) == refused
        after = read_batch(store), store.records.read_position(BATCH), store.message_queue.count_unfinished(job, 0)
        assert after == before
        assert store.batch_ids.find_owner("msgbatch_1") is None
        assert store.batch_ids.find_owner("msgbatch_2") == OTHER_BATCH
        assert store.in_flight.count_batches(ACCOUNT, 1000) == 0
        assert read_job(store).through == 0
        if lost not in ("it was released", "it was never taken"):
            assert store.leases.renew_lease(BATCH, "you", LONG), "and the lease is whose it was"


class TestManyWorkersOfOneUnit:
    def test_write_one_after_the_other(self, open_store: OpenStore, job: str) -> None:
        """Each reads the record, adds one and moves the unit on: nothing is lost, nothing counts twice."""

        def work(store: Store, owner: str) -> int:
            moved = 0
            for _ in range(5_000):
                if (position := max(store.records.read_position(BATCH), 0)) == 40:
                    break
                if store.leases.acquire_lease(BATCH, position, owner, LONG).state == "taken":
                    moved += store.leases.advance_unit(BATCH, owner, position + 1, looks=read_batch(store).looks + 1)
            return moved

        moves = call_at_once(open_store, work, [f"worker-{number}" for number in range(CALLERS)])
        assert read_batch(open_store()).looks == sum(moves) == 40
