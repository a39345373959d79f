"""Code of workers, of which nothing may depend on a transaction that surrounds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_apart: ContextVar[bool] = ContextVar("apart", default=False)


def is_apart() -> bool:
    """Return whether what is written now takes effect at once, although a transaction of the caller's surrounds it."""
    return _apart.get()


@contextmanager
def stay_apart() -> Iterator[None]:
    """Let all that is written meanwhile take effect at once.

    A step that pays records that first, for all to see. An app's task class may put a transaction around its tasks.
    """
    token = _apart.set(True)
    try:
        yield
    finally:
        _apart.reset(token)
