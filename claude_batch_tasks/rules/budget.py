"""What a job may still pay for. The store's scripts apply it. All amounts are nano-dollars."""

from __future__ import annotations

from typing import Literal

#: Seconds after which a request asks again whose money is reserved by others, which may cost less.
RESERVED_WAIT = 2

Answer = Literal["yes", "wait", "no"]


def judge_spending(limit: int | None, *, spent: int, reserved: int, least: int, most: int) -> Answer:
    """Return whether something may be paid for: ``wait`` where what is reserved may turn out to cost less.

    What is alone may cost more than is left, if that covers what it costs at least.

    Args:
        limit: what may be spent; None: no limit is set.
        least, most: what it costs.
    """
    if limit is None or most <= limit - spent - reserved:
        return "yes"
    if least > limit - spent:
        return "no"
    return "wait" if reserved > 0 else "yes"


def affordable_twice(one: Answer, other: Answer) -> Answer:
    """Return whether something may be paid for that two limits are set for."""
    return "no" if "no" in (one, other) else "wait" if "wait" in (one, other) else "yes"
