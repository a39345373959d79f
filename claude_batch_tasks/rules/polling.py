"""When a batch is polled next, and how polls of one account are shared."""

from __future__ import annotations

from collections.abc import Sequence

#: The interval between looks is this share of the batch's age: the end is noticed at most ~10 % late.
LOOK_SHARE = 0.1

#: How far a look may come earlier or later than planned, so that batches created together spread out.
LOOK_JITTER = 0.1

#: Where batches of this size are known to take longer, the first look comes at this share of the shortest of them.
EARLIEST_SHARE = 0.5

#: Batches that must be known before anything is concluded from them, and within what factor their sizes are alike.
KNOWN_ENOUGH = 5
ALIKE = 4.0

#: From so many batches in flight on an account, one listing looks at all of them; below, each is retrieved.
SHARE_FROM = 10

#: What is due within this share of its interval is looked at together with what is due now.
SHARE_SLACK = 0.25

#: Of batches that are due one is handed out, and the others wait for the listing that it makes, until so many were
#: taken and made none. If nobody takes it, another is handed out after so many seconds.
ASKED_IN_VAIN = 3
UNTAKEN = 10.0

#: No more of what is due is sent while so many messages are out that nobody has taken: what is new waits behind these.
SENT_AHEAD = 100

#: Listings that fail in a row before none is tried for so many seconds; meanwhile each batch is retrieved.
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
    """How long from the moment a batch was last seen, still running, until the next look at it.

    A share of its age; where batches of its size are known to take longer, not before half of the shortest of those;
    after ``expires_at``, when it must end any moment, a share of the time since then. Always within the bounds.

    Args:
        age: of the batch when it was last seen, seconds.
        poll_min, poll_max: bounds, seconds.
        rand: 0.5: no jitter.
        overdue: seconds from ``expires_at`` to that sighting; negative: it comes after.
        usual: what ``usual_seconds`` says of batches of this size.
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
    """How long the quickest of the past batches of about this size took; None: too few are known.

    Args:
        past: requests and seconds of each.
        requests: in the batch that runs.
    """
    alike = [seconds for count, seconds in past if count / ALIKE <= requests <= count * ALIKE]
    return min(alike) if len(alike) >= KNOWN_ENOUGH else None
