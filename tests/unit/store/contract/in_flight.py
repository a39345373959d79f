"""What is known of an account: batches in flight, list calls, pauses."""

from __future__ import annotations

from claude_batch_tasks.records import Unit
from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import (
    ACCOUNT,
    LONG,
    OpenStore,
    PassTime,
    call_at_once,
    create_bare_job,
    make_flight,
    park_batch,
)


class TestAListCall:
    def test_is_made_by_one_at_a_time(self, store: Store, pass_time: PassTime) -> None:
        assert store.in_flight.lock_list_call(ACCOUNT, "me", LONG)
        assert not store.in_flight.lock_list_call(ACCOUNT, "you", 600)
        assert store.in_flight.lock_list_call(ACCOUNT, "me", 0.05), "and may be renewed"
        assert store.in_flight.lock_list_call("another", "you", 600)
        pass_time(0.1)
        assert store.in_flight.lock_list_call(ACCOUNT, "you", 600), "who died does not keep it"
        store.in_flight.unlock_list_call(ACCOUNT, "me")
        assert not store.in_flight.lock_list_call(ACCOUNT, "me", 600)
        store.in_flight.unlock_list_call(ACCOUNT, "you")
        assert store.in_flight.lock_list_call(ACCOUNT, "me", 600)

    def test_is_made_by_one_of_many(self, open_store: OpenStore) -> None:
        def lock(store: Store, number: int) -> bool:
            return store.in_flight.lock_list_call(ACCOUNT, f"worker-{number}", LONG)

        assert call_at_once(open_store, lock, range(24)).count(True) == 1

    def test_says_what_it_knows_and_how_far_it_goes(self, store: Store) -> None:
        assert store.in_flight.find_listed(ACCOUNT, "msgbatch_1") == (None, 0.0, float("inf"))
        store.in_flight.add_page(ACCOUNT, {"msgbatch_1": b"one"}, taken_at=50.5, since=40.0, first=True)
        store.in_flight.add_page(ACCOUNT, {"msgbatch_2": b"two"}, taken_at=50.5, since=30.0, first=False)
        assert store.in_flight.find_listed(ACCOUNT, "msgbatch_1") == (b"one", 50.5, 30.0)
        assert store.in_flight.find_listed(ACCOUNT, "msgbatch_3") == (None, 50.5, 30.0)
        store.in_flight.add_page(ACCOUNT, {}, taken_at=60.5, since=55.0, first=True)
        assert store.in_flight.find_listed(ACCOUNT, "msgbatch_1") == (None, 60.5, 55.0)

    def test_that_fails_is_counted_until_one_does_not(self, store: Store) -> None:
        assert [store.in_flight.record_list_call(ACCOUNT, failed=True) for _ in range(3)] == [1, 2, 3]
        assert store.in_flight.record_list_call("another", failed=True) == 1
        assert store.in_flight.record_list_call(ACCOUNT, failed=False) == 0
        assert store.in_flight.record_list_call(ACCOUNT, failed=True) == 1


class TestWhatAnAccountHasShown:
    def test_holds_calls_back_until_the_latest_moment_that_was_said(self, store: Store) -> None:
        assert store.in_flight.paused_until(ACCOUNT) == 0
        now = store.now()
        store.in_flight.pause_calls(ACCOUNT, now + 9)
        store.in_flight.pause_calls(ACCOUNT, now + 5)
        assert store.in_flight.paused_until(ACCOUNT) == now + 9
        assert store.in_flight.paused_until("another") == 0

    def test_remembers_the_last_batches(self, store: Store) -> None:
        for number in range(150):
            store.in_flight.add_duration(ACCOUNT, number, 60.04)
        assert store.in_flight.past_durations(ACCOUNT)[0] == (149, 60.0)
        assert len(store.in_flight.past_durations(ACCOUNT)) == 100


class TestBatchesInFlight:
    def test_are_those_whose_polls_wait(self, store: Store) -> None:
        due = store.now() + 500
        first, second = (park_batch(store, number, due, in_flight=True) for number in range(2))
        park_batch(store, 2, due)
        assert [store.in_flight.count_batches(ACCOUNT, most) for most in (1, 2, 1000)] == [1, 2, 2]
        found = store.in_flight.list_batches(ACCOUNT)
        assert {unit: flight for unit, (flight, _) in found.items()} == {first: make_flight(0), second: make_flight(1)}
        store.leases.acquire_lease(first, 6, "me", LONG)
        assert store.in_flight.count_batches(ACCOUNT, 1000) == 1
        store.storage.delete_job(second.job_id)
        assert store.in_flight.list_batches(ACCOUNT) == {}
        assert store.in_flight.count_batches("another", 1000) == 0

    def test_keep_all_that_is_known_of_them(self, store: Store) -> None:
        flight = make_flight(7, expires_at=200.25, deadline=300.5, api_ahead=-60.0)
        unit = Unit(create_bare_job(store, "job"), 0)
        store.leases.acquire_lease(unit, 0, "me", LONG)
        assert store.leases.park_unit(unit, "me", 1, store.now() + 50, account=ACCOUNT, flight=flight)
        assert store.in_flight.list_batches(ACCOUNT)[unit][0] == flight
