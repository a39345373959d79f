"""The connection that the caller gave, of whose transaction the store's statements are a part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from claude_batch_tasks.store.postgres.sources import Connected

_given: ContextVar[Connected | None] = ContextVar("claude_batch_given", default=None)


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
