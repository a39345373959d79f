"""Asks in a caller's transaction: they are there when it commits, and nobody waits for it until then."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from claude_batch_tasks.errors import BudgetSpent, KeyMissing
from claude_batch_tasks.pool_records import PoolRecord
from claude_batch_tasks.records import Unit
from claude_batch_tasks.store import Store
from claude_batch_tasks.store.postgres import PostgresStore
from claude_batch_tasks.store.postgres.sources import Connected
from tests.unit.store.contract.pools import ids_of, place_of, read_pool
from tests.unit.store.contract.samples import JOB, LIMITS, LONG, add_ask, create_bare_job, take_request
from tests.unit.store.postgres.conftest import Database

KEY = base64.b64encode(bytes(range(32))).decode()

#: What expires by itself.
SWEPT = ("asks", "costs", "paces", "pace_calls")

DEAR = LIMITS._replace(max_cost=100, window=3600.0)


class Callers:
    """The connection of a caller, as a source of a store."""

    where = "the caller's connection"

    def __init__(self, connection: Connected) -> None:
        self.connection = connection

    @contextmanager
    def connect(self) -> Iterator[Connected]:
        yield self.connection

    listen = connect

    def in_transaction(self) -> bool:
        return True


class Caller:
    """An application that asks in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self.connection = psycopg.connect(database.url)
        self.store: Store = PostgresStore(Callers(self.connection), database.schema)  # type: ignore[assignment]

    def commit(self) -> None:
        self.connection.commit()


@pytest.fixture
def caller(database: Database) -> Iterator[Caller]:
    found = Caller(database)
    yield found
    found.connection.close()


@pytest.fixture
def store(database: Database) -> Store:
    """Return the store of others, who wait for no lock longer than that."""
    return database.open_store("-c lock_timeout=3s")


class TestATransactionOfTheCallers:
    def test_that_is_rolled_back_leaves_nothing(self, database: Database, caller: Caller, store: Store) -> None:
        add_ask(caller.store, "a", reserved=60, limits=DEAR)
        assert place_of(caller.store, "a").job_id == "pool-of-a"
        caller.connection.rollback()
        assert store.asks.read_places(["a"]) == [None]
        assert list(store.pools.list_pools()) == []
        assert store.asks.read_cost("default", DEAR.window) == 0
        for table in ("pools", "pool_asks", "asks", "costs"):
            assert database.run(f"SELECT * FROM claude_batch.{table}") == []

    def test_keeps_nobody_else_waiting(self, caller: Caller, store: Store) -> None:
        add_ask(store, "before", new_id=JOB, reserved=10, limits=DEAR)
        add_ask(caller.store, "mine", reserved=10, limits=DEAR)
        assert [add_ask(store, each, reserved=10, limits=DEAR).job_id for each in ("b", "c")] == [JOB, JOB]
        assert store.asks.withdraw(["b"], LONG) == [True]
        assert store.asks.read_places(["mine"]) == [None]
        assert store.pools.take_due(10, LONG)[0] == []
        caller.commit()
        assert ids_of(store, JOB) == ["before", None, "c", "mine"]
        place = place_of(store, "mine")
        assert (place.job_id, place.position, place.reserved) == (JOB, 3, 10)
        record = read_pool(store, JOB)
        assert (record.count, record.withdrawn, record.size) == (4, 1, 400)
        assert store.asks.read_cost("default", DEAR.window) == 30
        assert [job_id for job_id, _ in store.pools.list_pools()] == [JOB]

    def test_opens_a_pool_that_others_join_when_it_commits(self, caller: Caller, store: Store) -> None:
        for ask_id in "abc":
            add_ask(caller.store, ask_id, new_id=JOB)
        assert add_ask(caller.store, "b").position == 1, "it is known"
        caller.commit()
        assert add_ask(store, "d").position == 3
        assert ids_of(store, JOB) == list("abcd")

    def test_brings_earlier_moments_along(self, caller: Caller, store: Store) -> None:
        add_ask(store, "a", new_id=JOB, pool=PoolRecord(deadline=9.5))
        due_at = store.now() + 5
        add_ask(caller.store, "b", pool=PoolRecord(deadline=7.5, due_at=due_at))
        caller.commit()
        record = read_pool(store, JOB)
        assert (record.deadline, record.due_at, record.count) == (7.5, due_at, 2)

    def test_fills_and_closes_pools(self, caller: Caller, store: Store) -> None:
        limits = LIMITS._replace(max_requests=3)
        add_ask(store, "a", new_id=JOB, limits=limits)
        for ask_id in "bcdefg":
            add_ask(caller.store, ask_id, limits=limits)
        assert store.pools.take_due(10, LONG)[0] == []
        caller.commit()
        assert sorted(store.pools.take_due(10, LONG)[0]) == ["pool-of-b", "pool-of-e"]
        add_ask(caller.store, "h", limits=limits)
        add_ask(caller.store, "i", limits=limits)
        caller.commit()
        assert store.pools.take_due(10, LONG)[0] == [JOB], "the one that was open is full with them"
        assert ids_of(store, JOB) == ["a", "h", "i"]

    def test_closes_the_open_pool_that_has_no_room_for_all(self, caller: Caller, store: Store) -> None:
        limits = LIMITS._replace(max_requests=3)
        for ask_id in "ab":
            add_ask(store, ask_id, new_id=JOB, limits=limits)
        for ask_id in "cd":
            add_ask(caller.store, ask_id, new_id="next", limits=limits)
        caller.commit()
        assert store.pools.take_due(10, LONG)[0] == [JOB]
        assert (ids_of(store, JOB), ids_of(store, "next")) == (["a", "b"], ["c", "d"])
        assert add_ask(store, "e", limits=limits).job_id == "next"

    def test_may_take_its_asks_back(self, caller: Caller, store: Store) -> None:
        for ask_id in "abc":
            add_ask(caller.store, ask_id, new_id=JOB, reserved=10, limits=DEAR)
        assert caller.store.asks.withdraw(["b"], LONG) == [True]
        caller.connection.execute("SAVEPOINT one")
        add_ask(caller.store, "d", reserved=10, limits=DEAR)
        caller.connection.execute("ROLLBACK TO SAVEPOINT one")
        caller.commit()
        assert ids_of(store, JOB) == ["a", None, "c"]
        assert store.asks.read_places(["d"]) == [None]
        assert store.asks.read_cost("default", DEAR.window) == 20

    def test_that_withdraws_keeps_no_ask_waiting(self, caller: Caller, store: Store) -> None:
        for ask_id in "ab":
            add_ask(store, ask_id, new_id=JOB)
        assert caller.store.asks.withdraw(["a"], LONG) == [True]
        places = [add_ask(store, each) for each in "cd"]
        assert [(place.job_id, place.position) for place in places] == [("pool-of-c", 0), ("pool-of-c", 1)]
        caller.commit()
        assert add_ask(store, "e").job_id == JOB, "the oldest one that is open"
        assert ids_of(store, JOB) == [None, "b", "e"]

    @pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
    def test_may_see_what_was_before_it(self, caller: Caller, store: Store, level: str) -> None:
        caller.connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        add_ask(store, "a", new_id=JOB)
        add_ask(caller.store, "b")
        add_ask(store, "c")
        caller.commit()
        assert ids_of(store, JOB) == ["a", "c"]
        assert ids_of(store, "pool-of-b") == ["b"]
        assert add_ask(store, "d").job_id == JOB

    def test_of_many_at_once_loses_nothing(self, database: Database, store: Store) -> None:
        limits = LIMITS._replace(max_requests=7)
        ready = threading.Barrier(8)

        def ask(number: int) -> list[str]:
            mine, committed = Caller(database), []
            ready.wait(30)
            for turn in range(12):
                ids = [f"{number}-{turn}-{each}" for each in range(turn % 3 + 1)]
                for ask_id in ids:
                    add_ask(mine.store, ask_id, key=ask_id[-1], reserved=1, limits=limits._replace(max_cost=10**6))
                if (number + turn) % 4:
                    mine.commit()
                    committed += ids
                else:
                    mine.connection.rollback()
            mine.connection.close()
            return committed

        with ThreadPoolExecutor(8) as pool:
            committed = sorted(each for some in pool.map(ask, range(8)) for each in some)
        pools = {job_id: ids_of(store, job_id) for job_id, _ in store.pools.list_pools()}
        assert sorted(str(ask_id) for ids in pools.values() for ask_id in ids) == committed
        for job_id, ids in pools.items():
            assert read_pool(store, job_id).count == len(ids) <= 7
            for position, ask_id in enumerate(ids):
                place = place_of(store, str(ask_id))
                assert (place.job_id, place.position) == (job_id, position)
        assert store.asks.read_cost("default", LIMITS.window) == len(committed)
        assert len(pools) < len(committed) / 3


class TestACostLimitInATransaction:
    def test_counts_what_the_transaction_asks(self, caller: Caller, store: Store) -> None:
        add_ask(store, "a", reserved=40, limits=DEAR)
        add_ask(caller.store, "b", reserved=40, limits=DEAR)
        with pytest.raises(BudgetSpent):
            add_ask(caller.store, "c", reserved=21, limits=DEAR)
        add_ask(caller.store, "d", reserved=20, limits=DEAR)
        caller.commit()
        assert store.asks.read_cost("default", DEAR.window) == 100

    def test_holds_when_it_commits(self, caller: Caller, store: Store) -> None:
        add_ask(caller.store, "mine", reserved=60, limits=DEAR)
        add_ask(store, "theirs", reserved=60, limits=DEAR)
        with pytest.raises(psycopg.errors.CheckViolation, match="ask_max_cost of the pool default are left"):
            caller.commit()
        assert store.asks.read_places(["mine"]) == [None]
        assert store.asks.read_cost("default", DEAR.window) == 60


class TestWhatIsStored:
    def test_is_removed_some_time_after_it_has_expired(self, database: Database, store: Store) -> None:
        for ask_id in "abcd":
            add_ask(store, ask_id, new_id=ask_id, key=ask_id[0], reserved=1, limits=DEAR._replace(max_requests=1))
        store.pools.take_due(10, LONG)
        for job_id in "abc":
            store.pools.finish_sealing(job_id)
        create_bare_job(store, JOB)
        store.message_queue.add_requests(JOB, 0, [0])
        store.leases.acquire_lease(Unit(JOB, 0, 0), 0, "me", LONG)
        assert take_request(store, 0, limit=10).state == "taken"
        database.pass_time(200 * 86_400)
        store.storage.forget_expired()
        assert [job_id for job_id, _ in store.pools.list_pools()] == ["d"], "it is no job yet"
        left = {name: database.run(f"SELECT * FROM claude_batch.{name}") for name in SWEPT}
        assert {name: rows for name, rows in left.items() if rows} == {}
        assert database.run("SELECT ask_id FROM claude_batch.pool_asks") == [("d",)]

    def test_is_encrypted_where_there_is_a_key(self, database: Database) -> None:
        store: Store = database.open_store(keys=[KEY])  # type: ignore[assignment]
        own = {"canvas": '{"chain":["secret"]}', "params": b'{"text":"secret"}'}
        job_id = add_ask(store, "a", **own).job_id  # type: ignore[arg-type]
        assert place_of(store, "a", with_canvas=True).canvas == own["canvas"]
        assert [ask and ask.params for some in store.pools.read_asks(job_id) for ask in some] == [own["params"]]
        [(params, canvas)] = database.run(
            "SELECT params, canvas FROM claude_batch.pool_asks JOIN claude_batch.asks USING (ask_id)"
        )
        assert b"secret" not in bytes(params)  # type: ignore[call-overload]
        assert "secret" not in str(canvas)
        without: Store = database.open_store()  # type: ignore[assignment]
        assert [ask and ask.id for some in without.pools.read_asks(job_id, params=False) for ask in some] == ["a"]
        assert place_of(without, "a").job_id == job_id
        with pytest.raises(KeyMissing):
            without.asks.read_places(["a"], with_canvas=True)
        with pytest.raises(KeyMissing):
            list(without.pools.read_asks(job_id))


def test_ends_of_asks_are_told_however_long_their_ids_are(store: Store) -> None:
    ids = [f"{number}-" + 'ü"' * 300 for number in range(40)]
    for ask_id in (*ids, "x" * 9000):
        add_ask(store, ask_id)
    with store.asks.listen() as listener:
        assert all(store.asks.withdraw([*ids, "x" * 9000], LONG))
        found: list[str] = []
        while len(found) < len(ids) and (some := listener.wait(10.0)):
            found += some
    assert found == ids, "one that fits into no notification is found by read_places"
