"""Where asks are, and how they end."""

from __future__ import annotations

import threading

from claude_batch_tasks.pool_records import AskEnd, PoolRecord
from claude_batch_tasks.store import Store
from tests.unit.store.contract.pools import ids_of, place_of, read_pool, seal_pool
from tests.unit.store.contract.samples import (
    JOB,
    LIMITS,
    LONG,
    OpenStore,
    PassTime,
    add_ask,
    call_at_once,
    create_bare_job,
)


class TestWithdrawing:
    def test_takes_asks_out_of_an_open_pool(self, store: Store) -> None:
        for ask_id in "abc":
            add_ask(store, ask_id, new_id=JOB)
        assert store.asks.withdraw(["a", "nobody", "c"], LONG) == [True, False, True]
        assert store.asks.withdraw(["a"], LONG) == [True]
        assert ids_of(store, JOB) == [None, "b", None]
        assert [place_of(store, each).state for each in "abc"] == ["revoked", "waiting", "revoked"]
        record = read_pool(store, JOB)
        assert (record.count, record.withdrawn) == (3, 2)
        assert add_ask(store, "d").position == 3

    def test_is_possible_until_a_job_is_made(self, store: Store) -> None:
        for ask_id in "abc":
            add_ask(store, ask_id, new_id=JOB, limits=LIMITS._replace(max_requests=3))
        store.pools.take_due(10, LONG)
        assert store.asks.withdraw(["a"], LONG) == [True]
        record = store.pools.begin_sealing(JOB)
        assert record is not None
        assert (record.state, record.withdrawn) == ("closed", 1)
        assert store.asks.withdraw(["a", "b"], LONG) == [True, False]
        assert store.asks.withdraw(["b"], LONG, sealing=True) == [True]
        store.pools.finish_sealing(JOB)
        assert store.asks.withdraw(["c"], LONG, sealing=True) == [False]
        assert ids_of(store, JOB) == [None, None, "c"]

    def test_is_possible_again_where_no_job_could_be_made(self, store: Store) -> None:
        for ask_id in "ab":
            add_ask(store, ask_id, new_id=JOB, limits=LIMITS._replace(max_requests=2))
        store.pools.take_due(10, LONG)
        for _ in range(2):
            store.pools.begin_sealing(JOB)
        assert store.pools.stop_sealing(JOB) == 1
        assert store.asks.withdraw(["a"], LONG) == [False]  # another worker may be making it
        assert store.pools.stop_sealing(JOB) == 2
        assert store.asks.withdraw(["a"], LONG) == [True]
        store.pools.finish_sealing(JOB)
        assert store.pools.stop_sealing(JOB) == 0

    def test_is_possible_again_where_a_create_was_refused(self, store: Store) -> None:
        seal_pool(store, "a", "b")
        assert store.asks.withdraw(["a"], LONG) == [False]
        store.pools.divide(JOB, {"p1": (PoolRecord(state="parked"), [0]), "p2": (PoolRecord(state="closed"), [1])})
        assert store.asks.withdraw(["a", "b"], LONG) == [True, True]
        assert (ids_of(store, "p1"), ids_of(store, "p2")) == ([None], [None])

    def test_ends_asks_in_a_job_where_that_is_wanted(self, store: Store) -> None:
        seal_pool(store, "a", "b")
        store.asks.end_asks(JOB, {1: AskEnd("b", "succeeded")}, LONG)
        with store.asks.listen() as listener:
            assert store.asks.withdraw(["a", "b", "nobody"], LONG, terminate=True) == [False] * 3
            assert listener.wait(10.0) == ["a"]
        assert [place_of(store, each).state for each in "ab"] == ["revoked", "succeeded"]
        assert ids_of(store, JOB) == ["a", "b"]

    def test_gives_back_what_was_reserved(self, store: Store) -> None:
        for ask_id in "ab":
            add_ask(store, ask_id, reserved=40, limits=LIMITS._replace(max_cost=100))
        store.asks.withdraw(["a"], LONG)
        store.asks.withdraw(["a"], LONG)
        assert store.asks.read_cost("default", LIMITS.window) == 40
        assert place_of(store, "a").reserved == 0

    def test_is_told(self, store: Store) -> None:
        add_ask(store, "a")
        with store.asks.listen() as listener:
            store.asks.withdraw(["a", "b"], LONG)
            assert listener.wait(10.0) == ["a"]

    def test_and_asking_at_once_lose_nothing(self, open_store: OpenStore, store: Store) -> None:
        def act(each: Store, number: int) -> bool:
            add_ask(each, f"{number}", limits=LIMITS._replace(max_requests=7))
            return number % 2 == 0 and each.asks.withdraw([f"{number}"], LONG)[0]

        withdrawn = call_at_once(open_store, act, range(60))
        left = sorted(
            int(ask_id) for job_id, _ in store.pools.list_pools() for ask_id in ids_of(store, job_id) if ask_id
        )
        assert left == [number for number, gone in enumerate(withdrawn) if not gone]
        assert sum(withdrawn) == sum(record.withdrawn for _, record in store.pools.list_pools())


class TestEnding:
    def test_is_recorded_by_the_positions_of_the_job(self, store: Store) -> None:
        seal_pool(store, *(f"{number}" for number in range(12)))
        assert store.asks.read_ended(JOB) == b""
        ends = {0: AskEnd("0", "succeeded"), 9: AskEnd("9", "failed"), 11: AskEnd("11", "revoked")}
        store.asks.end_asks(JOB, ends, LONG)
        assert store.asks.read_ended(JOB) == bytes([0b1000_0000, 0b0101_0000])
        assert [place_of(store, each).state for each in ("0", "1", "9", "11")] == [
            "succeeded",
            "waiting",
            "failed",
            "revoked",
        ]

    def test_counts_once(self, store: Store) -> None:
        seal_pool(store, "a")
        store.asks.end_asks(JOB, {0: AskEnd("a", "succeeded")}, LONG)
        store.asks.end_asks(JOB, {0: AskEnd("a", "failed")}, LONG)
        store.asks.end_asks(JOB, {0: AskEnd("a", "failed")}, LONG, final=False)
        assert place_of(store, "a").state == "succeeded"

    def test_with_a_failed_job_comes_once_more_if_that_is_resumed(self, store: Store) -> None:
        seal_pool(store, "a", "b")
        store.asks.end_asks(JOB, {0: AskEnd("a", "failed"), 1: AskEnd("b", "failed")}, LONG, final=False)
        assert store.asks.read_ended(JOB).rstrip(b"\0") == b""
        assert [place_of(store, each).state for each in "ab"] == ["failed", "failed"]
        store.asks.end_asks(JOB, {1: AskEnd("b", "succeeded")}, LONG)
        assert [place_of(store, each).state for each in "ab"] == ["failed", "succeeded"]
        assert store.asks.read_ended(JOB) == bytes([0b0100_0000])

    def test_forgets_what_followed_when_it_is_final(self, store: Store) -> None:
        own = {"canvas": '{"chain":[1]}', "headers": '{"a":1}'}
        for ask_id in "ab":
            add_ask(store, ask_id, key=JOB, new_id=JOB, **own)
        store.pools.finish_sealing(JOB)
        create_bare_job(store, JOB)
        store.asks.end_asks(JOB, {0: AskEnd("a", "succeeded")}, LONG)
        store.asks.end_asks(JOB, {1: AskEnd("b", "failed")}, LONG, final=False)
        places = [place_of(store, each, with_canvas=True) for each in "ab"]
        assert [(place.canvas, place.headers) for place in places] == [("{}", None), (own["canvas"], own["headers"])]

    def test_in_a_job_that_an_ask_has_left_is_not_its_end(self, store: Store) -> None:
        seal_pool(store, "a", "b")
        store.pools.divide(JOB, {"p": (PoolRecord(state="closed"), [0, 1])})
        store.asks.end_asks(JOB, {0: AskEnd("a", "failed")}, LONG)
        assert (place_of(store, "a").job_id, place_of(store, "a").state) == ("p", "waiting")

    def test_is_known_for_a_time(self, store: Store, pass_time: PassTime) -> None:
        seal_pool(store, "a", "b")
        store.asks.end_asks(JOB, {0: AskEnd("a", "succeeded")}, 2.0)
        assert place_of(store, "a").state == "succeeded"
        pass_time(2.4)
        assert store.asks.read_places(["a"]) == [None]
        assert place_of(store, "b").state == "waiting"

    def test_is_known_also_of_an_ask_that_was_forgotten_meanwhile(self, store: Store, pass_time: PassTime) -> None:
        seal_pool(store, "a")
        store.jobs.persist_job(JOB)
        pass_time(91 * 86_400)
        assert store.asks.read_places(["a"]) == [None]
        store.asks.end_asks(JOB, {0: AskEnd("a", "succeeded")}, LONG)
        place = place_of(store, "a")
        assert (place.job_id, place.position, place.state) == (JOB, 0, "succeeded")

    def test_of_thousands_is_recorded(self, store: Store) -> None:
        ids = [f"ask-{number}" for number in range(1234)]
        seal_pool(store, *ids[:3])
        store.asks.end_asks(JOB, {number: AskEnd(ask_id, "succeeded") for number, ask_id in enumerate(ids)}, LONG)
        assert {place.state for place in store.asks.read_places(ids) if place} == {"succeeded"}
        assert store.asks.read_ended(JOB) == b"\xff" * 154 + b"\xc0"

    def test_settles_what_was_reserved_once(self, store: Store) -> None:
        for ask_id in "abc":
            add_ask(store, ask_id, reserved=30, limits=LIMITS._replace(max_cost=100))
        add_ask(store, "free")
        store.asks.settle_cost({"a": 7, "free": 5, "nobody": 5})
        store.asks.settle_cost({"a": 9, "b": 50})
        assert store.asks.read_cost("default", LIMITS.window) == 7 + 50 + 30
        assert [place_of(store, each).reserved for each in "abc"] == [0, 0, 30]
        assert store.asks.read_cost("other", LIMITS.window) == 0


class TestListening:
    def test_tells_of_all_that_end_from_then_on(self, store: Store) -> None:
        seal_pool(store, "a", "b", "c")
        store.asks.end_asks(JOB, {0: AskEnd("a", "succeeded")}, LONG)
        with store.asks.listen() as listener:
            assert listener.wait(0.0) == []
            store.asks.end_asks(JOB, {1: AskEnd("b", "succeeded"), 2: AskEnd("c", "failed")}, LONG)
            assert sorted(listener.wait(10.0)) == ["b", "c"]
            assert listener.wait(0.01) == []
            store.asks.end_asks(JOB, {0: AskEnd("a", "failed")}, LONG, final=False)
            assert listener.wait(10.0) == ["a"]

    def test_wakes_who_waits(self, open_store: OpenStore, store: Store) -> None:
        seal_pool(store, "a")
        found: list[str] = []
        with open_store().asks.listen() as listener:
            waiting = threading.Thread(target=lambda: found.extend(listener.wait(60.0)))
            waiting.start()
            store.asks.end_asks(JOB, {0: AskEnd("a", "succeeded")}, LONG)
            waiting.join(30.0)
        assert found == ["a"]

    def test_is_shared_by_thousands(self, store: Store) -> None:
        ids = [f"ask-{number}" for number in range(2000)]
        with store.asks.listen() as listener:
            store.asks.end_asks(JOB, {number: AskEnd(ask_id, "succeeded") for number, ask_id in enumerate(ids)}, LONG)
            found: list[str] = []
            while len(found) < len(ids) and (some := listener.wait(10.0)):
                found += some
        assert found == ids
