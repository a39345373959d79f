"""Connections of an application's SQLAlchemy engine, which a dotted path names."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from kombu.utils.imports import symbol_by_name

from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.store.postgres.borrowed.views import view_connection
from claude_batch_tasks.store.postgres.sources import Connected

#: The engines of this process that a child process must not use as they are.
_engines: weakref.WeakSet[Any] = weakref.WeakSet()


class SqlalchemyEngine:
    """The connections of an engine, from its own pool.

    Args:
        path: where the engine is, as ``package.module.name`` or ``package.module:name``.

    Raises:
        InvalidSettings: there is none, or it is not one of PostgreSQL with psycopg 3.
    """

    def __init__(self, path: str) -> None:
        self._engine = find_engine(path)
        url = self._engine.url
        self.where = f"{path} ({url.host or 'local'}/{url.database})"
        _engines.add(self._engine)

    def in_transaction(self) -> bool:
        """Return False: a connection of the pool is in no transaction of the caller's."""
        return False

    @contextmanager
    def connect(self) -> Iterator[Connected]:
        with _translated_errors():
            lent = self._engine.connect()
        try:
            with _translated_errors():
                lent = lent.execution_options(isolation_level="AUTOCOMMIT")
            yield view_connection(lent.connection.driver_connection)
        finally:
            if not lent.invalidated and lent.connection.driver_connection.closed:
                lent.invalidate()
            lent.close()

    @contextmanager
    def listen(self) -> Iterator[Connected]:
        with _translated_errors():
            lent = self._engine.connect()
        lent.detach()  # the pool makes another one in its place
        with lent:
            raw = lent.connection.driver_connection
            raw.autocommit = True
            yield raw


def find_engine(path: str) -> Any:
    """Return the engine that a dotted path names.

    Raises:
        InvalidSettings: the text says what it is instead.
    """
    setting = f"claude_batch_store_url = {path}"
    try:
        engine: Any = symbol_by_name(path)
    except (ImportError, AttributeError, ValueError) as exc:
        raise InvalidSettings(f"{setting}: a SQLAlchemy engine cannot be imported from there: {exc}") from None
    dialect = getattr(engine, "dialect", None)
    if dialect is None or not hasattr(engine, "raw_connection"):
        raise InvalidSettings(
            f"{setting} is a {type(engine).__name__}, and not a SQLAlchemy engine, such as create_engine() returns"
        )
    if dialect.is_async:
        raise InvalidSettings(
            f"{setting} is an asynchronous engine; workers need one of create_engine() with postgresql+psycopg://"
        )
    if (dialect.name, dialect.driver) != ("postgresql", "psycopg"):
        raise InvalidSettings(
            f"{setting} is an engine of {dialect.name}+{dialect.driver}; the store needs postgresql+psycopg://, which "
            "is psycopg 3"
        )
    return engine


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Turn SQLAlchemy's errors of making a connection into those of psycopg, which are outages."""
    from sqlalchemy import exc as theirs

    try:
        yield
    except theirs.DBAPIError as exc:
        raise exc.orig or exc from exc
    except theirs.TimeoutError as exc:
        raise psycopg.OperationalError(str(exc)) from exc


def _dispose_all() -> None:
    for engine in list(_engines):
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_dispose_all)
