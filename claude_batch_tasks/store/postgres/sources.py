"""Where a store gets its connections: a pool of its own, or those of a framework or an engine."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol, TypeAlias

import psycopg
from psycopg.pq import TransactionStatus

from claude_batch_tasks import steady

Connected: TypeAlias = "psycopg.Connection[Any]"

#: Seconds for which a connection may take to be made, and a call waits for one of the pool.
_CONNECT_SECONDS = 5

#: Connections of one process at most: a worker's threads, and those of a web server's process.
_MOST_CONNECTIONS = 10

#: Seconds after which an unused connection is closed.
_MAX_IDLE = 300.0

#: A server that is gone and says nothing is noticed within half a minute. They stand in front of what a URL says.
_NOTICE_SILENCE = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


class ConnectionSource(Protocol):
    """Where a store gets its connections."""

    where: str
    """What error messages call the database; no password."""

    def connect(self) -> AbstractContextManager[Connected]:
        """Lend a connection to this thread, in autocommit mode or in the middle of a transaction of the caller's."""

    def in_transaction(self) -> bool:
        """Return whether what ``connect`` lends to this thread is in the middle of a transaction of the caller's."""

    def listen(self) -> AbstractContextManager[Connected]:
        """Open a connection of its own, in autocommit mode, for notifications."""


class Pool:
    """Connections of this process to the database of a URL, which are made when they are needed.

    A server that refuses connections is noticed at once, and one that has closed them before a statement is sent.
    """

    def __init__(self, url: str, where: str) -> None:
        self.where = where
        # No prepared statements: a pooler between us and the server gives each transaction another connection.
        self._options: dict[str, Any] = {
            "autocommit": True,
            "prepare_threshold": None,
            "connect_timeout": _CONNECT_SECONDS,
            "client_encoding": "UTF8",
            "application_name": f"claude-batch-tasks:{os.getpid()}",
            **_NOTICE_SILENCE,
        }
        self._url = url
        self._unused = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        #: Open connections that nobody uses, and since when; the last was used last.
        self._idle: deque[tuple[Connected, float]] = deque()

    @contextmanager
    def connect(self) -> Iterator[Connected]:
        if not self._unused.acquire(timeout=_CONNECT_SECONDS):
            raise psycopg.OperationalError(f"all {_MOST_CONNECTIONS} connections of this process are in use")
        try:
            connection = self._take_idle() or psycopg.connect(self._url, **self._options)
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            self._unused.release()

    def in_transaction(self) -> bool:
        """Return False: a connection of the pool is in no transaction of the caller's."""
        return False

    @contextmanager
    def listen(self) -> Iterator[Connected]:
        with psycopg.connect(self._url, **self._options) as connection:
            yield connection

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with suppress(IndexError):
            while True:
                self._idle.pop()[0].close()

    def _take_idle(self) -> Connected | None:
        with suppress(IndexError):
            while True:
                connection, _ = self._idle.pop()
                if not _is_spent(connection):
                    return connection
                connection.close()
        return None

    def _give_back(self, connection: Connected) -> None:
        if connection.info.transaction_status != TransactionStatus.IDLE:
            connection.close()
            return
        now = steady.monotonic_now()
        self._idle.append((connection, now))
        with suppress(IndexError):
            while self._idle[0][1] < now - _MAX_IDLE:
                self._idle.popleft()[0].close()


def _is_spent(connection: Connected) -> bool:
    """Return whether the server has closed an idle connection, or has sent something for which nobody has waited."""
    if connection.closed:
        return True
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    return bool(poller.poll(0))
