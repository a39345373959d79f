"""Where a store gets its connections: a pool of its own, or those of a framework or an engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeAlias

import psycopg
from psycopg_pool import ConnectionPool

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
    """Connections of this process to the database of a URL, which are made when they are needed."""

    def __init__(self, url: str, where: str) -> None:
        self.where = where
        # No prepared statements: a pooler between us and the server gives each transaction another connection.
        self._options: dict[str, Any] = {
            "autocommit": True,
            "prepare_threshold": None,
            "connect_timeout": _CONNECT_SECONDS,
            "application_name": f"claude-batch-tasks:{os.getpid()}",
            **_NOTICE_SILENCE,
        }
        self._url = url
        self._pool: ConnectionPool[Connected] = ConnectionPool(
            url,
            kwargs=self._options,
            min_size=0,
            max_size=_MOST_CONNECTIONS,
            max_idle=_MAX_IDLE,
            timeout=_CONNECT_SECONDS,
            open=False,
            name="claude-batch-store",
        )

    @contextmanager
    def connect(self) -> Iterator[Connected]:
        self._pool.open()
        with self._pool.connection() as connection:
            yield connection

    def in_transaction(self) -> bool:
        """Return False: a connection of the pool is in no transaction of the caller's."""
        return False

    @contextmanager
    def listen(self) -> Iterator[Connected]:
        with psycopg.connect(self._url, **self._options) as connection:
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()
