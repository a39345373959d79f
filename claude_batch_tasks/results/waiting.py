"""How programs with an event loop wait for asks: one thread and one subscription serve all of a process.

The thread begins with the first who waits, and ends a while after the last. It also asks the store now and then, in a
few calls for all who wait: an end may have been missed before the subscription began, or while it was made again.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

from claude_batch_tasks import errors
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.store import HasAsks
from claude_batch_tasks.store.interface import AskListener, Asks

log = get_logger(__name__)

#: Seconds for which the thread listens before it looks who has come, between two questions to the store about all who
#: wait, after an answer that failed, and after which it ends if nobody waits.
_LISTEN, _EVERY, _PAUSE, _IDLE = 0.1, 5.0, 1.0, 10.0

#: Number of asks in one question to the store.
_AT_A_TIME = 1000


class _Waiter(NamedTuple):
    """One who waits, in an event loop."""

    loop: asyncio.AbstractEventLoop
    end: asyncio.Future[None]

    def wake(self, error: Exception | None = None) -> None:
        """Wake the one who waits: the ask has ended, or nobody can say so any more."""
        with suppress(RuntimeError):  # the event loop is closed
            self.loop.call_soon_threadsafe(self._set, error)

    def _set(self, error: Exception | None) -> None:
        if self.end.done():
            return
        if error is None:
            self.end.set_result(None)
        else:
            self.end.set_exception(error)


class AskWatch:
    """All in this process who wait for asks of one store, and the thread that wakes them.

    Args:
        asks: those of the store.
    """

    def __init__(self, asks: Asks) -> None:
        self._asks = asks
        self._lock = threading.Lock()
        self._waiting: dict[str, set[_Waiter]] = {}
        #: The ids that the store is to be asked about.
        self._unasked: deque[str] = deque()
        self._thread: threading.Thread | None = None
        self._idle_since: float | None = None

    async def wait_for_end(self, ask_id: str) -> None:
        """Wait until an ask has ended, or is not known to the store any more."""
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop, loop.create_future())
        self._add(ask_id, waiter)
        try:
            await waiter.end
        finally:
            self._discard(ask_id, waiter)

    def _add(self, ask_id: str, waiter: _Waiter) -> None:
        with self._lock:
            self._waiting.setdefault(ask_id, set()).add(waiter)
            self._unasked.append(ask_id)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="claude-batch-asks", daemon=True)
                thread.start()
                self._thread = thread

    def _discard(self, ask_id: str, waiter: _Waiter) -> None:
        with self._lock:
            if waiters := self._waiting.get(ask_id):
                waiters.discard(waiter)
                if not waiters:
                    del self._waiting[ask_id]

    def _run(self) -> None:
        """Serve those who wait until there are none for a while."""
        try:
            while self._is_needed():
                try:
                    with self._asks.listen() as listener:
                        return self._serve(listener)
                except errors.StoreUnavailable as exc:
                    log.info("the store does not say which asks have ended: %s", exc)
                    time.sleep(_PAUSE)
                    with suppress(errors.StoreUnavailable):  # its user may be one who cannot subscribe
                        self._ask_about(self._list_waiting())
        except BaseException as exc:
            log.exception("this process does not learn any more which asks have ended")
            self._give_up(exc)
            raise

    def _serve(self, listener: AskListener) -> None:
        """Wake those whose asks end, until nobody waits for a while."""
        asked_at = 0.0
        while self._is_needed():
            if time.monotonic() - asked_at >= _EVERY:
                asked_at = time.monotonic()
                with self._lock:  # also those who came before the subscription
                    self._unasked = deque(self._waiting)
            if asked := self._take_unasked():
                self._ask_about(asked)
            self._wake(listener.wait(0.0 if asked else _LISTEN))

    def _ask_about(self, names: Sequence[str]) -> None:
        """Wake those of these whose asks have ended, by what the store says."""
        places = self._asks.read_places(names)
        self._wake(name for name, place in zip(names, places, strict=True) if place is None or place.state != "waiting")

    def _list_waiting(self) -> list[str]:
        with self._lock:
            return list(self._waiting)

    def _take_unasked(self) -> list[str]:
        with self._lock:
            taken = [self._unasked.popleft() for _ in range(min(len(self._unasked), _AT_A_TIME))]
            return [name for name in taken if name in self._waiting]

    def _is_needed(self) -> bool:
        """Return whether the thread has to continue; after False another one may begin."""
        with self._lock:
            now = time.monotonic()
            if self._waiting:
                self._idle_since = None
                return True
            self._idle_since = self._idle_since or now
            if now - self._idle_since < _IDLE:
                return True
            self._thread, self._idle_since = None, None
            return False

    def _wake(self, ask_ids: Iterable[str]) -> None:
        with self._lock:
            found = [waiter for name in ask_ids for waiter in self._waiting.pop(name, ())]
        for waiter in found:
            waiter.wake()

    def _give_up(self, exc: BaseException) -> None:
        """Wake all who wait, because the thread has ended; the next one to come starts another."""
        with self._lock:
            found = [waiter for waiters in self._waiting.values() for waiter in waiters]
            self._waiting.clear()
            self._thread = None
        for waiter in found:
            waiter.wake(errors.StoreUnavailable(f"waiting for the ask has failed: {type(exc).__name__}"))


def watch_asks(store: HasAsks) -> AskWatch:
    """Return what waits for the asks of a store in this process."""
    cached: Any = store  # a store is opened once for each URL
    return _open_watch(cached)


@cache
def _open_watch(store: Any) -> AskWatch:
    return AskWatch(store.asks)


# The thread is not in a child process, and its subscription is the parent's.
os.register_at_fork(after_in_child=_open_watch.cache_clear)
