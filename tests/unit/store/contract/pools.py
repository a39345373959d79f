"""Pools of asks: how they are opened, filled, closed, sealed, divided."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from claude_batch_tasks.errors import BudgetSpent
from claude_batch_tasks.pool_records import Ask, AskPlace, PoolLimits, PoolRecord, PoolSearch
from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import (
    JOB,
    LIMITS,
    LONG,
    Contents,
    OpenStore,
    PassTime,
    add_ask,
    call_at_once,
    create_bare_job,
)


def read_pool(store: Store, job_id: str) -> PoolRecord:
    record = store.pools.read_pool(job_id)
    assert record is not None
    return record


def ids_of(store: Store, job_id: str) -> list[str | None]:
    """The ids of a pool's asks; None: withdrawn, or moved."""
    return [ask and ask.id for some in store.pools.read_asks(job_id) for ask in some]


def place_of(store: Store, ask_id: str, **how: bool) -> AskPlace:
    [place] = store.asks.read_places([ask_id], **how)
    assert place is not None
    return place


def seal_pool(store: Store, *ask_ids: str, job_id: str = JOB) -> None:
    """Make a job of a pool of these asks."""
    for ask_id in ask_ids:
        add_ask(store, ask_id, key=job_id, new_id=job_id, limits=LIMITS._replace(max_requests=len(ask_ids)))
    assert store.pools.take_due(10, LONG)[0] == [job_id]
    store.pools.begin_sealing(job_id)
    create_bare_job(store, job_id)
    store.pools.finish_sealing(job_id)


class TestAnAsk:
    def test_opens_a_pool_and_others_join_it(self, store: Store) -> None:
        own: dict[str, Any] = {"client": "second", "queue": "q", "route": "r", "options": {"output": "m:T"}}
        own |= {"name": "reviews", "mode": "messages", "deadline": 9.5}
        pool = PoolRecord(**own)
        first = add_ask(store, "a", pool=pool, new_id=JOB, size=30)
        second = add_ask(store, "b", pool=pool, new_id="other", size=12)
        assert (first.job_id, first.position, first.state) == (JOB, 0, "waiting")
        assert (second.job_id, second.position) == (JOB, 1)
        record = read_pool(store, JOB)
        assert first.asked_at == record.opened_at
        assert first.asked_at <= second.asked_at <= store.now() + 1
        assert record == PoolRecord(
            **own,
            opened_at=record.opened_at,
            due_at=record.due_at,
            count=2,
            size=42,
        )
        assert record.due_at == pytest.approx(record.opened_at + LIMITS.max_wait, abs=1)

    def test_is_with_those_that_have_the_same_in_common(self, store: Store) -> None:
        assert [add_ask(store, each, key=each[0]).job_id for each in ("a1", "b1", "a2", "b2")] == [
            "pool-of-a1",
            "pool-of-b1",
        ] * 2

    def test_comes_back_as_it_was_asked(self, store: Store) -> None:
        long = b'{"text":"%s"}' % ("ü\n" * 5000).encode()
        own: dict[str, Any] = {"expires_at": 12.5, "canvas": '{"chain":[1]}', "headers": '{"a":"b\\n"}', "reserved": 7}
        place = add_ask(store, "all", params=long, **own)
        add_ask(store, "none")
        assert [ask for some in store.pools.read_asks(place.job_id) for ask in some] == [
            Ask(id="all", params=long, expires_at=own.pop("expires_at")),
            Ask(id="none", params=b'{"max_tokens":1}'),
        ]
        stored = AskPlace(job_id="pool-of-all", position=0, asked_at=place.asked_at, **own)
        assert place_of(store, "all", with_canvas=True) == stored
        assert place == place_of(store, "all") == msgspec.structs.replace(stored, canvas="{}", headers=None)

    def test_that_is_known_is_not_asked_again(self, store: Store, contents: Contents) -> None:
        first = add_ask(store, "a", reserved=5, canvas="{1}", limits=LIMITS._replace(max_cost=8))
        before = contents()
        again = add_ask(store, "a", key="other", reserved=5, limits=LIMITS._replace(max_cost=8))
        assert again == first
        assert contents() == before
        assert read_pool(store, first.job_id).count == 1
        assert store.asks.read_cost("default", LIMITS.window) == 5

    def test_of_many_callers_at_once_is_in_one_full_pool(self, open_store: OpenStore, store: Store) -> None:
        limits = LIMITS._replace(max_requests=10)
        places = call_at_once(open_store, lambda each, n: add_ask(each, f"ask-{n}", limits=limits), range(64))
        pools = {place.job_id: read_pool(store, place.job_id) for place in places}
        assert sorted(record.count for record in pools.values()) == [4, 10, 10, 10, 10, 10, 10]
        assert {(place.job_id, place.position) for place in places} == {
            (job_id, position) for job_id, record in pools.items() for position in range(record.count)
        }
        for number, place in enumerate(places):
            assert ids_of(store, place.job_id)[place.position] == f"ask-{number}"


class TestAPool:
    def test_is_due_when_its_time_is_over_and_takes_no_more(self, store: Store, pass_time: PassTime) -> None:
        limits = LIMITS._replace(max_wait=2.0)
        add_ask(store, "a", new_id=JOB, limits=limits)
        ids, pause = store.pools.take_due(10, 30.0)
        assert ids == []
        assert pause is not None
        assert 1 < pause <= 2
        pass_time(2.2)
        ids, pause = store.pools.take_due(10, 30.0)
        assert ids == [JOB]
        assert pause is not None
        assert 29 < pause <= 30
        assert read_pool(store, JOB).state == "closed"
        assert add_ask(store, "b", limits=limits).job_id == "pool-of-b"

    @pytest.mark.parametrize("limits", [LIMITS._replace(max_requests=3), LIMITS._replace(max_bytes=300)])
    def test_that_is_full_is_due_at_once(self, store: Store, limits: PoolLimits) -> None:
        for ask_id in "ab":
            add_ask(store, ask_id, new_id=JOB, limits=limits)
        assert store.pools.take_due(10, LONG)[0] == []
        assert add_ask(store, "c", limits=limits).job_id == JOB
        assert add_ask(store, "d", limits=limits).job_id == "pool-of-d"
        assert store.pools.take_due(10, LONG)[0] == [JOB]

    def test_without_room_for_an_ask_is_due_and_the_next_one_is_opened(self, store: Store) -> None:
        limits = LIMITS._replace(max_bytes=250)
        assert [add_ask(store, ask_id, size=100, limits=limits).job_id for ask_id in "abc"] == [
            "pool-of-a",
            "pool-of-a",
            "pool-of-c",
        ]
        assert store.pools.take_due(10, LONG)[0] == ["pool-of-a"]

    def test_is_of_one_ask_that_is_too_large_for_any(self, store: Store) -> None:
        limits = LIMITS._replace(max_bytes=250)
        places = [add_ask(store, ask_id, size=size, limits=limits) for ask_id, size in (("a", 1), ("b", 251), ("c", 1))]
        assert [place.job_id for place in places] == ["pool-of-a", "pool-of-b", "pool-of-a"]
        assert store.pools.take_due(10, LONG)[0] == ["pool-of-b"]

    def test_that_is_sealed_leaves_nothing_of_its_kind(self, store: Store, contents: Contents) -> None:
        """Kinds are many: each time of a countdown is one."""
        limits = LIMITS._replace(max_bytes=250)
        for ask_id, size in (("a", 100), ("b", 250)):
            add_ask(store, ask_id, size=size, limits=limits)
        for job_id in sorted(store.pools.take_due(10, LONG)[0]):
            store.pools.finish_sealing(job_id)
            store.storage.delete_job(job_id)
        assert not [each for each in contents() if "open" in each]

    def test_is_of_one_ask_if_there_may_be_no_more(self, store: Store) -> None:
        limits = LIMITS._replace(max_requests=1)
        assert [add_ask(store, ask_id, limits=limits).job_id for ask_id in "ab"] == ["pool-of-a", "pool-of-b"]
        assert sorted(store.pools.take_due(10, LONG)[0]) == ["pool-of-a", "pool-of-b"]

    def test_has_the_earliest_end_and_deadline_of_its_asks(self, store: Store) -> None:
        now = store.now()
        for ask_id, due, deadline in (
            ("a", 50.0, None),
            ("b", 40.0, 900.0),
            ("c", 45.0, 800.5),
            ("d", 45.0, 850.0),
            ("e", 45.0, None),
        ):
            record = PoolRecord(due_at=now + due, deadline=deadline)
            assert add_ask(store, ask_id, pool=record, new_id=JOB).job_id == JOB
        found = read_pool(store, JOB)
        assert found.due_at == pytest.approx(now + 40, abs=0.001)
        assert found.deadline == 800.5
        pause = store.pools.take_due(10, LONG)[1]
        assert pause == pytest.approx(40, abs=5)

    def test_may_be_due_late(self, store: Store, pass_time: PassTime) -> None:
        """Its asks have a countdown of weeks."""
        add_ask(store, "a", pool=PoolRecord(due_at=store.now() + 200 * 86_400), new_id=JOB)
        pass_time(199 * 86_400)
        assert place_of(store, "a").job_id == JOB
        pass_time(2 * 86_400)
        assert store.pools.take_due(10, LONG)[0] == [JOB]
        assert ids_of(store, JOB) == ["a"]

    def test_that_is_full_does_not_start_early(self, store: Store, pass_time: PassTime) -> None:
        at = store.now() + 7200
        pool = PoolRecord(due_at=at, starts_at=at)
        limits = LIMITS._replace(max_requests=2)
        assert [add_ask(store, each, pool=pool, new_id=f"of-{each}", limits=limits).job_id for each in "abc"] == [
            "of-a",
            "of-a",
            "of-c",
        ]
        assert store.pools.take_due(10, LONG)[0] == []
        pass_time(7201)
        assert store.pools.take_due(10, LONG)[0] == ["of-a", "of-c"]

    def test_that_nobody_knows_is_none(self, store: Store) -> None:
        assert store.pools.read_pool("nobody") is None
        assert store.pools.begin_sealing("nobody") is None
        assert list(store.pools.read_asks("nobody")) == []
        assert store.pools.stop_sealing("nobody") == 0
        store.pools.finish_sealing("nobody")
        store.pools.drop_asks("nobody")
        store.pools.release("nobody", PoolRecord())
        store.pools.merge("nobody", ["nobody too"])
        assert not store.pools.divide("nobody", {"part": (PoolRecord(state="closed"), [0])})
        assert store.pools.take_due(10, LONG) == ([], None)
        assert list(store.pools.list_pools()) == []
        assert store.pools.read_pool("part") is None

    def test_is_listed_until_it_is_sealed_the_oldest_first(self, store: Store) -> None:
        for ask_id, name in (("a", "one"), ("b", "two"), ("c", "one")):
            add_ask(store, ask_id, key=ask_id, pool=PoolRecord(name=name), limits=LIMITS._replace(max_requests=1))
        assert [(job_id, record.name) for job_id, record in store.pools.list_pools()] == [
            ("pool-of-a", "one"),
            ("pool-of-b", "two"),
            ("pool-of-c", "one"),
        ]
        store.pools.take_due(10, LONG)
        store.pools.finish_sealing("pool-of-a")
        assert [job_id for job_id, _ in store.pools.list_pools("one")] == ["pool-of-c"]

    def test_is_taken_by_one_of_many(self, open_store: OpenStore, store: Store) -> None:
        for number in range(40):
            add_ask(store, f"{number}", key=f"{number}", limits=LIMITS._replace(max_requests=1))
        taken = [
            each
            for ids in call_at_once(open_store, lambda s, n: s.pools.take_due(3, LONG)[0], range(40))
            for each in ids
        ]
        assert sorted(taken) == sorted(f"pool-of-{number}" for number in range(40))

    def test_is_due_again_and_ever_later_until_it_is_sealed(self, store: Store, pass_time: PassTime) -> None:
        add_ask(store, "a", new_id=JOB, limits=LIMITS._replace(max_requests=1))
        for pause in (10, 20, 40, 80, 160, 320, 640, 640):
            assert store.pools.take_due(10, 10.0)[0] == [JOB]
            pass_time(pause - 2)
            assert store.pools.take_due(10, 10.0)[0] == []
            pass_time(3)
        store.pools.finish_sealing(JOB)
        assert store.pools.take_due(10, 10.0) == ([], None)

    def test_whose_message_was_not_sent_is_due_again_soon(self, store: Store, pass_time: PassTime) -> None:
        for ask_id in "ab":
            add_ask(store, ask_id, key=ask_id, limits=LIMITS._replace(max_requests=1))
        for _ in range(5):
            assert len(store.pools.take_due(10, 100.0)[0]) == 2
            store.pools.wait_again(["pool-of-a", "pool-of-b", "nobody"], 5.0)
            assert store.pools.take_due(10, 100.0)[0] == []
            pass_time(6)
        store.pools.finish_sealing("pool-of-b")
        store.pools.wait_again(["pool-of-b"], 5.0)
        assert store.pools.take_due(10, 100.0)[0] == ["pool-of-a"]
        pass_time(101)
        assert store.pools.take_due(10, 100.0)[0] == ["pool-of-a"]

    def test_keeps_its_asks_until_they_are_dropped(self, store: Store) -> None:
        seal_pool(store, "a", "b")
        assert read_pool(store, JOB).state == "sealed"
        assert ids_of(store, JOB) == ["a", "b"]
        store.pools.drop_asks(JOB)
        assert ids_of(store, JOB) == []
        assert place_of(store, "b").position == 1
        assert read_pool(store, JOB).count == 2

    def test_of_many_large_asks_is_read_in_their_order(self, store: Store) -> None:
        params = b"[%s]" % (b"1," * 100_000)
        limits = LIMITS._replace(max_bytes=10**9)
        for number in range(45):
            add_ask(store, f"{number}", new_id=JOB, params=params, size=len(params), limits=limits)
        chunks = list(store.pools.read_asks(JOB))
        assert len(chunks) > 1
        assert [ask.id for some in chunks for ask in some if ask] == [f"{number}" for number in range(45)]
        assert all(ask and ask.params == params for some in chunks for ask in some)

    def test_goes_with_its_job(self, store: Store, contents: Contents) -> None:
        seal_pool(store, "a")
        store.storage.delete_job(JOB)
        assert store.pools.read_pool(JOB) is None
        assert not [each for each in contents() if JOB in each]

    def test_that_was_open_and_is_gone_is_opened_anew(self, store: Store) -> None:
        add_ask(store, "a", new_id=JOB)
        store.storage.delete_job(JOB)
        assert list(store.pools.list_pools()) == []
        assert add_ask(store, "b", new_id="next").job_id == "next"
        assert store.pools.take_due(10, LONG)[0] == []
        assert ids_of(store, "next") == ["b"]


class TestACostLimit:
    LIMITS = LIMITS._replace(max_cost=100, window=3600.0)

    def test_refuses_what_does_not_fit(self, store: Store, contents: Contents) -> None:
        pool = PoolRecord(name="dear")
        add_ask(store, "a", pool=pool, limits=self.LIMITS, reserved=60)
        before = contents()
        with pytest.raises(BudgetSpent, match="an ask of the pool 'dear' may cost up to") as refused:
            add_ask(store, "b", pool=pool, limits=self.LIMITS, reserved=41)
        assert refused.value.retry_after is not None
        assert 0 < refused.value.retry_after <= 3600
        assert contents() == before
        assert store.asks.read_places(["b"]) == [None]
        assert store.asks.read_cost("dear", 3600.0) == 60
        add_ask(store, "b", pool=pool, limits=self.LIMITS, reserved=40)
        assert store.asks.read_cost("dear", 3600.0) == 100

    def test_is_of_a_name_whatever_else_differs(self, store: Store) -> None:
        add_ask(store, "a", key="1", limits=self.LIMITS, reserved=60)
        with pytest.raises(BudgetSpent):
            add_ask(store, "b", key="2", limits=self.LIMITS, reserved=60)
        add_ask(store, "b", key="3", pool=PoolRecord(name="other"), limits=self.LIMITS, reserved=60)

    def test_begins_anew_with_each_window(self, store: Store, pass_time: PassTime) -> None:
        add_ask(store, "a", limits=self.LIMITS, reserved=60)
        with pytest.raises(BudgetSpent) as refused:
            add_ask(store, "b", limits=self.LIMITS, reserved=60)
        assert refused.value.retry_after is not None
        pass_time(refused.value.retry_after + 0.1)
        add_ask(store, "b", limits=self.LIMITS, reserved=60)
        store.asks.settle_cost({"a": 1000})
        assert store.asks.read_cost("default", 3600.0) == 60

    @pytest.mark.parametrize("window", [1.5, 1_234_567.0, 31_536_000.0])
    def test_may_have_windows_of_any_length(self, store: Store, window: float) -> None:
        limits = self.LIMITS._replace(window=window)
        add_ask(store, "a", limits=limits, reserved=60)
        if window > 2:
            assert store.asks.read_cost("default", window) == 60
            with pytest.raises(BudgetSpent):
                add_ask(store, "b", limits=limits, reserved=60)
        assert store.asks.read_cost("default", window + 1) == 0

    def test_holds_for_many_at_once(self, open_store: OpenStore, store: Store) -> None:
        def ask(each: Store, number: int) -> bool:
            try:
                add_ask(each, f"{number}", limits=self.LIMITS, reserved=9)
            except BudgetSpent:
                return False
            return True

        assert sum(call_at_once(open_store, ask, range(32))) == 11
        assert store.asks.read_cost("default", 3600.0) == 99


class TestDividing:
    """A create was refused, and the ask that is to blame is searched for."""

    def test_moves_asks_into_other_pools(self, store: Store) -> None:
        seal_pool(store, "a", "b", "c", "d", "e")
        tried = PoolRecord(
            name="n", state="closed", opened_at=5.0, deadline=7.5, search=PoolSearch(other="p2", found=1)
        )
        parked = PoolRecord(name="n", state="parked", opened_at=6.0)
        assert store.pools.divide(JOB, {"p1": (tried, [0, 2]), "p2": (parked, [1, 3])})
        assert (ids_of(store, "p1"), ids_of(store, "p2")) == (["a", "c"], ["b", "d"])
        assert ids_of(store, JOB) == [None, None, None, None, "e"]
        assert [(place.job_id, place.position) for place in store.asks.read_places(list("abcde")) if place] == [
            ("p1", 0),
            ("p2", 0),
            ("p1", 1),
            ("p2", 1),
            (JOB, 4),
        ]
        record = read_pool(store, "p1")
        assert (record.count, record.size, record.state, record.opened_at, record.deadline) == (
            2,
            200,
            "closed",
            5.0,
            7.5,
        )
        assert record.search == PoolSearch(other="p2", found=1)
        assert read_pool(store, JOB).state == "divided"
        assert [job_id for job_id, _ in store.pools.list_pools()] == ["p1", "p2"]
        assert store.pools.take_due(10, LONG)[0] == ["p1"]

    def test_happens_once(self, store: Store) -> None:
        seal_pool(store, "a", "b")
        closed = PoolRecord(state="closed")
        assert store.pools.divide(JOB, {"p1": (closed, [0]), "p2": (closed, [1])})
        assert not store.pools.divide(JOB, {"p3": (closed, [0]), "p4": (closed, [1])})
        assert store.pools.read_pool("p3") is None
        assert ids_of(store, "p1") == ["a"]

    def test_leaves_withdrawn_asks_where_they_are(self, store: Store) -> None:
        for ask_id in "abc":
            add_ask(store, ask_id, new_id=JOB, limits=LIMITS._replace(max_requests=3))
        assert store.asks.withdraw(["b"], LONG) == [True]
        store.pools.finish_sealing(JOB)
        assert store.pools.divide(JOB, {"p": (PoolRecord(state="closed"), [0, 1, 2])})
        assert ids_of(store, "p") == ["a", "c"]
        assert [place_of(store, each).position for each in "ac"] == [0, 1]

    def test_and_deleting_the_refused_job_loses_no_ask(self, store: Store) -> None:
        seal_pool(store, "a", "b")
        store.pools.divide(JOB, {"p": (PoolRecord(state="parked"), [0, 1])})
        store.storage.delete_job(JOB, remember=True)
        assert ids_of(store, "p") == ["a", "b"]
        assert place_of(store, "a").job_id == "p"

    def test_is_followed_by_joining_the_good_ones(self, store: Store) -> None:
        seal_pool(store, "a", "b", "c")
        parked = PoolRecord(state="parked")
        store.pools.divide(JOB, {"p1": (parked, [0]), "p2": (parked, [1]), "p3": (parked, [2])})
        store.pools.merge("p2", ["p1", "p3", "p2", "gone"])
        store.pools.merge("p2", ["p1", "p3"])
        assert ids_of(store, "p2") == ["b", "a", "c"]
        assert [(place_of(store, each).job_id, place_of(store, each).position) for each in "abc"] == [
            ("p2", 1),
            ("p2", 0),
            ("p2", 2),
        ]
        record = read_pool(store, "p2")
        assert (record.count, record.size) == (3, 300)
        assert [job_id for job_id, _ in store.pools.list_pools()] == ["p2"]

    def test_joins_only_what_is_parked(self, store: Store) -> None:
        seal_pool(store, "a", "b")
        parked, closed = PoolRecord(state="parked"), PoolRecord(state="closed")
        store.pools.divide(JOB, {"p1": (parked, [0]), "p2": (closed, [1])})
        store.pools.merge("p1", ["p2"])
        store.pools.merge("p2", ["p1"])
        assert (ids_of(store, "p1"), ids_of(store, "p2")) == (["a"], ["b"])

    def test_lets_a_parked_pool_become_a_job_when_nobody_goes_on(self, store: Store, pass_time: PassTime) -> None:
        seal_pool(store, "a", "b", "c")
        due_at = store.now() + 600
        parked = PoolRecord(state="parked", due_at=due_at)
        store.pools.divide(JOB, {"p1": (parked, [0]), "p2": (parked, [1]), "p3": (parked, [2])})
        store.pools.merge("p1", ["p3"])
        assert store.pools.take_due(10, LONG)[0] == []
        assert read_pool(store, "p1").due_at == due_at
        pass_time(601)
        assert sorted(store.pools.take_due(10, LONG)[0]) == ["p1", "p2"]
        assert read_pool(store, "p1").state == "closed"
        assert ids_of(store, "p1") == ["a", "c"]

    def test_lets_a_parked_pool_become_a_job_later(self, store: Store) -> None:
        seal_pool(store, "a", "b")
        parked = PoolRecord(name="n", state="parked")
        store.pools.divide(JOB, {"p": (parked, [0, 1])})
        assert store.pools.take_due(10, LONG) == ([], None)
        search = PoolSearch(found=3)
        store.pools.release("p", PoolRecord(name="n", search=search, deadline=4.5))
        record = read_pool(store, "p")
        assert (record.state, record.search, record.deadline, record.count) == ("closed", search, 4.5, 2)
        assert store.pools.take_due(10, LONG)[0] == ["p"]
        store.pools.finish_sealing("p")
        store.pools.release("p", PoolRecord(name="again"))
        assert (read_pool(store, "p").state, read_pool(store, "p").name) == ("sealed", "n")
