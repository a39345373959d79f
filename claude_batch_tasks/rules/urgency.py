"""How answers come by a moment at which they are wanted: by a batch, or through the Messages API at full price."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from claude_batch_tasks.rules.resubmission import ends_in_time

#: How a pool is answered. ``hurried``: by a batch, which is canceled if it has not ended shortly before the deadline.
Urgency = Literal["batch", "hurried", "messages"]

#: A pool with a deadline waits at most for this share of the time left until then.
_POOLING_SHARE = 0.1


def deadline_bucket(left: float | None) -> int | None:
    """Return which asks have deadlines that are near each other: those with the same number may share a pool.

    ==================================  =======
    seconds left until the deadline     number
    ==================================  =======
    there is none                       None
    less than 1                         0
    1                                   1
    2 or 3                              2
    4 to 7                              3
    from ``2 ** (n - 1)``               ``n``
    ==================================  =======
    """
    return None if left is None else max(int(left), 0).bit_length()


def pooling_wait(max_wait: float, left: float | None, mode: str) -> float:
    """Return for how many seconds a new pool takes asks at most.

    Args:
        max_wait: as the settings say.
        left: seconds left until the deadline of its first ask; None: it has none.
        mode: ``batch``; or ``messages``, which is answered at once.
    """
    if mode == "messages":
        return 0.0
    return max_wait if left is None else min(max_wait, max(left, 0.0) * _POOLING_SHARE)


def choose_urgency(
    left: float | None, past: Sequence[tuple[int, float]], requests: int, *, fallback: str, covered: bool
) -> Urgency:
    """Decide how a pool is answered by its deadline, when it becomes a job.

    =====================  =====================  ===========================================  ==================
    there is a deadline    a batch probably ends  the Messages API may be used, and what may   it is answered by
                           in time                be spent there covers the pool
    =====================  =====================  ===========================================  ==================
    no                     any                    any                                          ``batch``
    yes                    yes                    yes                                          ``hurried``
    yes                    no                     yes                                          ``messages``
    yes                    any                    no                                           ``batch``, maybe late
    =====================  =====================  ===========================================  ==================

    Args:
        left: seconds left until the deadline; None: there is none.
        past: requests and seconds of each past batch of the account.
        requests: how many there are in the pool.
        fallback: as the setting of that name.
        covered: whether the budget of the fallback covers all of them.
    """
    if left is None or fallback != "messages" or not covered:
        return "batch"
    return "hurried" if ends_in_time(left, past, requests) else "messages"


def is_covered(requests: int, most: int | None, *, max_requests: int, max_cost: int | None) -> bool:
    """Return whether the budget of the fallback covers all requests of a pool, however long their answers are.

    Args:
        most: what they may cost through the Messages API, nano-dollars; None: that is not known.
        max_requests, max_cost: the budget; the cost in nano-dollars, None: it has no limit.
    """
    return requests <= max_requests and (max_cost is None or (most is not None and most <= max_cost))
