"""What ``breaking`` and its tests share: the exceptions, and where plans and points are kept in Redis."""

from __future__ import annotations

from billiard.exceptions import SoftTimeLimitExceeded

KINDS: dict[str, type[BaseException]] = {
    "RuntimeError": RuntimeError,
    "MemoryError": MemoryError,
    "OSError": OSError,
    "SoftTimeLimitExceeded": SoftTimeLimitExceeded,
    "SystemExit": SystemExit,
    "ValueError": ValueError,
}

#: Job id to ``point|kind|times``; every point that a job passed.
PLANS, SEEN = "breaking:plans", "breaking:seen"
