"""Whatever a server, a database or a session is set to: the store works as ever, or says at once that it cannot."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

import psycopg
import pytest

from claude_batch_tasks.errors import BatchTasksError, InvalidSettings, StoreUnavailable
from claude_batch_tasks.pool_records import PoolLimits
from claude_batch_tasks.store import Store
from claude_batch_tasks.store.postgres import PostgresStore
from claude_batch_tasks.store.postgres.sources import Pool
from tests.postgres_server import PostgresServer
from tests.unit.store.contract.samples import (
    BATCH,
    JOB,
    LIMITS,
    LONG,
    SENDER,
    add_ask,
    answer_call,
    batch_record,
    call_at_once,
    create_bare_job,
    job_record,
    park_batch,
    read_job,
    take_request,
)
from tests.unit.store.postgres.conftest import Database

#: More than any column of numbers can hold: people write it for "no limit".
ENDLESS = 10**20


@pytest.fixture
def store(database: Database) -> Store:
    return database.open_store()


class TestAConnectionOfTheCallers:
    @pytest.mark.parametrize(
        "setting", ["TimeZone = 'Asia/Kathmandu'", "DateStyle = 'German, DMY'", "extra_float_digits = -10"]
    )
    def test_is_to_the_same_database_whatever_its_session_is_set_to(
        self, database: Database, store: Store, setting: str
    ) -> None:
        with psycopg.connect(database.url) as connection:
            connection.execute(f"SET {setting}")  # type: ignore[call-overload]
            with store.transactions.join(connection):
                create_bare_job(store, JOB)
        assert read_job(store).nonce == "n"


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
class TestAServerThatIsolatesMoreThanUsual:
    """Each statement sees what was committed before it nevertheless, and nobody is refused because of others."""

    @pytest.fixture
    def strict(self, database: Database, level: str) -> Any:
        escaped = level.replace(" ", "\\ ")
        options = f"-c default_transaction_isolation={escaped}"
        return lambda: database.open_store(options)

    def test_takes_asks_of_many_at_once(self, strict: Any) -> None:
        ids = [f"ask-{number}" for number in range(80)]
        places = call_at_once(strict, lambda store, ask_id: add_ask(store, ask_id), ids)
        assert len({(place.job_id, place.position) for place in places}) == len(ids)
        assert len({place.job_id for place in places}) == 1

    def test_keeps_to_a_cost_limit(self, strict: Any) -> None:
        limits = LIMITS._replace(max_cost=100, window=3600.0)

        def ask(store: Store, number: int) -> bool:
            try:
                add_ask(store, f"ask-{number}", reserved=10, limits=limits)
            except Exception as exc:  # noqa: BLE001 - counted
                return type(exc).__name__  # type: ignore[return-value]
            return True

        assert Counter(call_at_once(strict, ask, range(40))) == {True: 10, "BudgetSpent": 30}

    def test_makes_one_job_of_an_id(self, strict: Any) -> None:
        def create(store: Store, _: int) -> bool:
            record = job_record(nonce="n", requests=1, batches=1)
            return store.jobs.create_job(JOB, record, [batch_record()], LONG, staged=False)

        assert Counter(call_at_once(strict, create, range(40))) == {True: 1, False: 39}

    def test_shares_a_quota(self, strict: Any) -> None:
        create_bare_job(strict(), JOB, batches=40)
        quotas = call_at_once(strict, lambda store, batch: store.budget.reserve_quota(JOB, batch, 10, 100), range(40))
        assert sum(quotas) == 100

    def test_gives_each_due_unit_to_one(self, strict: Any) -> None:
        units = {park_batch(strict(), number, 0.0) for number in range(40)}
        found = call_at_once(strict, lambda store, _: store.schedule.take_due(2)[0], range(40))
        assert Counter(unit for some in found for unit in some) == Counter(units)


class TestAServerThatBecomesReadOnly:
    def test_is_not_used_by_old_connections_when_it_is_over(self, postgres_server: PostgresServer) -> None:
        url = postgres_server.make_database()
        database, name = Database(url), url.rpartition("/")[2]
        store: Store = database.open_store()
        create_bare_job(store, JOB)
        postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        changed: Store = database.open_store()
        with pytest.raises(StoreUnavailable, match="read-only"):
            changed.jobs.update_job(JOB, label="a")
        postgres_server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        assert changed.jobs.update_job(JOB, label="a")
        database.drop()
        postgres_server.drop_database(url)


class TestTexts:
    @pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
    def test_a_database_that_cannot_hold_all_is_refused(self, postgres_server: PostgresServer, encoding: str) -> None:
        name = f"test_{uuid.uuid4().hex[:12]}"
        postgres_server.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
        pool = Pool(postgres_server.url(name), "the test's database")
        store: Store = PostgresStore(pool)  # type: ignore[assignment]
        for use in (store.check_schema, store.schema.migrate, lambda: create_bare_job(store, JOB)):
            with pytest.raises(InvalidSettings, match=f"encoding {encoding}.*ENCODING 'UTF8'"):
                use()
        pool.close()
        postgres_server.drop_database(postgres_server.url(name))

    def test_are_read_whatever_the_client_s_encoding_is(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
        store: Store = database.open_store()
        create_bare_job(store, "jób-日本", label="日本")
        assert read_job(store, "jób-日本").label == "日本"


class TestLimitsThatAreEndless:
    def test_are_the_most_that_there_can_be(self, store: Store) -> None:
        create_bare_job(store, JOB)
        store.leases.acquire_lease(SENDER, 0, "me", LONG)
        store.message_queue.add_requests(JOB, 0, range(2))
        assert store.budget.reserve_quota(JOB, 0, 5, ENDLESS) == 5
        assert store.budget.reserve_cost(BATCH, 0, 1, 2, ENDLESS) == "yes"
        taken = take_request(store, cap=ENDLESS, limit=ENDLESS, total=ENDLESS)
        assert taken.state == "taken"
        answer_call(store, 0, taken, cap=ENDLESS)

    def test_of_a_pool(self, store: Store) -> None:
        limits = PoolLimits(max_requests=ENDLESS, max_bytes=ENDLESS, max_wait=60.0, max_cost=ENDLESS, window=60.0)
        places = [add_ask(store, ask_id, limits=limits, reserved=5) for ask_id in ("a", "b")]
        assert places[0].job_id == places[1].job_id


def test_an_id_that_no_text_can_hold_is_refused_in_words(store: Store) -> None:
    for act in (lambda: create_bare_job(store, "a\0b"), lambda: add_ask(store, "a\0b")):
        with pytest.raises(BatchTasksError, match=r"cannot store such a value: .*NUL.* Nothing was stored"):
            act()
