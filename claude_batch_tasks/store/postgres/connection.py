"""What the parts of a PostgreSQL store have in common: connections, the clock, the cipher, how outages are reported."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import psycopg
from psycopg import errors as sql_errors
from psycopg.pq import TransactionStatus

from claude_batch_tasks.errors import BatchTasksError, StoreUnavailable
from claude_batch_tasks.store.answering import make_answering
from claude_batch_tasks.store.apart import is_apart, stay_apart
from claude_batch_tasks.store.clock import StoreClock
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.packing import Packer
from claude_batch_tasks.store.postgres.borrowed import lent
from claude_batch_tasks.store.postgres.borrowed.views import view_connection
from claude_batch_tasks.store.postgres.error_texts import describe
from claude_batch_tasks.store.postgres.migrations import check_version, describe_unmigrated
from claude_batch_tasks.store.postgres.sources import Connected, ConnectionSource as ConnectionSource
from claude_batch_tasks.store.postgres.statements import SCHEMA, read_queries, with_schema

#: What says that the server cannot answer now, or not this user: an outage. Any other error is a fault of ours.
OUTAGES = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
    sql_errors.InsufficientPrivilege,
)

#: What says that the schema is not there, or is that of an earlier release.
_UNMIGRATED = (
    sql_errors.UndefinedTable,
    sql_errors.UndefinedFunction,
    sql_errors.UndefinedColumn,
    sql_errors.InvalidSchemaName,
)

#: The flag that has the identity of the store, and the seconds for which it stays: 30 years.
_IDENTITY, _LONG = "identity", 1e9


class Connection:
    """A database that holds a store.

    Args:
        source: lends connections.
        schema: the name of the store's schema.
        cipher: encrypts chunks.
    """

    def __init__(self, source: ConnectionSource, schema: str, cipher: Cipher) -> None:
        self.source = source
        self.schema = schema
        self.cipher = cipher
        self.packer = Packer(cipher)
        self.clock = StoreClock(self._read_time)
        self._opened = False
        #: Whether a statement by itself is isolated more strictly than the store's functions are made for.
        self._isolates = False

    def open(self) -> None:
        """See, once, that this release can use the store."""
        if not self._opened:
            with self.lend() as connection:
                check_version(connection, self.schema, self.source.where)
                self._learn_isolation(connection)
            self._opened = True

    def open_marked(self) -> None:
        """Use the store although it is marked: its jobs are copied."""
        try:
            with self.lend() as connection:
                check_version(connection, self.schema, self.source.where, marked=True)
                self._learn_isolation(connection)
        except OUTAGES as exc:
            raise self.unavailable(exc) from exc
        self._opened = True

    def _learn_isolation(self, connection: Connected) -> None:
        [(usual,)] = connection.execute("SHOW default_transaction_isolation").fetchall()
        self._isolates = usual != "read committed"

    @contextmanager
    def lend(self) -> Iterator[Connected]:
        """Lend a connection. In the middle of a caller's transaction, an error leaves that transaction usable."""
        with self._connect() as connection:
            if self._isolates or connection.info.transaction_status == TransactionStatus.INTRANS:
                with _begin(connection):
                    yield connection
            else:
                yield connection

    @contextmanager
    def transaction(self) -> Iterator[Connected]:
        """Lend a connection for one transaction. Keep it short, and ask nobody else in the middle of it."""
        with self._connect() as connection, _begin(connection):
            yield connection

    def in_transaction(self) -> bool:
        """Return whether what this thread does is part of a transaction of the caller's."""
        return lent.given() is not None or (not is_apart() and self.source.in_transaction())

    @contextmanager
    def _connect(self) -> Iterator[Connected]:
        """Lend a connection that the store may use now; one whose server has become read-only is not used again."""
        with self._choose() as connection:
            try:
                yield connection
            except sql_errors.ReadOnlySqlTransaction:
                if not self.in_transaction():
                    connection.close()
                raise

    def _choose(self) -> AbstractContextManager[Connected]:
        """Lend the connection that the caller gave, else one of the source; while apart, one in no transaction."""
        if (given := lent.given()) is not None:
            return nullcontext(view_connection(given))
        if is_apart() and self.source.in_transaction():
            return self.source.listen()
        return self.source.connect()

    def now(self) -> float:
        """Return the time by the database's clock, epoch seconds."""
        return self.clock.now()

    def is_first(self, name: str, ttl: float) -> bool:
        """Return whether the caller is the first of all who ask for that name within ``ttl`` seconds."""
        return bool(self.call("set_flag", f"first:{name}", b"", ttl))

    def read_identity(self) -> str:
        """Return a name of this store, which was made at random when it was first asked for."""
        with stay_apart():  # a transaction of the caller's may be rolled back
            self.call("set_flag", _IDENTITY, secrets.token_hex(8).encode(), _LONG)
            return bytes(self.call("get_flag", _IDENTITY)).decode()

    def has_job(self, job_id: str) -> bool:
        """Return whether a job is there."""
        return self.call("find_job", job_id) is not None

    def call(self, function: str, *args: Any) -> Any:
        """Call a function of the schema, and return its one value."""
        with self.lend() as connection:
            return self.call_on(connection, function, *args)

    def call_on(self, connection: Connected, function: str, *args: Any) -> Any:
        """Call a function on a connection that was lent, and return its one value."""
        marks = ", ".join(["%s"] * len(args))
        row = connection.execute(with_schema(f"SELECT claude_batch.{function}({marks})", self.schema), args).fetchone()
        assert row is not None
        return row[0]

    def call_row(self, function: str, *args: Any) -> tuple[Any, ...]:
        """Call a function that has several values (OUT parameters), and return them."""
        with self.lend() as connection:
            return self.call_row_on(connection, function, *args)

    def call_row_on(self, connection: Connected, function: str, *args: Any) -> tuple[Any, ...]:
        """Call a function on a connection that was lent, and return its values."""
        marks = ", ".join(["%s"] * len(args))
        statement = with_schema(f"SELECT * FROM claude_batch.{function}({marks})", self.schema)
        row: tuple[Any, ...] | None = connection.execute(statement, args).fetchone()
        assert row is not None
        return row

    def channel(self, name: str) -> str:
        """Return the channel of that name for notifications of this schema: a server takes 63 bytes at most."""
        return f"{SCHEMA}:{name}:{hashlib.sha256(self.schema.encode()).hexdigest()[:16]}"

    def unavailable(self, exc: Exception) -> BatchTasksError:
        """Return the error for what prevented the database from answering, or from storing a value."""
        if isinstance(exc, _UNMIGRATED):
            return describe_unmigrated(self.schema, self.source.where, exc)
        where = f"the store at {self.source.where}"
        if isinstance(exc, psycopg.DataError):
            return BatchTasksError(f"{where} cannot store such a value: {describe(exc)}. Nothing was stored")
        if isinstance(exc, sql_errors.InsufficientPrivilege):
            return StoreUnavailable(
                f"{where} refused this to its user: {describe(exc)}. `claude-batch doctor` prints the GRANTs that are "
                "missing"
            )
        return StoreUnavailable(f"{where} did not answer: {type(exc).__name__}: {describe(exc)}")

    def _read_time(self) -> float:
        try:
            self.open()
            return float(self.call("clock"))
        except (*OUTAGES, *_UNMIGRATED) as exc:
            raise self.unavailable(exc) from exc


class Part:
    """A part of a PostgreSQL store: its statements are those of the file in ``sql/queries`` that ``queries`` names."""

    queries = ""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sql = read_queries(self.queries, connection.schema) if self.queries else {}

    def _fetch(self, query: str, *, binary: bool = False, **params: Any) -> list[tuple[Any, ...]]:
        """Run a statement, and return its rows.

        Args:
            binary: values come in PostgreSQL's binary form: as text, bytea takes twice the bytes.
        """
        with self._connection.lend() as connection:
            return connection.execute(self._sql[query], params, binary=binary).fetchall()

    def _fetch_row(self, query: str, *, binary: bool = False, **params: Any) -> tuple[Any, ...] | None:
        """Run a statement that has one row at most, and return that."""
        with self._connection.lend() as connection:
            row: tuple[Any, ...] | None = connection.execute(self._sql[query], params, binary=binary).fetchone()
            return row

    def _fetch_value(self, query: str, *, binary: bool = False, **params: Any) -> Any:
        """Run a statement that has one value at most, and return that; None: no row."""
        row = self._fetch_row(query, binary=binary, **params)
        return None if row is None else row[0]

    def _run(self, query: str, **params: Any) -> int:
        """Run a statement, and return how many rows it changed."""
        with self._connection.lend() as connection:
            return connection.execute(self._sql[query], params).rowcount


def _begin(connection: Connected) -> AbstractContextManager[Any]:
    """Return a transaction in which each statement sees what was committed before it; in another one, a savepoint."""
    if connection.info.transaction_status == TransactionStatus.IDLE:
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    return connection.transaction()


def in_transaction(connection: Connected) -> bool:
    """Return whether what is done on a connection that was lent is part of a larger transaction."""
    return not connection.autocommit or connection.info.transaction_status == TransactionStatus.INTRANS


answering = make_answering(*OUTAGES, *_UNMIGRATED, psycopg.DataError)
