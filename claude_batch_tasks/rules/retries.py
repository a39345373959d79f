"""How long a step waits before it runs again."""

from __future__ import annotations

#: The longest countdown, seconds, whatever the broker allows (Celery's own advice is "several minutes").
LONGEST_COUNTDOWN = 600.0

#: Seconds after which Celery's Redis transport hands out a message again, unless the app sets another value.
DEFAULT_VISIBILITY_TIMEOUT = 3600.0

#: A wait of more seconds than this stays in the store; a message with a countdown would stay in a worker's memory.
LONGEST_IN_BROKER = 1.0

#: Most seconds between two tries while a store or a broker does not answer: work then goes on soon after it answers
#: again, and a try costs next to nothing.
OUTAGE_RETRY_MAX = 15.0

#: Limits of an eager job, which blocks its caller: seconds of failures without a success before it ends, seconds it
#: waits if ``max_wait`` is not set (Anthropic ends a batch after 24 hours), and the longest single wait, which is this
#: share of the time since the job began or, if that is less, so many seconds.
EAGER_MAX_FAILING = 30.0
EAGER_MAX_WAIT = 90_000.0
EAGER_WAIT_SHARE, EAGER_MIN_WAIT = 0.25, 0.05

#: Seconds past a job's deadline (``max_wait``) in which it still tries a last poll, and fetches what has ended.
LAST_POLL_SECONDS = 60.0


def retry_countdown(failures: int, *, retry_min: float, retry_max: float, at_least: float | None, rand: float) -> float:
    """Return the countdown after the ``failures``-th failure in a row: exponential, with full jitter.

    Args:
        at_least: the countdown is at least so long, as a ``Retry-After`` asks; seconds.
    """
    ceiling = min(retry_max, retry_min * 2.0 ** min(max(failures - 1, 0), 64))
    return max(ceiling * rand, at_least or 0.0)


def longest_countdown(visibility_timeout: float) -> float:
    """Return the longest countdown that one message may have: a quarter of the visibility timeout, 600 s at most.

    Redis delivers a message a second time if it waits longer than the visibility timeout, and with retries the copies
    multiply.
    """
    return min(LONGEST_COUNTDOWN, visibility_timeout / 4)
