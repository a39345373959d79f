"""How long a step waits before it runs again."""

from __future__ import annotations

#: No countdown is longer than this, whatever the broker allows (Celery's own advice is "several minutes").
LONGEST_HOP = 600.0

#: Celery's Redis transport hands out a message again after this long, unless the app says otherwise.
DEFAULT_VISIBILITY_TIMEOUT = 3600.0

#: A wait longer than this stays in the store; a message with a countdown would stay in a worker's memory.
LONGEST_IN_BROKER = 1.0

#: Seconds between two tries of what a store or a broker holds up that does not answer, at most: work goes on soon after
#: it answers again, and a try costs next to nothing.
OUTAGE_RETRY_MAX = 15.0

#: Seconds for which an eager job, whose caller stands still, meets nothing but failures before it ends; for which it
#: waits where ``max_wait`` says nothing (Anthropic ends a batch after 24 hours). One wait is at most this share of the
#: time since it began, or this long.
EAGER_MAX_FAILING = 30.0
EAGER_MAX_WAIT = 90_000.0
EAGER_WAIT_SHARE, EAGER_MIN_WAIT = 0.25, 0.05

#: Seconds past a job's patience in which it still tries to make its last look, and to fetch what has ended.
LAST_LOOK = 60.0


def backoff(failures: int, *, retry_min: float, retry_max: float, at_least: float | None, rand: float) -> float:
    """The countdown after the ``failures``-th failure in a row: exponential, full jitter, ``Retry-After`` below it."""
    ceiling = min(retry_max, retry_min * 2.0 ** min(max(failures - 1, 0), 64))
    return max(ceiling * rand, at_least or 0.0)


def longest_hop(visibility_timeout: float) -> float:
    """The longest countdown one message may carry: a quarter of the visibility timeout, 600 s at most.

    Beyond the visibility timeout Redis delivers a waiting message a second time, and a loop of retries multiplies.
    """
    return min(LONGEST_HOP, visibility_timeout / 4)
