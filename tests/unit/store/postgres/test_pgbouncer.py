"""The PostgreSQL store does the same through PgBouncer in transaction mode: it keeps nothing in a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from claude_batch_tasks.store import Store
from claude_batch_tasks.store.postgres import PostgresStore
from claude_batch_tasks.store.postgres.sources import Pool
from tests.postgres_server import PgBouncer
from tests.unit.store.contract.samples import OpenStore
from tests.unit.store.postgres import conftest
from tests.unit.store.postgres.conftest import Database
from tests.unit.store.postgres.test_contract import TestOnPostgres as OnPostgres


class TestThroughPgBouncer(OnPostgres):
    """Its main parts."""

    TestRetries = TestJobSearch = TestBatchIds = TestBudget = TestInFlight = TestStatistics = TestPresence = None
    TestOutages = TestHistory = TestRecords = TestDeliveries = None

    @pytest.fixture
    def database(self, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
        monkeypatch.setattr(conftest, "URL", postgres_url)
        found = Database()
        yield found
        found.drop()

    @pytest.fixture
    def open_store(self, database: Database, pgbouncer: PgBouncer) -> Iterator[OpenStore]:
        pools: list[Pool] = []

        def open_store() -> Store:
            pools.append(Pool(pgbouncer.url_of(database.url), "the pooler"))
            return PostgresStore(pools[-1], database.schema)

        yield open_store
        for pool in pools:
            pool.close()


def test_a_pooler_lets_no_wakeup_through(postgres_url: str, pgbouncer: PgBouncer) -> None:
    """Then workers ask every second, as with a Redis."""
    for url, wakes in ((postgres_url, True), (pgbouncer.url_of(postgres_url), False)):
        pool = Pool(url, "a server")
        with pool.connect() as connection:
            conftest.migrate(connection, "claude_batch")
        with PostgresStore(pool).wakeups.listen() as listener:
            assert (listener is not None) is wakes
        pool.close()
