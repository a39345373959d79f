"""When the next call of the Messages API may be made under a rate limit. The store's scripts apply it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from claude_batch_tasks.rules.rate_limits import FIRST_IN_FLIGHT

#: Seconds after which a call asks again, where as many as are allowed are in flight.
SLOT_WAIT = 0.25

#: Seconds in which every limit is refilled.
REFILL = 60

#: What an answer's output weighs in the usual one.
OUTPUT_SHARE = 10

#: Refusals within so many seconds of the last one that counted were made together: they count once.
REFUSED_TOGETHER = 1

#: While nothing but refusals comes, pauses between calls grow to this many seconds.
MAX_REFUSED_PAUSE = 30


class RateLimit(NamedTuple):
    """What is known of a rate limit, by its last answer and what was sent since."""

    allowed: float | None = None
    """Calls in flight."""
    at: float = 0.0
    """When the last answer said what is left, epoch seconds."""
    usual_output: float = 0.0
    limit: Mapping[str, float] = {}
    left: Mapping[str, float] = {}


def calls_need(tokens: float, output: float) -> dict[str, float]:
    """Return what a call takes of each limit: of its input tokens, and what is usual of the output."""
    return {"requests": 1, "tokens": tokens + output, "input-tokens": tokens, "output-tokens": output}


def send_wait(known: RateLimit, *, tokens: float, in_flight: int, cap: int, paused_until: float, now: float) -> float:
    """Return how many seconds a call has to wait, by its rate limit; 0: it may be made.

    Where nothing seems left, and no answer is on its way that could say more, one call finds out, after the time in
    which as much comes in.

    Args:
        tokens: of its input.
        cap: calls in flight at most.
        paused_until: when a pause ends, epoch seconds.
    """
    if paused_until > now:
        return paused_until - now
    if in_flight >= min(math.floor(FIRST_IN_FLIGHT if known.allowed is None else known.allowed), cap):
        return SLOT_WAIT
    pause = _refill_wait(known, tokens) if now <= known.at + REFILL else 0.0
    if pause > 0 and in_flight > 0:
        return pause
    return known.at + pause - now if pause > 0 and now < known.at + pause else 0.0


def _refill_wait(known: RateLimit, tokens: float) -> float:
    """Return the seconds in which as much comes in as a call needs of the limits that have too little left."""
    wait = 0.0
    for name, need in calls_need(tokens, known.usual_output).items():
        # What is in the cache counts for nothing, so that more may be let through than seems to fit at all.
        if name in known.left and known.left[name] < min(need, known.limit[name]):
            wait = max(wait, REFILL * min(need, known.limit[name]) / max(known.limit[name], 1))
    return wait


def calls_allowed(allowed: float, *, refused: bool, cut_at: float | None, cap: int, now: float) -> float:
    """Return how many calls may be in flight after an answer.

    Twice as many in each round of answers until the first refusal, then one more; half as many after each refusal.

    Args:
        cut_at: when they were last halved, epoch seconds; None: never.
        cap: at most.
    """
    if not refused:
        return min(allowed + (1 if cut_at is None else 1 / allowed), cap)
    return max(allowed / 2, 1) if now > (cut_at or 0) + REFUSED_TOGETHER else allowed


def refused_pause(times: int) -> float:
    """Return for how many seconds no call is to be made, after so many refusals in a row that counted."""
    return min(2.0 ** (times - 1), MAX_REFUSED_PAUSE) if times > 1 else 0.0


def usual_output(output: float, usual: float | None) -> float:
    """Return how many output tokens an answer usually has, after one of so many."""
    return output if usual is None else usual + (output - usual) / OUTPUT_SHARE
