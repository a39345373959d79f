"""What waits in the store without a message, and what the store knows of an account's batches in flight."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from claude_batch_tasks import rules
from claude_batch_tasks.records import BatchRecord, Flight, JobRecord, Unit
from claude_batch_tasks.store.redis import RedisStore

ACCOUNT = "a1b2"
MANY = rules.LIST_CALL_FROM
Keys = Callable[[], set[str]]


def flight(number: int = 0, **own: float) -> Flight:
    known: dict[str, Any] = {"created_at": 100.0, "expires_at": None, "requests": 7, "deadline": None}
    return Flight(batch_id=f"msgbatch_{number}", poll_min=5.0, poll_max=120.0, **{**known, **own})


def waiting(store: RedisStore, number: int, due_at: float, *, in_flight: bool = False, **own: float) -> Unit:
    """A job of one batch, which waits until then."""
    unit = Unit(f"job:{number}", 0)
    record = JobRecord(nonce="n", requests=1, batches=1, submitted_at=1.0, state="running")
    store.jobs.create_job(unit.job_id, record, [BatchRecord(first=0, count=1, body_bytes=9)], 600, staged=False)
    store.leases.acquire_lease(unit, 5, "me", 600)
    listed: dict[str, Any] = {"account": ACCOUNT, "flight": flight(number, **own)} if in_flight else {}
    assert store.leases.park_unit(unit, "me", 6, due_at, failures=2, **listed)
    return unit


class TestAUnitThatWaits:
    def test_is_handed_out_once_when_it_is_due(self, store: RedisStore) -> None:
        unit = waiting(store, 1, time.time() + 0.3)
        units, pause = store.schedule.take_due(10)
        assert (units, 0 < (pause or 0) <= 0.3) == ([], True)
        time.sleep(0.4)
        with ThreadPoolExecutor(8) as pool:
            found = [unit for units, _ in pool.map(lambda _: store.schedule.take_due(10), range(24)) for unit in units]
        assert found == [unit]
        assert store.schedule.take_due(10) == ([], None)

    def test_is_at_the_position_of_its_next_message(self, store: RedisStore) -> None:
        unit = waiting(store, 1, 5.0)
        assert store.records.read_position(unit) == 6
        assert store.records.read_batch(unit.job_id, 0).failures == 2  # type: ignore[union-attr]
        assert store.leases.acquire_lease(unit, 5, "late", 600).state == "stale"
        assert store.leases.acquire_lease(unit, 6, "you", 600).state == "taken"

    def test_waits_no_longer_when_another_message_of_it_has_come(self, store: RedisStore) -> None:
        unit = waiting(store, 1, 5.0, in_flight=True)
        store.leases.acquire_lease(unit, 6, "you", 600)
        assert store.schedule.take_due(10) == ([], None)
        assert store.in_flight.list_batches(ACCOUNT) == {}

    def test_is_left_alone_by_whoever_has_lost_its_lease(self, store: RedisStore) -> None:
        unit = waiting(store, 1, 5.0)
        store.leases.acquire_lease(unit, 6, "you", 600)
        assert not store.leases.park_unit(unit, "me", 9, 5.0)
        assert store.schedule.take_due(10) == ([], None)

    def test_is_found_lost_when_whoever_got_it_dies(self, store: RedisStore) -> None:
        unit = waiting(store, 1, 5.0)
        store.schedule.take_due(10)
        assert store.schedule.find_lost(unit, 30) is None
        time.sleep(0.1)
        lost = store.schedule.find_lost(unit, 0.05)
        assert lost is not None
        assert lost.position == 6

    def test_is_no_lost_message(self, store: RedisStore) -> None:
        unit = waiting(store, 1, time.time() + 500)
        assert store.schedule.find_lost(unit, 0) is None
        # Nor when nobody was there to hand it out: whoever comes does.
        late = waiting(store, 2, 5.0)
        time.sleep(0.1)
        assert store.schedule.find_lost(late, 0.05) is None
        assert store.schedule.take_due(10)[0] == [late]

    def test_waits_again_when_its_message_could_not_be_sent(self, store: RedisStore) -> None:
        unit = waiting(store, 1, 5.0)
        store.schedule.take_due(10)
        store.schedule.wait_again([unit], 60.0)
        units, pause = store.schedule.take_due(10)
        assert units == []
        assert pause == pytest.approx(60, abs=5)
        store.schedule.wake_units([unit])
        assert store.schedule.take_due(10)[0] == [unit]

    def test_can_be_woken_and_only_if_it_waits(self, store: RedisStore) -> None:
        unit = waiting(store, 1, time.time() + 500)
        store.schedule.wake_units([unit, Unit("nobody", 0)])
        assert store.schedule.take_due(10)[0] == [unit]
        store.schedule.wake_units([unit])
        assert store.schedule.take_due(10)[0] == []

    def test_goes_with_its_job(self, store: RedisStore, keys: Keys) -> None:
        unit = waiting(store, 1, 5.0, in_flight=True)
        store.jobs.delete_job(unit.job_id)
        assert store.schedule.take_due(10) == ([], None)
        assert store.in_flight.list_batches(ACCOUNT) == {}
        assert store.in_flight.count_batches(ACCOUNT) == 0
        # Also when its job was revoked, and it was handed out just now.
        unit = waiting(store, 1, 5.0, in_flight=True)
        store.schedule.take_due(10)
        store.schedule.remove_unit(unit)
        assert store.in_flight.count_batches(ACCOUNT) == 0
        store.jobs.delete_job(unit.job_id)
        assert not [key for key in keys() if "job:1" in key]

    def test_is_put_off_while_a_listing_speaks_for_it(self, store: RedisStore) -> None:
        now = time.time()
        unit, woken, alone = (waiting(store, number, now + 500, in_flight=number < 3) for number in (1, 2, 3))
        store.schedule.wake_units([woken])
        store.schedule.postpone_units({unit: now + 700, woken: now + 700, alone: now - 5, Unit("nobody", 0): now})
        assert store.records.read_batch(unit.job_id, 0).due_at == pytest.approx(now + 700, abs=0.1)  # type: ignore[union-attr]
        assert store.schedule.take_due(10)[0] == [woken]
        store.schedule.postpone_units({unit: now - 5})
        assert store.schedule.take_due(10)[0] == [unit]
        store.schedule.postpone_units({unit: now + 700})
        assert store.schedule.take_due(10) == ([], pytest.approx(500, abs=9))

    def test_was_seen_when_a_listing_showed_it(self, store: RedisStore) -> None:
        now = time.time()
        unit, alone = (waiting(store, number, now + 500, in_flight=True) for number in (1, 2))
        store.schedule.postpone_units({unit: now + 700})
        assert store.records.read_batch(unit.job_id, 0).sighting is None  # type: ignore[union-attr]
        store.schedule.postpone_units({unit: now + 700}, shown=now)
        store.schedule.postpone_units({unit: now + 700}, shown=now - 60)
        assert store.records.read_batch(unit.job_id, 0).sighting == now  # type: ignore[union-attr]
        store.leases.acquire_lease(alone, 6, "me", 600)
        store.schedule.postpone_units({alone: now + 700}, shown=now)
        assert store.records.read_batch(alone.job_id, 0).sighting is None  # type: ignore[union-attr]


class TestManyInFlight:
    def test_are_handed_out_one_at_a_time(self, store: RedisStore) -> None:
        """It makes a listing, which spares the others theirs."""
        units = {waiting(store, number, 5.0, in_flight=True) for number in range(MANY + 1)}
        first, pause = store.schedule.take_due(1000)
        assert len(first) == 1
        assert 0 < (pause or 0) <= rules.LONGEST_IN_BROKER
        assert store.schedule.take_due(1000)[0] == []
        time.sleep(rules.LONGEST_IN_BROKER + 0.1)
        assert store.schedule.take_due(1000)[0] == [], "nobody has taken the first"
        store.leases.acquire_lease(first[0], 6, "me", 600)
        time.sleep(rules.LONGEST_IN_BROKER + 0.1)
        second, _ = store.schedule.take_due(1000)
        assert len(second) == 1
        assert {*first, *second} < units

    def test_are_all_handed_out_when_those_that_were_make_no_listing(self, store: RedisStore) -> None:
        """Their workers use another key of the account by now, say, and list for that."""
        units = {waiting(store, number, 5.0, in_flight=True) for number in range(2 * MANY)}
        taken: set[Unit] = set()
        begun = time.monotonic()
        while len(taken) < len(units):
            assert time.monotonic() - begun < 10
            found, pause = store.schedule.take_due(1000)
            for unit in found:
                store.leases.acquire_lease(unit, 6, "me", 600)
            taken.update(found)
            time.sleep(pause or 0)
        assert taken == units

    def test_are_spared_also_past_their_expiry(self, store: RedisStore) -> None:
        for number in range(2 * MANY):
            waiting(store, number, 5.0, in_flight=True, expires_at=time.time() - 1)
        assert len(store.schedule.take_due(1000)[0]) == 1

    def test_are_waited_for_again_once_there_is_a_listing(self, store: RedisStore) -> None:
        for number in range(2 * MANY):
            waiting(store, number, 5.0, in_flight=True)
        for _ in range(rules.MAX_VAIN_POLLS):
            [unit] = store.schedule.take_due(1000)[0]
            store.leases.acquire_lease(unit, 6, "me", 600)
            time.sleep(rules.LONGEST_IN_BROKER + 0.05)
        assert store.in_flight.lock_list_call(ACCOUNT, "me", 600)
        assert store.schedule.take_due(1000)[0] == [], "it is under way"
        store.in_flight.unlock_list_call(ACCOUNT, "me")
        time.sleep(rules.LONGEST_IN_BROKER + 0.05)
        assert len(store.schedule.take_due(1000)[0]) == 1

    def test_of_a_queue_that_nobody_reads_keep_no_other_queue_waiting(self, store: RedisStore) -> None:
        dead = {waiting(store, number, 5.0, in_flight=True) for number in range(MANY)}
        for unit in dead:
            store.jobs.update_job(unit.job_id, queue="dead")
        alive = waiting(store, 100, 6.0, in_flight=True)
        found, _ = store.schedule.take_due(1000)
        assert alive in found
        assert len(found) == 2

    def test_wait_while_calls_on_their_account_are_held_back(self, store: RedisStore) -> None:
        few = waiting(store, 1, 5.0, in_flight=True)
        soon = waiting(store, 2, 5.0, in_flight=True, deadline=time.time() + 20)
        store.in_flight.pause_calls(ACCOUNT, time.time() + 60)
        units, pause = store.schedule.take_due(10)
        assert (units, pause) == ([], pytest.approx(20, abs=2)), "but not longer than a job has patience"
        store.schedule.wake_units([few])
        assert store.schedule.take_due(10)[0] == [few], "nor what was canceled"
        assert soon not in store.schedule.take_due(10)[0]

    def test_are_sent_as_they_are_taken(self, store: RedisStore) -> None:
        units = [waiting(store, number, 5.0) for number in range(2 * rules.MAX_UNCLAIMED_MESSAGES)]
        out = [unit for _ in range(20) for unit in store.schedule.take_due(50)[0]]
        assert rules.MAX_UNCLAIMED_MESSAGES <= len(out) < 1.2 * rules.MAX_UNCLAIMED_MESSAGES, (
            "and one each time, whatever is out"
        )
        for unit in out[:60]:
            store.leases.acquire_lease(unit, 6, "me", 600)
        more = [unit for _ in range(3) for unit in store.schedule.take_due(50)[0]]
        assert 30 < len(more) < 70
        assert set(out + more) <= set(units)

    def test_are_handed_out_like_others_when_they_are_few(self, store: RedisStore) -> None:
        units = {waiting(store, number, 5.0, in_flight=True) for number in range(MANY - 1)}
        assert set(store.schedule.take_due(1000)[0]) == units

    def test_are_handed_out_like_others_when_listings_do_not_work(self, store: RedisStore) -> None:
        units = {waiting(store, number, 5.0, in_flight=True) for number in range(MANY)}
        store.in_flight.pause_calls(f"{ACCOUNT}:list", time.time() + 60)
        assert set(store.schedule.take_due(1000)[0]) == units

    def test_are_handed_out_at_once_when_no_listing_speaks_for_them(self, store: RedisStore) -> None:
        units = [waiting(store, number, 5.0, in_flight=True) for number in range(2 * MANY)]
        store.schedule.postpone_units(dict.fromkeys(units[:MANY], 4.0), alone=True)
        found, _ = store.schedule.take_due(1000)
        assert set(units[:MANY]) <= set(found)
        assert len(found) == MANY + 1
        assert store.in_flight.count_batches(ACCOUNT) == MANY

    def test_are_put_off_though_they_were_due_meanwhile(self, store: RedisStore) -> None:
        units = [waiting(store, number, 5.0, in_flight=True) for number in range(3 * MANY)]
        due = store.in_flight.list_batches(ACCOUNT)
        [handed_out] = store.schedule.take_due(1000)[0]
        time.sleep(rules.LONGEST_IN_BROKER + 0.1)
        store.schedule.postpone_units({unit: time.time() + 500 for unit in due})
        assert store.schedule.take_due(1000) == ([], pytest.approx(500, abs=9))
        assert handed_out in units

    def test_do_not_keep_others_waiting(self, store: RedisStore) -> None:
        for number in range(1500):
            waiting(store, number, 5.0, in_flight=True)
        other = waiting(store, 2000, 6.0)
        found = [unit for _ in range(3) for unit in store.schedule.take_due(50)[0]]
        assert other in found
        assert len(found) == 2

    def test_do_not_wait_for_one_that_makes_no_listing(self, store: RedisStore) -> None:
        """It is past its deadline, or its job is over: each is handed out, and takes nobody's turn."""
        live = [waiting(store, number, 5.0, in_flight=True) for number in range(MANY)]
        over = waiting(store, 100, 5.0, in_flight=True)
        store.jobs.update_job(over.job_id, state="revoked")
        late = waiting(store, 200, 5.0, in_flight=True, deadline=time.time() - 1)
        found, _ = store.schedule.take_due(1000)
        assert {over, late} < set(found)
        assert len(set(found) & set(live)) == 1

    def test_that_are_woken_are_handed_out_at_once(self, store: RedisStore) -> None:
        units = [waiting(store, number, time.time() + 500, in_flight=True) for number in range(2 * MANY)]
        store.schedule.wake_units(units[:3])
        assert set(store.schedule.take_due(1000)[0]) == set(units[:3])
        assert store.in_flight.count_batches(ACCOUNT) == 2 * MANY - 3

    def test_are_known_with_when_they_are_due(self, store: RedisStore) -> None:
        later = float(int(time.time()) + 500)
        units = [waiting(store, number, later + number, in_flight=True) for number in range(3)]
        found = store.in_flight.list_batches(ACCOUNT)
        assert {unit: known for unit, (known, _) in found.items()} == {unit: flight(n) for n, unit in enumerate(units)}
        assert [due for _, due in found.values()] == [pytest.approx(later + n, abs=0.1) for n in range(3)]
        assert store.in_flight.list_batches("another") == {}


class TestAListing:
    def test_is_made_by_one_at_a_time(self, store: RedisStore) -> None:
        assert store.in_flight.lock_list_call(ACCOUNT, "me", 0.2)
        assert not store.in_flight.lock_list_call(ACCOUNT, "you", 600)
        assert store.in_flight.lock_list_call(ACCOUNT, "me", 0.2), "and may be renewed"
        assert store.in_flight.lock_list_call("another", "you", 600)
        time.sleep(0.3)
        assert store.in_flight.lock_list_call(ACCOUNT, "you", 600), "who died does not keep it"
        store.in_flight.unlock_list_call(ACCOUNT, "me")
        assert not store.in_flight.lock_list_call(ACCOUNT, "me", 600)
        store.in_flight.unlock_list_call(ACCOUNT, "you")
        assert store.in_flight.lock_list_call(ACCOUNT, "me", 600)

    def test_says_what_it_knows_and_how_far_it_goes(self, store: RedisStore) -> None:
        assert store.in_flight.find_listed(ACCOUNT, "msgbatch_1") == (None, 0.0, float("inf"))
        store.in_flight.add_page(ACCOUNT, {"msgbatch_1": b"one"}, taken_at=50.5, since=40.0, first=True)
        store.in_flight.add_page(ACCOUNT, {"msgbatch_2": b"two"}, taken_at=50.5, since=30.0, first=False)
        assert store.in_flight.find_listed(ACCOUNT, "msgbatch_1") == (b"one", 50.5, 30.0)
        assert store.in_flight.find_listed(ACCOUNT, "msgbatch_3") == (None, 50.5, 30.0)
        store.in_flight.add_page(ACCOUNT, {}, taken_at=60.5, since=55.0, first=True)
        assert store.in_flight.find_listed(ACCOUNT, "msgbatch_1") == (None, 60.5, 55.0)

    def test_that_fails_is_counted_until_one_does_not(self, store: RedisStore) -> None:
        assert [store.in_flight.record_list_call(ACCOUNT, failed=True) for _ in range(3)] == [1, 2, 3]
        assert store.in_flight.record_list_call("another", failed=True) == 1
        assert store.in_flight.record_list_call(ACCOUNT, failed=False) == 0
        assert store.in_flight.record_list_call(ACCOUNT, failed=True) == 1

    def test_and_all_else_of_an_account_is_forgotten_in_time(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        store.in_flight.lock_list_call(ACCOUNT, "me", 5)
        store.in_flight.add_page(ACCOUNT, {}, taken_at=1.0, since=1.0, first=True)
        store.in_flight.add_duration(ACCOUNT, 5, 60.0)
        store.in_flight.record_list_call(ACCOUNT, failed=True)
        assert all(redis_client.ttl(key) > 0 for key in redis_client.keys("*account*"))


class TestWhatAnAccountHasShown:
    def test_holds_calls_back_until_the_latest_moment_that_was_said(self, store: RedisStore) -> None:
        assert store.in_flight.paused_until(ACCOUNT) == 0
        now = time.time()
        store.in_flight.pause_calls(ACCOUNT, now + 9)
        store.in_flight.pause_calls(ACCOUNT, now + 5)
        assert store.in_flight.paused_until(ACCOUNT) == now + 9
        assert store.in_flight.paused_until("another") == 0

    def test_remembers_the_last_batches(self, store: RedisStore) -> None:
        for number in range(150):
            store.in_flight.add_duration(ACCOUNT, number, 60.04)
        assert store.in_flight.past_durations(ACCOUNT)[0] == (149, 60.0)
        assert len(store.in_flight.past_durations(ACCOUNT)) == 100


class TestAFailedJob:
    def test_is_taken_up_by_one(self, store: RedisStore) -> None:
        unit = waiting(store, 1, time.time() + 500)
        store.jobs.update_job(unit.job_id, state="failed")
        change = {0: (True, 4_000_000, {"state": "in_progress", "turn": 1})}
        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda _: store.jobs.resume_job(unit.job_id, {"state": "running"}, change), range(16)))
        assert done.count(True) == 1
        assert store.jobs.read_job(unit.job_id).state == "running"  # type: ignore[union-attr]
        assert store.records.read_batch(unit.job_id, 0).turn == 1  # type: ignore[union-attr]
        assert store.records.read_position(unit) == 4_000_000
        assert store.schedule.take_due(10)[0] == [unit]

    def test_expires_no_more_once_it_runs(self, store: RedisStore) -> None:
        unit = waiting(store, 1, time.time() + 500)
        store.jobs.update_job(unit.job_id, state="failed")
        store.jobs.expire_job(unit.job_id, 100)
        assert store.jobs.resume_job(unit.job_id, {"state": "running"}, {0: (True, 1, {"turn": 1})})
        keys = store._redis.keys(f"claude_batch:{{{unit.job_id}}}:*")
        assert keys
        assert {store._redis.ttl(key) for key in keys} == {-1}

    def test_counts_its_batches_anew(self, store: RedisStore) -> None:
        unit = waiting(store, 1, time.time() + 500)
        store.leases.acquire_lease(unit, 6, "me", 600)
        for _ in range(2):
            store.leases.write_record(unit, "me", state="failed", done=True)
        assert store.jobs.read_job(unit.job_id).through == 1  # type: ignore[union-attr]
        store.jobs.update_job(unit.job_id, state="failed")
        assert store.jobs.resume_job(unit.job_id, {"state": "running"}, {0: (True, 7, {"done": False})})
        assert store.jobs.read_job(unit.job_id).through == 0  # type: ignore[union-attr]

    @pytest.mark.parametrize("state", ["staged", "running", "revoked"])
    def test_is_the_only_one_that_is(self, state: str, store: RedisStore) -> None:
        unit = waiting(store, 1, time.time() + 500)
        store.jobs.update_job(unit.job_id, state=state)
        assert not store.jobs.resume_job(unit.job_id, {"state": "running"}, {0: (True, 1, {"turn": 1})})
        assert not store.jobs.resume_job("nobody", {"state": "running"}, {})
        assert store.records.read_batch(unit.job_id, 0).turn == 0  # type: ignore[union-attr]
