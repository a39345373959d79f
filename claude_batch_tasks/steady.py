"""A clock of this machine that nobody sets: it goes on at the same pace, also while the machine is suspended."""

from __future__ import annotations

import time

_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def now() -> float:
    """Return its seconds, of which only differences say anything."""
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)
