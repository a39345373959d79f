"""The store's clock, as a process knows it: the one that decides for all workers."""

from __future__ import annotations

import time
from collections.abc import Callable

from claude_batch_tasks import steady
from claude_batch_tasks.errors import StoreUnavailable

#: Seconds after which the store is asked anew, and after which again where it did not answer.
_FRESH, _AGAIN = 60.0, 5.0

#: Seconds by which this machine's own clock may move against the steady one before the store is asked anew: it was set,
#: perhaps because the machine was paused, which stops the steady one.
_MOVED = 1.0


class StoreClock:
    """Says what time it is by the store, and carries that on by a clock that nobody sets.

    Whatever happens to this machine's own clock changes nothing.

    Args:
        ask: asks the store; epoch seconds.
    """

    def __init__(self, ask: Callable[[], float]) -> None:
        self._ask = ask
        #: Seconds by which the store's clock is ahead of the steady one.
        self._ahead: float | None = None
        self._ask_at = 0.0
        self._own_ahead = 0.0

    def now(self) -> float:
        """Return epoch seconds.

        Raises:
            StoreUnavailable: the store has not reported the time to this process yet, and does not answer now.
        """
        if (
            self._ahead is None
            or steady.monotonic_now() >= self._ask_at
            or abs(_own_ahead() - self._own_ahead) > _MOVED
        ):
            asked = steady.monotonic_now()
            try:
                shown = self._ask()
            except StoreUnavailable:
                if self._ahead is None:
                    raise
                self._ask_at, self._own_ahead = steady.monotonic_now() + _AGAIN, _own_ahead()
            else:
                self.learn(shown, asked)
        assert self._ahead is not None
        return steady.monotonic_now() + self._ahead

    def learn(self, shown: float, asked: float) -> None:
        """The store answered that its clock shows ``shown``.

        Args:
            asked: when it was asked, by ``steady.monotonic_now``.
        """
        answered = steady.monotonic_now()
        # It was shown at some moment between the two, which may be far apart: the process may have slept.
        least, most = shown - answered, shown - asked
        self._ahead = (least + most) / 2 if self._ahead is None else min(max(self._ahead, least), most)
        self._ask_at, self._own_ahead = answered + _FRESH, _own_ahead()


def _own_ahead() -> float:
    """By how many seconds this machine's own clock is ahead of the steady one."""
    return time.time() - steady.monotonic_now()  # noqa: TID251
