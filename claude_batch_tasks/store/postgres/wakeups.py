"""Wake-ups from PostgreSQL, by LISTEN and NOTIFY."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import sql

from claude_batch_tasks.store.interface import WakeupListener
from claude_batch_tasks.store.postgres.connection import Connection, Part, answering
from claude_batch_tasks.store.postgres.sources import Connected
from claude_batch_tasks.store.postgres.statements import SCHEMA, with_schema

#: The channel that ``announce_due`` and ``announce_pool`` notify; like them, it has the name of the schema.
CHANNEL = f"{SCHEMA}:due"

#: Seconds within which a notification must come where a pooler stands between, or none ever will.
_TRIAL = 2.0


class PostgresWakeups(Part):
    """``interface.Wakeups`` on a PostgreSQL server, with a connection of its own."""

    @contextmanager
    def listen(self) -> Iterator[WakeupListener | None]:
        with self._connect() as listening:
            listener = PostgresWakeupListener(self._connection, listening)
            yield listener if listener.subscribe() else None

    @contextmanager
    @answering
    def _connect(self) -> Iterator[Connected]:
        with self._connection.source.listen() as listening:
            yield listening


class PostgresWakeupListener(Part):
    """``interface.WakeupListener`` on a PostgreSQL server."""

    def __init__(self, connection: Connection, listening: Connected) -> None:
        super().__init__(connection)
        self._listening = listening

    @answering
    def subscribe(self) -> bool:
        """Subscribe; return False if no notification gets through to this connection."""
        if is_pooled(self._listening) and not self._gets_through():
            return False
        self._listen_to(with_schema(CHANNEL, self._connection.schema))
        return True

    @answering
    def wait(self, seconds: float) -> bool:
        # To its end: what came together with the first notification is the same wake-up.
        return bool(list(self._listening.notifies(timeout=seconds, stop_after=1)))

    def _gets_through(self) -> bool:
        """Return whether the pooler leaves this connection its server: else notifications end at somebody else's."""
        channel = f"{SCHEMA}:{uuid.uuid4().hex}"
        self._listen_to(channel)
        with self._connection.lend() as other:
            other.execute("SELECT pg_notify(%s, '')", [channel])
        found = list(self._listening.notifies(timeout=_TRIAL, stop_after=1))
        self._listening.execute("UNLISTEN *")
        return bool(found)

    def _listen_to(self, channel: str) -> None:
        self._listening.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))


def is_pooled(connection: Connected) -> bool:
    """Return whether a pooler stands between: it, and not the server, has greeted this connection."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row is None or row[0] != connection.info.backend_pid
