"""The PostgreSQL store does what every store must do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from claude_batch_tasks import steady
from claude_batch_tasks.embedded import free_port
from claude_batch_tasks.store import Store
from claude_batch_tasks.store.postgres import PostgresStore
from claude_batch_tasks.store.postgres.sources import Pool
from tests.unit.store.contract import StoreContract
from tests.unit.store.contract.samples import OpenStore, PassTime
from tests.unit.store.postgres.conftest import Database


def list_contents(database: Database) -> Callable[[], set[str]]:
    """Return what names all that a database has of jobs."""
    tables = [
        str(name) for (name,) in database.run(f"SELECT tablename FROM pg_tables WHERE schemaname = '{database.schema}'")
    ]
    # Neither the test's own, nor what is common to all jobs.
    tables = {*tables} - {"passed", "schema_version", "paces", "pace_calls", "pauses"}
    # Where an ask is, is known by the ask.
    shown = {name: "t.ask_id" if name == "asks" else "t::text" for name in tables}
    return lambda: {
        f"{name}: {row}"
        for name, what in shown.items()
        for (row,) in database.run(f"SELECT {what} FROM claude_batch.{name} t")
    }


class TestOnPostgres(StoreContract):
    @pytest.fixture
    def database(self, common_database: Database) -> Iterator[Database]:
        yield common_database
        common_database.empty()

    @pytest.fixture
    def open_store(self, database: Database) -> OpenStore:
        return database.open_store

    @pytest.fixture
    def pass_time(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> PassTime:
        monotonic_now = steady.monotonic_now
        monkeypatch.setattr(steady, "monotonic_now", lambda: monotonic_now() + database.passed)
        return database.pass_time

    @pytest.fixture
    def contents(self, database: Database) -> Callable[[], set[str]]:
        return list_contents(database)

    @pytest.fixture
    def unreachable_store(self) -> Store:
        return PostgresStore(Pool(f"postgresql://127.0.0.1:{free_port()}/none", "no server"))
