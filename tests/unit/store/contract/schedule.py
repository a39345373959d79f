"""When each unit's next message is due, and which units wait in the store without one."""

from __future__ import annotations

import pytest

from claude_batch_tasks import rules
from claude_batch_tasks.records import Lost, Unit
from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import (
    ACCOUNT,
    BATCH,
    JOB,
    LONG,
    OTHER_BATCH,
    Contents,
    OpenStore,
    PassTime,
    batch_record,
    call_at_once,
    create_job,
    job_record,
    make_flight,
    park_batch,
    read_batch,
)

#: Batches in flight from which on they are polled by list calls.
MANY = rules.LIST_CALL_FROM


class TestWhatWaitsForAMessage:
    """Units are in an index by when a message should act on them, which is what recovery looks at."""

    ODD = Unit("{a}:b:1", 0, 12)

    def due(self, store: Store) -> list[Unit]:
        return store.schedule.list_overdue(float("inf"), 100)

    def test_is_listed_by_when_it_is_due(self, store: Store) -> None:
        store.schedule.add_units([BATCH, Unit(JOB, 1)], 20.0)
        store.schedule.add_units([self.ODD], 10.0)
        store.schedule.add_units([Unit(JOB)], 30.0)
        store.schedule.add_units([], 30.0)
        assert store.schedule.list_overdue(20.5, 100) == [self.ODD, BATCH, Unit(JOB, 1)]
        assert store.schedule.list_overdue(20.0, 100) == [self.ODD]
        assert store.schedule.list_overdue(50.0, 1) == [self.ODD]
        store.schedule.remove_unit(self.ODD)
        assert store.schedule.list_overdue(50.0, 1) == [BATCH]

    def test_has_a_time(self, store: Store, job: str) -> None:
        store.schedule.add_units([BATCH], 20.0)
        store.schedule.add_units([self.ODD], 10.0)
        assert store.schedule.due_times([self.ODD, Unit(JOB, 1), BATCH]) == [10.0, None, 20.0]
        assert store.schedule.due_times([]) == []
        store.schedule.remove_unit(BATCH)
        assert store.schedule.due_times([BATCH]) == [None]

    def test_is_not_lost_while_somebody_is_at_it(self, store: Store, job: str) -> None:
        store.schedule.add_units([BATCH], 5.0)
        store.leases.acquire_lease(BATCH, 7, "me", LONG)
        assert store.schedule.list_overdue(store.now() + LONG - 60, 100) == []
        assert store.schedule.find_lost(BATCH, 0) is None
        store.leases.renew_lease(BATCH, "me", 2 * LONG)
        assert store.schedule.list_overdue(store.now() + 2 * LONG - 60, 100) == []

    def test_is_lost_after_its_owner_died(self, store: Store, job: str, pass_time: PassTime) -> None:
        store.leases.acquire_lease(BATCH, 7, "me", 0.01)
        pass_time(0.1)
        assert store.schedule.find_lost(BATCH, 30) is None
        lost = store.schedule.find_lost(BATCH, 0.02)
        assert lost is not None
        assert lost.position == 7

    def test_is_due_when_its_step_said(self, store: Store, job: str) -> None:
        later = store.now() + 500
        store.leases.acquire_lease(BATCH, 7, "me", LONG)
        store.leases.advance_unit(BATCH, "me", 8, failures=1, due_at=later)
        assert store.schedule.find_lost(BATCH, 1) is None
        lost = store.schedule.find_lost(BATCH, 0)
        assert lost is not None
        assert (lost.position, round(lost.due_at - later)) == (8, 0)

    def test_is_due_at_once_when_its_step_said_nothing(self, store: Store, job: str) -> None:
        store.leases.acquire_lease(BATCH, 7, "me", LONG)
        store.leases.advance_unit(BATCH, "me", 8, failures=0, due_at=None)
        assert store.schedule.list_overdue(store.now() + 60, 100) == [BATCH]

    def test_is_handed_to_one_caller(self, open_store: OpenStore, store: Store, job: str) -> None:
        store.schedule.add_units([BATCH], 5.0)
        answers = call_at_once(open_store, lambda store, _: store.schedule.find_lost(BATCH, 30), range(24))
        assert [lost for lost in answers if lost] == [Lost(-1, 5.0)]

    def test_is_handed_to_one_of_those_who_want_everything_at_once(
        self, open_store: OpenStore, store: Store, job: str
    ) -> None:
        store.schedule.add_units([BATCH], store.now() + 500)
        answers = call_at_once(open_store, lambda store, _: store.schedule.find_lost(BATCH, 0), range(24))
        assert len([lost for lost in answers if lost]) == 1
        store.leases.acquire_lease(BATCH, 0, "me", 0.01)
        store.leases.advance_unit(BATCH, "me", 1)
        assert store.schedule.find_lost(BATCH, 0), "another message of it is awaited now"

    def test_counts_as_lost_again_later_and_later(self, store: Store, job: str, pass_time: PassTime) -> None:
        store.schedule.add_units([BATCH], 5.0)
        waits, asked = [], store.now()
        for _ in range(4):
            before = asked  # the call that was told so began then, however late its answer came
            for _ in range(1_000):
                asked = store.now()
                if store.schedule.find_lost(BATCH, 0.05) is not None:
                    break
                pass_time(0.005)
            waits.append(store.now() - before)
        assert waits[1] > 0.09
        assert waits[2] > 0.18
        assert waits[3] > 0.36
        store.leases.acquire_lease(BATCH, 0, "me", 0.01)
        store.leases.advance_unit(BATCH, "me", 1)
        pass_time(0.1)
        assert store.schedule.find_lost(BATCH, 0.05)
        pass_time(0.15)
        assert store.schedule.find_lost(BATCH, 0.05), "whoever acted on it began the count anew"

    def test_is_not_looked_for_while_a_long_queue_makes_all_of_them_late(self, store: Store, job: str) -> None:
        late = Unit(JOB, 1)
        store.schedule.add_units([late], store.now() - 100)
        store.leases.acquire_lease(late, 0, "me", LONG)
        store.schedule.add_units([BATCH], store.now() - 190)
        assert store.schedule.find_lost(BATCH, 30) is None
        store.schedule.add_units([BATCH], store.now() - 240)
        assert store.schedule.find_lost(BATCH, 30)
        for seq in range(1, 80):  # messages that come in time
            store.leases.acquire_lease(late, seq, "me", LONG)
            store.leases.advance_unit(late, "me", seq + 1)
        store.leases.acquire_lease(BATCH, 0, "me", 0.01)
        store.leases.advance_unit(BATCH, "me", 1)
        store.schedule.add_units([BATCH], store.now() - 50)
        assert store.schedule.find_lost(BATCH, 30)

    def test_is_told_page_by_page_with_when_it_was_due(self, store: Store) -> None:
        for number in range(1200):
            store.schedule.add_units([Unit(JOB, number)], 10.0 + number)
        late = [found for page in store.schedule.scan_late(1009.5) for found in page]
        assert late == [(Unit(JOB, number), 10.0 + number) for number in range(1000)]
        assert [found for page in store.schedule.scan_late(10.0) for found in page] == []

    def test_is_known_of_each(self, store: Store, job: str) -> None:
        store.schedule.add_units([BATCH, self.ODD], 20.0)
        store.leases.acquire_lease(OTHER_BATCH, 0, "me", LONG)
        asked = [Unit(JOB), BATCH, OTHER_BATCH, self.ODD]
        assert store.schedule.are_scheduled(asked) == [False, True, True, True]
        store.schedule.remove_unit(BATCH)
        assert store.schedule.are_scheduled(asked) == [False, False, True, True]
        assert store.schedule.are_scheduled([]) == []

    def test_is_its_job_after_the_last_step_of_a_batch(self, store: Store, job: str) -> None:
        store.leases.acquire_lease(BATCH, 7, "me", LONG)
        store.leases.advance_unit(BATCH, "me", 8, through=True)
        assert self.due(store) == [Unit(JOB)]
        store.leases.acquire_lease(Unit(JOB), 0, "me", LONG)
        store.leases.advance_unit(Unit(JOB), "me", 1, through=True)
        assert self.due(store) == []

    def test_is_nothing_after_the_last_step_of_a_sender(self, store: Store, job: str) -> None:
        unit = Unit(JOB, 0, 1)
        store.schedule.add_units([unit], 1.0)
        store.leases.acquire_lease(unit, 0, "me", LONG)
        store.leases.advance_unit(unit, "me", 1, through=True)
        assert self.due(store) == []

    def test_of_a_job_that_is_gone_is_forgotten(self, store: Store, job: str) -> None:
        for unit in (Unit("gone"), Unit("gone", 1), Unit("gone", 1, 2), Unit(JOB, 9)):
            store.schedule.add_units([unit], 1.0)
            assert store.schedule.find_lost(unit, 0) is None
            store.schedule.add_units([unit], 1.0)
            assert store.leases.acquire_lease(unit, 0, "me", LONG).state == "gone" or unit.lane is not None
        store.schedule.add_units([BATCH, Unit(JOB)], 1.0)
        store.storage.delete_job(job)
        assert self.due(store) == []


class TestAUnitThatWaits:
    def test_is_not_handed_out_before_it_is_due(self, store: Store) -> None:
        park_batch(store, 1, store.now() + 60)
        units, pause = store.schedule.take_due(10)
        assert (units, 30 < (pause or 0) <= 60.1) == ([], True)

    def test_is_handed_out_once_when_it_is_due(self, open_store: OpenStore, store: Store, pass_time: PassTime) -> None:
        unit = park_batch(store, 1, store.now() + 0.1)
        pass_time(0.2)
        answers = call_at_once(open_store, lambda store, _: store.schedule.take_due(10), range(24))
        assert [unit for units, _ in answers for unit in units] == [unit]
        assert store.schedule.take_due(10) == ([], None)

    def test_is_handed_out_once_though_many_are_due(self, open_store: OpenStore, store: Store) -> None:
        units = {park_batch(store, number, 5.0) for number in range(60)}
        answers = call_at_once(open_store, lambda store, _: store.schedule.take_due(3), range(48))
        found = [unit for some, _ in answers for unit in some]
        assert all(len(some) <= 3 for some, _ in answers)
        assert len(found) == 60
        assert set(found) == units

    def test_is_at_the_position_of_its_next_message(self, store: Store) -> None:
        unit = park_batch(store, 1, 5.0)
        assert store.records.read_position(unit) == 6
        assert read_batch(store, unit).failures == 2
        assert store.leases.acquire_lease(unit, 5, "late", 600).state == "stale"
        assert store.leases.acquire_lease(unit, 6, "you", 600).state == "taken"

    def test_waits_no_longer_when_another_message_of_it_has_come(self, store: Store) -> None:
        unit = park_batch(store, 1, 5.0, in_flight=True)
        store.leases.acquire_lease(unit, 6, "you", 600)
        assert store.schedule.take_due(10) == ([], None)
        assert store.in_flight.list_batches(ACCOUNT) == {}

    def test_is_left_alone_by_whoever_has_lost_its_lease(self, store: Store) -> None:
        unit = park_batch(store, 1, 5.0)
        store.leases.acquire_lease(unit, 6, "you", 600)
        assert not store.leases.park_unit(unit, "me", 9, 5.0)
        assert store.schedule.take_due(10) == ([], None)

    def test_is_found_lost_when_whoever_got_it_dies(self, store: Store, pass_time: PassTime) -> None:
        unit = park_batch(store, 1, 5.0)
        store.schedule.take_due(10)
        assert store.schedule.find_lost(unit, 30) is None
        pass_time(0.1)
        lost = store.schedule.find_lost(unit, 0.05)
        assert lost is not None
        assert lost.position == 6

    def test_is_no_lost_message(self, store: Store, pass_time: PassTime) -> None:
        unit = park_batch(store, 1, store.now() + 500)
        assert store.schedule.find_lost(unit, 0) is None
        # Nor when nobody was there to hand it out: whoever comes does.
        late = park_batch(store, 2, 5.0)
        pass_time(0.1)
        assert store.schedule.find_lost(late, 0.05) is None
        assert store.schedule.take_due(10)[0] == [late]

    def test_waits_again_when_its_message_could_not_be_sent(self, store: Store) -> None:
        unit = park_batch(store, 1, 5.0)
        store.schedule.take_due(10)
        store.schedule.wait_again([unit], 60.0)
        units, pause = store.schedule.take_due(10)
        assert units == []
        assert pause == pytest.approx(60, abs=5)
        store.schedule.wake_units([unit])
        assert store.schedule.take_due(10)[0] == [unit]

    def test_can_be_woken_and_only_if_it_waits(self, store: Store) -> None:
        unit = park_batch(store, 1, store.now() + 500)
        store.schedule.wake_units([unit, Unit("nobody", 0)])
        assert store.schedule.take_due(10)[0] == [unit]
        store.schedule.wake_units([unit])
        assert store.schedule.take_due(10)[0] == []

    def test_goes_with_its_job(self, store: Store, contents: Contents) -> None:
        unit = park_batch(store, 1, 5.0, in_flight=True)
        store.storage.delete_job(unit.job_id)
        assert store.schedule.take_due(10) == ([], None)
        assert store.in_flight.list_batches(ACCOUNT) == {}
        assert store.in_flight.count_batches(ACCOUNT, 1000) == 0
        # Also when its job was revoked, and it was handed out just now.
        unit = park_batch(store, 1, 5.0, in_flight=True)
        store.schedule.take_due(10)
        store.schedule.remove_unit(unit)
        assert store.in_flight.count_batches(ACCOUNT, 1000) == 0
        store.storage.delete_job(unit.job_id)
        assert contents() == set()

    def test_is_postponed_while_a_list_call_speaks_for_it(self, store: Store) -> None:
        now = store.now()
        unit, woken, alone = (park_batch(store, number, now + 500, in_flight=number < 3) for number in (1, 2, 3))
        store.schedule.wake_units([woken])
        store.schedule.postpone_units({unit: now + 700, woken: now + 700, alone: now - 5, Unit("nobody", 0): now})
        assert read_batch(store, unit).due_at == pytest.approx(now + 700, abs=0.1)
        assert store.schedule.take_due(10)[0] == [woken]
        store.schedule.postpone_units({unit: now - 5})
        assert store.schedule.take_due(10)[0] == [unit]
        store.schedule.postpone_units({unit: now + 700})
        assert store.schedule.take_due(10) == ([], pytest.approx(500, abs=9))

    def test_was_seen_when_a_list_call_showed_it(self, store: Store) -> None:
        now = store.now()
        unit, alone = (park_batch(store, number, now + 500, in_flight=True) for number in (1, 2))
        store.schedule.postpone_units({unit: now + 700})
        assert read_batch(store, unit).sighting is None
        store.schedule.postpone_units({unit: now + 700}, shown=now)
        store.schedule.postpone_units({unit: now + 700}, shown=now - 60)
        assert read_batch(store, unit).sighting == now
        store.leases.acquire_lease(alone, 6, "me", 600)
        store.schedule.postpone_units({alone: now + 700}, shown=now)
        assert read_batch(store, alone).sighting is None


class TestManyInFlight:
    def test_are_handed_out_one_at_a_time(self, store: Store, pass_time: PassTime) -> None:
        """It makes a list call, which spares the others theirs."""
        units = {park_batch(store, number, 5.0, in_flight=True) for number in range(MANY + 1)}
        first, pause = store.schedule.take_due(1000)
        assert len(first) == 1
        assert 0 < (pause or 0) <= rules.LONGEST_IN_BROKER
        assert store.schedule.take_due(1000)[0] == []
        pass_time(rules.LONGEST_IN_BROKER + 0.1)
        assert store.schedule.take_due(1000)[0] == [], "nobody has taken the first"
        store.leases.acquire_lease(first[0], 6, "me", 600)
        pass_time(rules.LONGEST_IN_BROKER + 0.1)
        second, _ = store.schedule.take_due(1000)
        assert len(second) == 1
        assert {*first, *second} < units

    def test_are_all_handed_out_when_those_that_were_make_no_list_call(self, store: Store, pass_time: PassTime) -> None:
        """Their workers use another key of the account by now, say, and list for that."""
        units = {park_batch(store, number, 5.0, in_flight=True) for number in range(2 * MANY)}
        taken: set[Unit] = set()
        for _ in range(20 * MANY):
            if taken == units:
                break
            found, pause = store.schedule.take_due(1000)
            for unit in found:
                store.leases.acquire_lease(unit, 6, "me", 600)
            taken.update(found)
            pass_time(pause or 0)
        assert taken == units

    def test_are_spared_also_past_their_expiry(self, store: Store) -> None:
        for number in range(2 * MANY):
            park_batch(store, number, 5.0, in_flight=True, expires_at=store.now() - 1)
        assert len(store.schedule.take_due(1000)[0]) == 1

    def test_are_waited_for_again_once_there_is_a_list_call(self, store: Store, pass_time: PassTime) -> None:
        for number in range(2 * MANY):
            park_batch(store, number, 5.0, in_flight=True)
        for _ in range(rules.MAX_VAIN_POLLS):
            [unit] = store.schedule.take_due(1000)[0]
            store.leases.acquire_lease(unit, 6, "me", 600)
            pass_time(rules.LONGEST_IN_BROKER + 0.05)
        assert store.in_flight.lock_list_call(ACCOUNT, "me", 600)
        assert store.schedule.take_due(1000)[0] == [], "it is being made"
        store.in_flight.unlock_list_call(ACCOUNT, "me")
        pass_time(rules.LONGEST_IN_BROKER + 0.05)
        assert len(store.schedule.take_due(1000)[0]) == 1

    def test_of_a_queue_that_nobody_reads_keep_no_other_queue_waiting(self, store: Store) -> None:
        dead = {park_batch(store, number, 5.0, in_flight=True) for number in range(MANY)}
        for unit in dead:
            store.jobs.update_job(unit.job_id, queue="dead")
        alive = park_batch(store, 100, 6.0, in_flight=True)
        found, _ = store.schedule.take_due(1000)
        assert alive in found
        assert len(found) == 2

    def test_wait_while_calls_on_their_account_are_held_back(self, store: Store) -> None:
        few = park_batch(store, 1, 5.0, in_flight=True)
        soon = park_batch(store, 2, 5.0, in_flight=True, deadline=store.now() + 20)
        store.in_flight.pause_calls(ACCOUNT, store.now() + 60)
        units, pause = store.schedule.take_due(10)
        assert (units, pause) == ([], pytest.approx(20, abs=2)), "but not longer than a job has patience"
        store.schedule.wake_units([few])
        assert store.schedule.take_due(10)[0] == [few], "nor what was canceled"
        assert soon not in store.schedule.take_due(10)[0]

    def test_are_sent_as_they_are_taken(self, store: Store) -> None:
        units = [park_batch(store, number, 5.0) for number in range(2 * rules.MAX_UNCLAIMED_MESSAGES)]
        out = [unit for _ in range(20) for unit in store.schedule.take_due(50)[0]]
        assert rules.MAX_UNCLAIMED_MESSAGES <= len(out) < 1.2 * rules.MAX_UNCLAIMED_MESSAGES, (
            "and one each time, whatever is out"
        )
        for unit in out[:60]:
            store.leases.acquire_lease(unit, 6, "me", 600)
        more = [unit for _ in range(3) for unit in store.schedule.take_due(50)[0]]
        assert 30 < len(more) < 70
        assert set(out + more) <= set(units)

    def test_are_handed_out_like_others_when_they_are_few(self, store: Store) -> None:
        units = {park_batch(store, number, 5.0, in_flight=True) for number in range(MANY - 1)}
        assert set(store.schedule.take_due(1000)[0]) == units

    def test_are_handed_out_like_others_when_list_calls_do_not_work(self, store: Store) -> None:
        units = {park_batch(store, number, 5.0, in_flight=True) for number in range(MANY)}
        store.in_flight.pause_calls(f"{ACCOUNT}:list", store.now() + 60)
        assert set(store.schedule.take_due(1000)[0]) == units

    def test_are_handed_out_at_once_when_no_list_call_speaks_for_them(self, store: Store) -> None:
        units = [park_batch(store, number, 5.0, in_flight=True) for number in range(2 * MANY)]
        store.schedule.postpone_units(dict.fromkeys(units[:MANY], 4.0), alone=True)
        found, _ = store.schedule.take_due(1000)
        assert set(units[:MANY]) <= set(found)
        assert len(found) == MANY + 1
        assert store.in_flight.count_batches(ACCOUNT, 1000) == MANY

    def test_are_put_off_though_they_were_due_meanwhile(self, store: Store, pass_time: PassTime) -> None:
        units = [park_batch(store, number, 5.0, in_flight=True) for number in range(3 * MANY)]
        due = store.in_flight.list_batches(ACCOUNT)
        [handed_out] = store.schedule.take_due(1000)[0]
        pass_time(rules.LONGEST_IN_BROKER + 0.1)
        store.schedule.postpone_units({unit: store.now() + 500 for unit in due})
        assert store.schedule.take_due(1000) == ([], pytest.approx(500, abs=9))
        assert handed_out in units

    def test_do_not_keep_others_waiting(self, store: Store) -> None:
        for number in range(1100):
            park_batch(store, number, 5.0, in_flight=True)
        other = park_batch(store, 2000, 6.0)
        found = [unit for _ in range(3) for unit in store.schedule.take_due(50)[0]]
        assert other in found
        assert len(found) == 2

    def test_do_not_wait_for_one_that_makes_no_list_call(self, store: Store) -> None:
        """It is past its deadline, or its job is over: each is handed out, and takes nobody's turn."""
        live = [park_batch(store, number, 5.0, in_flight=True) for number in range(MANY)]
        over = park_batch(store, 100, 5.0, in_flight=True)
        store.jobs.update_job(over.job_id, state="revoked")
        late = park_batch(store, 200, 5.0, in_flight=True, deadline=store.now() - 1)
        found, _ = store.schedule.take_due(1000)
        assert {over, late} < set(found)
        assert len(set(found) & set(live)) == 1

    def test_that_are_woken_are_handed_out_at_once(self, store: Store) -> None:
        units = [park_batch(store, number, store.now() + 500, in_flight=True) for number in range(2 * MANY)]
        store.schedule.wake_units(units[:3])
        assert set(store.schedule.take_due(1000)[0]) == set(units[:3])
        assert store.in_flight.count_batches(ACCOUNT, 1000) == 2 * MANY - 3

    def test_are_known_with_when_they_are_due(self, store: Store) -> None:
        later = float(int(store.now()) + 500)
        units = [park_batch(store, number, later + number, in_flight=True) for number in range(3)]
        found = store.in_flight.list_batches(ACCOUNT)
        assert {unit: known for unit, (known, _) in found.items()} == {
            unit: make_flight(n) for n, unit in enumerate(units)
        }
        assert [due for _, due in found.values()] == [pytest.approx(later + n, abs=0.1) for n in range(3)]
        assert store.in_flight.list_batches("another") == {}


class TestTheNextBatch:
    @pytest.fixture
    def five(self, store: Store) -> Store:
        """A job of five batches, two of them begun."""
        record = job_record(batches=5, state="running", admitted=2)
        create_job(store, record, [batch_record() for _ in range(5)])
        return store

    def test_gives_a_place_once_for_each_batch_that_is_finished(self, five: Store) -> None:
        assert five.schedule.start_next_batch(JOB, 1) == 2
        assert five.schedule.start_next_batch(JOB, 1) is None
        assert five.schedule.start_next_batch(JOB, 0) == 3
        assert five.schedule.list_overdue(five.now() + 10, 10) == [Unit(JOB, 2), Unit(JOB, 3)]
        job, batch = five.jobs.read_job(JOB), five.records.read_batch(JOB, 1)
        assert job is not None
        assert batch is not None
        assert (job.admitted, batch.made_room) == (4, True)

    def test_ends_with_the_last_batch(self, five: Store) -> None:
        assert [five.schedule.start_next_batch(JOB, number) for number in range(5)] == [2, 3, 4, None, None]
        assert len(five.schedule.list_overdue(five.now() + 10, 10)) == 3

    def test_gives_no_place_twice_among_many(self, open_store: OpenStore, five: Store) -> None:
        def start(store: Store, number: int) -> int | None:
            return store.schedule.start_next_batch(JOB, number % 5)

        given = call_at_once(open_store, start, range(40))
        assert sorted(number for number in given if number is not None) == [2, 3, 4]

    def test_gives_nothing_for_a_job_that_is_gone(self, store: Store, contents: Contents) -> None:
        assert store.schedule.start_next_batch("nobody", 0) is None
        assert contents() == set()
