"""A queue of free connections that gives the next one to whoever has waited longest."""

from __future__ import annotations

import threading
from collections import deque
from queue import Full
from typing import Any


class _Turn:
    """A thread that waits, and what it was given."""

    def __init__(self) -> None:
        self.given = threading.Event()
        self.item: Any = None


class FairQueue:
    """What redis-py's ``BlockingConnectionPool`` takes as its ``queue_class``.

    With ``queue.LifoQueue``, a thread that puts a connection back and asks again at once has it before those that wait
    are awake: one that reads results for minutes kept a lease from being renewed.
    """

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        #: The free ones; redis-py looks at them here.
        self.queue: list[Any] = []
        self._waiting: deque[_Turn] = deque()
        self._lock = threading.Lock()

    def put_nowait(self, item: Any) -> None:
        """Give an item to the thread that has waited longest; keep it if none waits.

        Raises:
            Full: there are ``maxsize`` free ones already.
        """
        with self._lock:
            if len(self.queue) >= self.maxsize:
                raise Full
            self._give(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Return the item that was put last, or wait for one.

        Args:
            block: always true, as redis-py has it.
            timeout: seconds; None: for ever.

        Returns:
            The item; after the timeout None, which has redis-py make another connection. Whoever had the one is stuck,
            or was broken off by a time limit between taking it and giving it back: then nobody would ever have it.
        """
        turn = _Turn()
        try:
            with self._lock:
                if self.queue:
                    return self.queue.pop()
                self._waiting.append(turn)
            turn.given.wait(timeout)
        except BaseException:  # a time limit, or Ctrl-C
            with self._lock:
                if turn.given.is_set():
                    self._give(turn.item)
                elif turn in self._waiting:
                    self._waiting.remove(turn)
            raise
        with self._lock:
            if not turn.given.is_set():
                self._waiting.remove(turn)
            return turn.item

    def _give(self, item: Any) -> None:
        if not self._waiting:
            self.queue.append(item)
            return
        turn = self._waiting.popleft()
        turn.item = item
        turn.given.set()
