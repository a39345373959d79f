"""When a batch is polled next, or canceled for a deadline, and how polls of one account are shared."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: The interval between polls is this share of the batch's age: the end is noticed at most ~10 % late.
POLL_SHARE = 0.1

#: How much earlier or later than planned a poll may come, so that batches created together spread out.
POLL_JITTER = 0.1

#: Where batches of this size are known to take longer, the first poll comes at this share of the shortest duration.
FIRST_POLL_SHARE = 0.5

#: Number of past batches that must be known before they are used for a decision, and the factor within which two sizes
#: count as similar.
MIN_SAMPLES = 5
SIMILAR_SIZE_FACTOR = 4.0

#: With at least so many batches in flight on an account, one list call polls all of them; with fewer, each is
#: retrieved.
LIST_CALL_FROM = 10

#: A batch that is due within this share of its interval is polled together with those that are due now.
LIST_CALL_SLACK = 0.25

#: When many batches of an account are due, only one of them gets its message: its task makes a list call for all, and
#: the others wait for that. If ``MAX_VAIN_POLLS`` such tasks in a row made no list call, every batch gets its message.
#: If no worker takes the message within ``UNCLAIMED_SECONDS``, another batch gets one.
MAX_VAIN_POLLS = 3
UNCLAIMED_SECONDS = 10.0

#: Nothing more of what is due is sent while so many messages wait that no worker has taken: new ones would wait behind
#: them.
MAX_UNCLAIMED_MESSAGES = 100

#: List calls that fail in a row before no more are made for so many seconds; meanwhile each batch is retrieved.
LIST_CALL_TRIES = 3
LIST_CALL_PAUSE = 60.0

#: Seconds that a cancel takes until the results of the batch can be read, and that a call of the Messages API takes.
_CANCEL_SECONDS = 60.0
_CALL_SECONDS = 20.0

#: A batch has at least this share of the time from its create to the deadline.
_BATCH_SHARE = 0.5

#: Longest time between two polls of a batch that was canceled for a deadline, seconds: its results are waited for.
CANCELED_POLL = 5.0


def poll_interval(
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
        usual: what ``usual_batch_seconds`` returns for batches of this size.
    """
    planned = age * POLL_SHARE
    if usual is not None:
        planned = max(planned, usual * FIRST_POLL_SHARE - age)
    if overdue is not None and overdue >= 0:
        planned = overdue * POLL_SHARE
    elif overdue is not None:
        planned = min(planned, poll_min - overdue)
    planned = min(max(planned, poll_min), poll_max)
    return min(max(planned * (1 + POLL_JITTER * (2 * rand - 1)), poll_min), poll_max)


def usual_batch_seconds(past: Sequence[tuple[int, float]], requests: int) -> float | None:
    """Return how long the quickest of the past batches of similar size took; None: too few are known.

    Args:
        past: requests and seconds of each past batch.
        requests: requests in the running batch.
    """
    alike = [
        seconds for count, seconds in past if count / SIMILAR_SIZE_FACTOR <= requests <= count * SIMILAR_SIZE_FACTOR
    ]
    return min(alike) if len(alike) >= MIN_SAMPLES else None


def cancel_moment(answer_by: float, *, begun: float, requests: int, calls: int) -> float:
    """Return when a batch that still runs is canceled, so that what it has not processed is answered in time.

    Until then it runs: what it processes costs half as much. The time reserved is that of the cancel and of the calls
    of the Messages API, if all requests need one; but the batch has at least half of the time that there is.

    Args:
        answer_by: the deadline, epoch seconds.
        begun: when the batch was created, or its job was started if it is not, epoch seconds.
        requests: how many are in it.
        calls: how many calls of the Messages API may be made at a time.
    """
    reserved = _CANCEL_SECONDS + _CALL_SECONDS * math.ceil(requests / calls)
    return answer_by - min(reserved, max(answer_by - begun, 0.0) * (1 - _BATCH_SHARE))
