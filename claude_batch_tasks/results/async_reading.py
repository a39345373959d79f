"""How programs with an event loop read what is read in threads elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from itertools import islice
from typing import TypeVar

_T = TypeVar("_T")

#: Number of values that are read at a time: a change of threads costs as much as some of them.
_AT_A_TIME = 100


async def iterate_in_threads(make: Callable[[], Iterator[_T]]) -> AsyncGenerator[_T, None]:
    """Yield what an iterator yields, which is made, read and closed in threads of the event loop.

    No thread is held in between.

    Args:
        make: returns the iterator.
    """
    values = await asyncio.to_thread(make)
    reading: asyncio.Task[tuple[list[_T], Exception | None]] | None = None
    try:
        while True:
            # Shielded: while a thread reads, nothing else may touch the iterator, also after a cancel.
            reading = asyncio.create_task(asyncio.to_thread(_read_some, values))
            found, error = await asyncio.shield(reading)
            for each in found:
                yield each
            if error is not None:
                raise error
            if not found:
                return
    finally:
        if reading is not None:
            await asyncio.wait([reading])
        if (close := getattr(values, "close", None)) is not None:
            await asyncio.to_thread(close)


def _read_some(values: Iterator[_T]) -> tuple[list[_T], Exception | None]:
    """Return the next values, and what was raised behind them."""
    found: list[_T] = []
    try:
        found.extend(islice(values, _AT_A_TIME))
    except Exception as exc:  # noqa: BLE001 - it is raised where the values are taken
        return found, exc
    return found, None
