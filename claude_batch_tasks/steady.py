"""A clock of this machine that is never set: it runs at a constant rate, also while the machine is suspended."""

from __future__ import annotations

import time

_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def monotonic_now() -> float:
    """Return the clock's seconds, of which only differences have a meaning."""
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)
