"""Which requests are sent again, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from claude_batch_tasks.rules.polling import ALIKE, KNOWN_ENOUGH

#: What is eligible is sent again after the countdown of so many failures in a row, one more for each round before.
RESUBMIT_AFTER = 4

#: Seconds a batch takes where none of its size is known: Anthropic says that most end within the hour.
USUAL_BATCH = 3600.0

#: Outcomes of single requests that deserve another chance, by Anthropic's ``error.type``. Documented rule
#: (batch processing guide): an ``invalid_request_error`` needs another body; "any other error" may be sent again.
#: Of these we leave out what no repetition mends: authentication, billing and permission.
_PASSING_ERRORS = {"overloaded_error", "api_error", "timeout_error", "rate_limit_error"}


def second_chance(outcome: str, error_type: str | None) -> bool:
    """Whether a request that ended so may be sent again: it expired, or failed for a cause that passes."""
    return outcome == "expired" or (outcome == "errored" and error_type in _PASSING_ERRORS)


def next_chance(*, rounds: int, retries: int, fallback: str, in_time: bool) -> Literal["resubmit", "messages", "none"]:
    """How what is eligible after ``rounds`` smaller batches is sent again: at the lower price first.

    Args:
        in_time: another batch would come in time.
    """
    if rounds < retries and in_time:
        return "resubmit"
    return "messages" if fallback == "messages" else "none"


def in_time(left: float | None, past: Sequence[tuple[int, float]], requests: int) -> bool:
    """Whether a batch of so many requests ends within ``left`` seconds (None: there is time enough), most likely.

    As long as the slowest of the past ones of its size takes, where enough are known; else an hour.
    """
    if left is None:
        return True
    alike = [seconds for count, seconds in past if count / ALIKE <= requests <= count * ALIKE]
    return left >= (max(alike) if len(alike) >= KNOWN_ENOUGH else USUAL_BATCH)
