"""A queue of free connections that gives the next one to the thread that has waited longest."""

from __future__ import annotations

import threading
from collections import deque
from queue import Full
from typing import Any


class _Turn:
    """A waiting thread, and the item that it was given."""

    def __init__(self) -> None:
        self.given = threading.Event()
        self.item: Any = None


class FairQueue:
    """A ``queue_class`` for redis-py's ``BlockingConnectionPool``.

    With ``queue.LifoQueue``, a thread that puts a connection back and asks again at once gets it before the waiting
    threads are awake. A thread that read results for minutes prevented a lease from being renewed.
    """

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        #: The free connections; redis-py reads this attribute.
        self.queue: list[Any] = []
        self._waiting: deque[_Turn] = deque()
        self._lock = threading.Lock()

    def put_nowait(self, item: Any) -> None:
        """Give an item to the thread that has waited longest; keep it if none waits.

        Raises:
            Full: there are already ``maxsize`` free items.
        """
        with self._lock:
            if len(self.queue) >= self.maxsize:
                raise Full
            self._hand_over(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Return the item that was put last, or wait for one.

        Args:
            block: redis-py always passes true.
            timeout: seconds; None: without limit.

        Returns:
            The item; after the timeout None, on which redis-py makes another connection. The thread that has the first
            one is stuck, or a time limit interrupted it before it gave the connection back, so that it never comes
            back.
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
                    self._hand_over(turn.item)
                elif turn in self._waiting:
                    self._waiting.remove(turn)
            raise
        with self._lock:
            if not turn.given.is_set():
                self._waiting.remove(turn)
            return turn.item

    def _hand_over(self, item: Any) -> None:
        if not self._waiting:
            self.queue.append(item)
            return
        turn = self._waiting.popleft()
        turn.item = item
        turn.given.set()
