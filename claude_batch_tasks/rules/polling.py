"""When a batch is polled next, and how polls of one account are shared."""

from __future__ import annotations

from collections.abc import Sequence

#: The interval between polls is this share of the batch's age: the end is noticed at most ~10 % late.
LOOK_SHARE = 0.1

#: How much earlier or later than planned a poll may come, so that batches created together spread out.
LOOK_JITTER = 0.1

#: Where batches of this size are known to take longer, the first poll comes at this share of the shortest duration.
EARLIEST_SHARE = 0.5

#: Number of past batches that must be known before they are used for a decision, and the factor within which two sizes
#: count as similar.
KNOWN_ENOUGH = 5
ALIKE = 4.0

#: With at least so many batches in flight on an account, one list call polls all of them; with fewer, each is
#: retrieved.
SHARE_FROM = 10

#: A batch that is due within this share of its interval is polled together with those that are due now.
SHARE_SLACK = 0.25

#: Of the batches that are due one is handed out, and the others wait for the list call that its task makes, until so
#: many were handed out and made no list call. If no worker takes the message, another batch is handed out after so many
#: seconds.
ASKED_IN_VAIN = 3
UNTAKEN = 10.0

#: Nothing more of what is due is sent while so many messages wait that no worker has taken: new ones would wait behind
#: them.
SENT_AHEAD = 100

#: List calls that fail in a row before no more are made for so many seconds; meanwhile each batch is retrieved.
LISTING_TRIES = 3
LISTING_PAUSE = 60.0


def look_interval(
    age: float,
    *,
    poll_min: float,
    poll_max: float,
    rand: float,
    overdue: float | None = None,
    usual: float | None = None,
) -> float:
    """Return how many seconds after a running batch was last seen it is polled again.

    The interval is a share of the batch's age. Where batches of its size are known to take longer, the poll comes no
    earlier than half of the shortest known duration. After ``expires_at``, when the batch must end any moment, the
    interval is a share of the time since then. It is always within the bounds.

    Args:
        age: how old the batch was when it was last seen, seconds.
        poll_min, poll_max: the bounds, seconds.
        rand: a random number; 0.5 means no jitter.
        overdue: seconds from ``expires_at`` to when it was last seen; negative: ``expires_at`` is still to come.
        usual: what ``usual_seconds`` returns for batches of this size.
    """
    planned = age * LOOK_SHARE
    if usual is not None:
        planned = max(planned, usual * EARLIEST_SHARE - age)
    if overdue is not None and overdue >= 0:
        planned = overdue * LOOK_SHARE
    elif overdue is not None:
        planned = min(planned, poll_min - overdue)
    planned = min(max(planned, poll_min), poll_max)
    return min(max(planned * (1 + LOOK_JITTER * (2 * rand - 1)), poll_min), poll_max)


def usual_seconds(past: Sequence[tuple[int, float]], requests: int) -> float | None:
    """Return how long the quickest of the past batches of similar size took; None: too few are known.

    Args:
        past: requests and seconds of each past batch.
        requests: requests in the running batch.
    """
    alike = [seconds for count, seconds in past if count / ALIKE <= requests <= count * ALIKE]
    return min(alike) if len(alike) >= KNOWN_ENOUGH else None
