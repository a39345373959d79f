"""How a store on PostgreSQL is opened: which connections it has, by what the setting names."""

from __future__ import annotations

import functools
import os

from claude_batch_tasks.settings.store_urls import kind_of, postgres_address
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.postgres.sources import ConnectionSource, Pool
from claude_batch_tasks.store.postgres.statements import SCHEMA
from claude_batch_tasks.store.postgres.store import PostgresStore


def _open_source(url: str) -> ConnectionSource:
    """Return where connections come from that a URL, or the dotted path of an engine, names."""
    kind = kind_of(url)
    if kind == "sqlalchemy":
        from claude_batch_tasks.store.postgres.borrowed.sqlalchemy_engine import SqlalchemyEngine

        return SqlalchemyEngine(url)
    if kind == "django":
        from claude_batch_tasks.store.postgres.borrowed.django_alias import DjangoAlias

        return DjangoAlias(url.partition("://")[2])
    return Pool(url, postgres_address(url))


@functools.lru_cache(maxsize=32)
def _open(url: str, keys: tuple[str, ...], prefix: str, pid: int) -> PostgresStore:
    return PostgresStore(_open_source(url), prefix + SCHEMA, Cipher(keys))


def open_store_at(url: str, keys: tuple[str, ...] = (), prefix: str = "") -> PostgresStore:
    """Return the store in a database, one per process: no connection is used after a fork that was made before.

    Args:
        url: ``postgresql://...``, ``django://ALIAS``, or the dotted path of a SQLAlchemy engine.

    Raises:
        InvalidSettings: it names no connections that the store can use; the text says why.
    """
    return _open(url, keys, prefix, os.getpid())
