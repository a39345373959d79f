"""The PostgreSQL database itself: transactions of the caller's, and the schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import errors as sql_errors

from claude_batch_tasks.errors import BatchTasksError, InvalidSettings
from claude_batch_tasks.store.apart import stay_apart
from claude_batch_tasks.store.postgres import migrations
from claude_batch_tasks.store.postgres.borrowed import lent
from claude_batch_tasks.store.postgres.borrowed.views import view_connection
from claude_batch_tasks.store.postgres.connection import OUTAGES, Connection, Part, answering
from claude_batch_tasks.store.postgres.sources import Connected


class PostgresTransactions(Part):
    """``interface.Transactions`` on PostgreSQL."""

    queries = "database"

    def current(self) -> str | None:
        return self._read_name() if self._connection.in_transaction() else None

    @contextmanager
    def join(self, connection: Any) -> Iterator[None]:
        given = lent.find_connection(connection)
        self._check_database(given)
        with lent.use_connection(given):
            yield

    @answering
    def _read_name(self) -> str:
        return str(self._fetch_value("name_transaction"))

    @answering
    def _check_database(self, given: Connected) -> None:
        """Refuse a connection to another database, of which no worker would find the job."""
        (theirs,) = view_connection(given).execute(self._sql["name_database"]).fetchone() or (None,)
        with lent.use_connection(None), stay_apart():
            ours = self._fetch_value("name_database")
        if theirs != ours:
            raise InvalidSettings(
                f"the connection is to the database {given.info.dbname!r}, and not to that of the store "
                f"({self._connection.source.where}): no worker would find the job. Nothing was stored or sent"
            )


class PostgresSchema:
    """``interface.Schema`` on PostgreSQL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def is_current(self) -> bool:
        with self._lend() as connection:
            return not migrations.list_statements(connection, self._connection.schema)

    def migrate(self) -> bool:
        with self._lend() as connection:
            return migrations.migrate(connection, self._connection.schema)

    def list_statements(self) -> Iterator[str]:
        with self._lend() as connection:
            statements = migrations.list_statements(connection, self._connection.schema)
        return iter(statements)

    def drop(self) -> int:
        with self._lend() as connection:
            return migrations.drop(connection, self._connection.schema)

    def describe_rights(self) -> str:
        rights = migrations.list_rights(self._connection.schema, "app")
        about = '-- For each user of workers and applications (here "app"). The user who owns the schema runs them.'
        return "\n".join((about, *rights))

    @contextmanager
    def _lend(self) -> Iterator[Connected]:
        """Lend a connection, whether or not the schema is there."""
        where = self._connection.source.where
        try:
            with self._connection.lend() as connection:
                yield connection
        except sql_errors.InsufficientPrivilege as exc:
            raise BatchTasksError(
                f"the user of the store at {where} may not do this: {exc.diag.message_primary}. Nothing was "
                "changed. Run the command as a user who may create schemas in the database, or who owns the schema; "
                "or let such a user run what `claude-batch migrate --sql` prints"
            ) from None
        except OUTAGES as exc:
            raise self._connection.unavailable(exc) from exc
