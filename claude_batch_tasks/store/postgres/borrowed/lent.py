"""The connection that an application gives, to have what the store does in its transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.store.postgres.sources import Connected

_KINDS = "a psycopg 3 connection, or a Connection or Session of SQLAlchemy with postgresql+psycopg://"

_given: ContextVar[Connected | None] = ContextVar("given", default=None)


def given() -> Connected | None:
    """Return the connection that the caller gave; None: there is none."""
    return _given.get()


@contextmanager
def use_connection(connection: Connected | None) -> Iterator[None]:
    """Make all that is done meanwhile a part of the transaction of this connection."""
    token = _given.set(connection)
    try:
        yield
    finally:
        _given.reset(token)


def find_connection(given: Any) -> Connected:
    """Return the psycopg connection of what an application gives; its transaction has begun then.

    Raises:
        InvalidSettings: it has none, or is in no transaction: what is written would take effect at once.
    """
    found = given if isinstance(given, psycopg.Connection) else _find_raw(given)
    if found.closed:
        raise InvalidSettings("using() was given a connection that is closed. Nothing was stored or sent")
    if found.autocommit and found.info.transaction_status == TransactionStatus.IDLE:
        raise InvalidSettings(
            "using() was given a connection in autocommit mode that is in no transaction, so nothing could be rolled "
            "back. Begin one, or leave using() out. Nothing was stored or sent"
        )
    return found


def _find_raw(given: Any) -> Connected:
    """Return what a Connection or Session of SQLAlchemy uses."""
    if type(given).__module__.partition(".")[0] == "sqlalchemy" or hasattr(given, "get_bind"):
        raw = _find_in_sqlalchemy(given)
        if isinstance(raw, psycopg.Connection):
            return raw
    raise InvalidSettings(f"using() takes {_KINDS}, not {type(given).__name__}. Nothing was stored or sent")


def _find_in_sqlalchemy(given: Any) -> Any:
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import Session, scoped_session

    if isinstance(given, (Session, scoped_session)):
        given = given.connection()
    if not isinstance(given, Connection):
        return None
    if not given.in_transaction():
        given.begin()  # else its commit() would not know that there is something to commit
    return given.connection.driver_connection
