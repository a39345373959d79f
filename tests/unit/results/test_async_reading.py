"""What threads read for an event loop: in order, one thread at a time, and closed at the end."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from claude_batch_tasks.results.async_reading import iterate_in_threads


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that runs in an event loop of its own."""

    @functools.wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


class Source:
    """An iterator that says where it was read, and whether two threads were in it at a time."""

    def __init__(self, count: int, gate: threading.Event | None = None) -> None:
        self.count, self.gate = count, gate
        self.read = 0
        self.threads: set[int] = set()
        self.closed = self.entered_twice = False
        self.begun = threading.Event()
        self._inside = threading.Lock()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if not self._inside.acquire(blocking=False):
            self.entered_twice = True
            raise AssertionError("two threads read it")
        try:
            self.begun.set()
            if self.gate is not None:
                self.gate.wait(5)
            self.threads.add(threading.get_ident())
            if self.read == self.count:
                raise StopIteration
            self.read += 1
            return self.read
        finally:
            self._inside.release()

    def close(self) -> None:
        self.entered_twice |= self._inside.locked()
        self.closed = True


@in_loop
async def test_yields_all_in_their_order_and_reads_in_other_threads() -> None:
    source = Source(1050)
    assert [each async for each in iterate_in_threads(lambda: source)] == list(range(1, 1051))
    assert source.closed
    assert threading.get_ident() not in source.threads


@in_loop
async def test_reads_only_a_part_ahead_and_closes_what_is_left() -> None:
    source = Source(100_000)
    async with aclosing(iterate_in_threads(lambda: source)) as values:
        async for _ in values:
            break
    assert source.read < 1000
    assert source.closed


@in_loop
async def test_a_reader_that_is_canceled_closes_the_source_after_its_thread_has_left_it() -> None:
    gate = threading.Event()
    source = Source(10, gate)

    async def read() -> list[int]:
        return [each async for each in iterate_in_threads(lambda: source)]

    reading = asyncio.create_task(read())
    await asyncio.to_thread(source.begun.wait)
    reading.cancel()
    await asyncio.sleep(0)
    assert not source.closed
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert source.closed
    assert not source.entered_twice


@in_loop
async def test_what_the_source_raises_reaches_the_reader() -> None:
    def fail() -> Iterator[int]:
        yield 1
        raise LookupError("gone")

    values = iterate_in_threads(fail)
    assert await anext(values) == 1
    with pytest.raises(LookupError, match="gone"):
        await anext(values)


@in_loop
async def test_the_event_loop_goes_on_meanwhile() -> None:
    gate = threading.Event()
    source, seen = Source(3, gate), []

    async def read() -> None:
        async for each in iterate_in_threads(lambda: source):
            seen.append(each)

    reading = asyncio.create_task(read())
    await asyncio.to_thread(source.begun.wait)
    assert seen == []  # the source waits for what only the loop does
    gate.set()
    await reading
    assert seen == [1, 2, 3]
