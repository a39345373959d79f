"""The PostgreSQL store does the same through PgBouncer in transaction mode: it keeps nothing in a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from claude_batch_tasks.store.postgres import PostgresStore
from claude_batch_tasks.store.postgres.sources import Pool
from tests.postgres_server import PgBouncer
from tests.unit.store.postgres.conftest import Database
from tests.unit.store.postgres.test_contract import TestOnPostgres as OnPostgres


class TestThroughPgBouncer(OnPostgres):
    """Its main parts."""

    TestRetries = TestJobSearch = TestBatchIds = TestBudget = TestInFlight = TestStatistics = TestPresence = None
    TestOutages = TestHistory = TestRecords = TestDeliveries = TestInspection = None

    class TestAsks(OnPostgres.TestAsks):  # type: ignore[name-defined, misc]
        """No notification gets through: who waits for an ask learns its end a little later, by ``read_places``."""

        TestListening = None

        class TestWithdrawing(OnPostgres.TestAsks.TestWithdrawing):  # type: ignore[name-defined, misc]
            test_is_told = test_ends_asks_in_a_job_where_that_is_wanted = None

    @pytest.fixture
    def database(
        self, common_database: Database, pgbouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Database]:
        monkeypatch.setattr(common_database, "url", pgbouncer.url_of(common_database.url))
        yield common_database
        common_database.empty()


def test_a_pooler_lets_no_wakeup_through(database: Database, pgbouncer: PgBouncer) -> None:
    """Then workers ask every second, as with a Redis."""
    for url, wakes in ((database.url, True), (pgbouncer.url_of(database.url), False)):
        pool = Pool(url, "a server")
        with PostgresStore(pool, database.schema).wakeups.listen() as listener:
            assert (listener is not None) is wakes
        pool.close()
