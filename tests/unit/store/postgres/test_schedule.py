"""What PostgreSQL has to do for messages that are due."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import park_batch
from tests.unit.store.postgres.conftest import Database


@pytest.fixture
def store(database: Database) -> Store:
    return database.open_store()


class TestMessagesThatAreDue:
    @pytest.fixture
    def connection(self, database: Database) -> Iterator[Any]:
        with psycopg.connect(database.url) as connection:
            yield connection

    def test_are_taken_without_the_records_of_all_that_wait(
        self, database: Database, store: Store, connection: Any
    ) -> None:
        for number in range(30):
            park_batch(store, number, 0.0)
        with store.transactions.join(connection):
            assert len(store.schedule.take_due(1)[0]) == 1
        used = "SELECT coalesce(sum(seq_scan + idx_scan), 0) FROM pg_stat_xact_user_tables WHERE relid = %s::regclass"
        [(scans,)] = connection.execute(used, [f'"{database.schema}".records']).fetchall()
        assert scans == 0
        [(scans,)] = connection.execute(used, [f'"{database.schema}".units']).fetchall()
        assert scans > 0
