"""Server-sent events: what a page gets while it is open in a browser."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from claude_batch_tasks.contrib.web.snapshots import Snapshot, Snapshots, View
from claude_batch_tasks.steady import monotonic_now

#: Seconds after which a browser whose stream has ended asks for the next one.
_RETRY = 3

#: Seconds without news after which a stream says that it is still there. A client that is gone is noticed only then.
_SILENCE = 10.0

#: Seconds after which a stream ends, and the browser asks for the next one: whoever is not allowed any more is refused.
_LONGEST = 300.0


class Stream:
    """What one browser was sent, and what it is to be sent next."""

    def __init__(self) -> None:
        self._begun = self._sent_at = monotonic_now()
        self._sent: Snapshot | None = None

    def begin_stream(self) -> bytes:
        """Return the first bytes of the stream."""
        return f"retry: {_RETRY * 1000}\n\n".encode()

    def report_news(self, snapshot: Snapshot) -> bytes:
        """Return the bytes to send for a snapshot; none if there is no news."""
        now = monotonic_now()
        if snapshot == self._sent:
            if now - self._sent_at < _SILENCE:
                return b""
            self._sent_at = now
            return b": no news\n\n"
        self._sent, self._sent_at = snapshot, now
        if snapshot.trouble is not None:
            return _format_event("trouble", snapshot.trouble)
        # In JSON, because a line break would be the end of a field.
        return _format_event("page", {"title": snapshot.title, "content": snapshot.content})

    def is_over(self, snapshot: Snapshot) -> bool:
        """Return whether the stream ends here, because nothing more happens or because it has lasted long enough."""
        return not snapshot.live or monotonic_now() - self._begun >= _LONGEST

    def finish_stream(self, snapshot: Snapshot) -> bytes:
        """Return the last bytes of the stream, with which the browser does not ask for another one."""
        return b"" if snapshot.live else _format_event("end", None)


def _format_event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


class Places:
    """How many streams may hold a thread of the web server at a time, in each process."""

    def __init__(self, limit: int) -> None:
        self._free = threading.BoundedSemaphore(limit) if limit else None

    def take_place(self) -> bool:
        """Return whether there was a free place, and take it."""
        return self._free is not None and self._free.acquire(blocking=False)

    def release_place(self) -> None:
        """Release a place that was taken."""
        assert self._free is not None
        self._free.release()


def stream_in_thread(snapshots: Snapshots, view: View, places: Places | None) -> Iterator[bytes]:
    """Yield a stream from a thread, which waits meanwhile.

    Args:
        places: where the stream takes a place; None, or all are taken: the stream ends after the first event, and the
            browser asks again.
    """
    stays = places is not None and places.take_place()
    try:
        stream = Stream()
        yield stream.begin_stream()
        while True:
            snapshot, pause = snapshots.ask_view(view).result()
            if news := stream.report_news(snapshot):
                yield news
            if not stays or stream.is_over(snapshot):
                break
            time.sleep(pause)
        yield stream.finish_stream(snapshot)
    finally:
        if stays and places is not None:
            places.release_place()


async def stream_in_loop(
    snapshots: Snapshots, view: View, wait: Callable[[float], Awaitable[bool]] | None = None
) -> AsyncIterator[bytes]:
    """Yield a stream in an event loop, where waiting takes no thread.

    Args:
        wait: waits so many seconds at most, and returns whether the client is gone.
    """
    stream = Stream()
    yield stream.begin_stream()
    while True:
        snapshot, pause = await ask_in_loop(snapshots, view)
        if news := stream.report_news(snapshot):
            yield news
        if stream.is_over(snapshot):
            break
        if wait is None:
            await asyncio.sleep(pause)
        elif await wait(pause):
            return
    yield stream.finish_stream(snapshot)


async def ask_in_loop(snapshots: Snapshots, view: View) -> tuple[Snapshot, float]:
    """Return the latest snapshot and for how long it is that, without blocking the loop."""
    # Others wait for the same read: one who is gone must not cancel it.
    return await asyncio.shield(asyncio.wrap_future(snapshots.ask_view(view)))
