"""A database with the store's schema, empty, and a clock that can be moved."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress

import psycopg
import pytest
from psycopg import conninfo

from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.postgres import PostgresStore
from claude_batch_tasks.store.postgres.migrations import LEAST, VERSION, migrate
from claude_batch_tasks.store.postgres.sources import Pool
from claude_batch_tasks.store.postgres.statements import with_schema
from tests.postgres_server import PostgresServer

#: Puts seconds that have passed on top of the time, as every function of the store sees it.
_MOVABLE_CLOCK = """
CREATE TABLE claude_batch.passed (seconds double precision NOT NULL);
INSERT INTO claude_batch.passed VALUES (0);
CREATE OR REPLACE FUNCTION claude_batch.clock() RETURNS double precision LANGUAGE sql VOLATILE AS $$
  SELECT extract(epoch FROM clock_timestamp())::double precision + (SELECT seconds FROM claude_batch.passed)
$$;
"""


class Database:
    """A schema of its own in a database."""

    def __init__(self, url: str) -> None:
        self.url = url
        #: Seconds that have passed.
        self.passed = 0.0
        self.schema = f"test_{uuid.uuid4().hex[:12]}"
        self._connection = psycopg.connect(url, autocommit=True, options="-c lock_timeout=10s")
        migrate(self._connection, self.schema)
        self._stores: list[Pool] = []
        self.run(_MOVABLE_CLOCK)

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement that calls the schema ``claude_batch``."""
        cursor = self._connection.execute(with_schema(statement, self.schema))  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []

    def pass_time(self, seconds: float) -> None:
        """Move the clock that all functions of the schema see."""
        self.passed += seconds
        self.run(f"UPDATE claude_batch.passed SET seconds = {self.passed!r}")

    def open_store(self, options: str = "", keys: Sequence[str] = ()) -> PostgresStore:
        """Open the store with connections of its own.

        Args:
            options: of the server, for these connections.
            keys: encryption keys.
        """
        url = conninfo.make_conninfo(self.url, options=options) if options else self.url
        pool = Pool(url, "the test's database")
        self._stores.append(pool)
        return PostgresStore(pool, self.schema, Cipher(keys))

    def close_stores(self) -> None:
        """Close the connections of all stores that were opened."""
        while self._stores:
            self._stores.pop().close()

    def empty(self) -> None:
        """Remove all rows, and set the clock right: that takes a hundredth of the time in which a schema is made."""
        self.close_stores()
        found = self.run(f"SELECT tablename FROM pg_tables WHERE schemaname = '{self.schema}'")
        names = sorted({str(name) for (name,) in found} - {"passed", "schema_version"})
        self.run("; ".join(f"DELETE FROM claude_batch.{name}" for name in names))
        self.run(f"UPDATE claude_batch.schema_version SET version = {VERSION}, least = {LEAST}")
        self.pass_time(-self.passed)

    def drop(self) -> None:
        """Remove the schema, and close all connections."""
        self.close_stores()
        self.run("DROP SCHEMA claude_batch CASCADE")
        self._connection.close()


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[Database]:
    """A schema that the test may change."""
    found = Database(postgres_server.url())
    yield found
    found.drop()


@pytest.fixture(scope="session")
def common_database(postgres_server: PostgresServer) -> Iterator[Database]:
    """A schema that many tests use, one after the other."""
    found = Database(postgres_server.url())
    yield found
    with suppress(psycopg.Error):  # a test that failed may hold a lock still, and the server ends, too
        found.drop()
