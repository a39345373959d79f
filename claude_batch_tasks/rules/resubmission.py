"""Which requests are sent again, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from claude_batch_tasks.rules.polling import MIN_SAMPLES, SIMILAR_SIZE_FACTOR

#: Eligible requests are sent again after the countdown of so many failures in a row, plus one for each earlier round.
RESUBMIT_AFTER = 4

#: Seconds that a batch takes if no past batch of similar size is known: Anthropic says that most end within the hour.
USUAL_BATCH = 3600.0

#: Errors, by Anthropic's ``error.type``, after which a single request is resubmitted. Documented rule (batch processing
#: guide): an ``invalid_request_error`` needs another body; "any other error" may be sent again. We leave out those that
#: repeating does not fix: authentication, billing and permission.
_PASSING_ERRORS = {"overloaded_error", "api_error", "timeout_error", "rate_limit_error"}


def deserves_resubmission(outcome: str, error_type: str | None) -> bool:
    """Return whether a request with this outcome may be sent again: it expired, or failed for a cause that passes."""
    return outcome == "expired" or (outcome == "errored" and error_type in _PASSING_ERRORS)


def choose_next_attempt(
    *, barred: bool, again: int, eligible: int, fallback: str, in_time: bool
) -> Literal["resubmit", "messages", "none"]:
    """Decide what follows for a batch with results: at the lower price first.

    =========================================  ==========================  ============  ==============================
    anything may be sent, and some requests    another batch would end in  ``fallback``  what follows
                                               time
    =========================================  ==========================  ============  ==============================
    are to be sent again in a batch            yes                         any           a smaller batch of these; what
                                                                                         is eligible waits for it
    are eligible for the Messages API          no, or none are to be sent  messages      the Messages API; answers that
                                                                                         are not complete stay so
    are left otherwise                         any                         any           nothing
    =========================================  ==========================  ============  ==============================

    Args:
        barred: nothing may be sent again: the batch failed, the job is canceled, stopped or adopted, or the batch's
            record was lost.
        again: number of requests that are to be sent again in a batch.
        eligible: number of requests that may go to the Messages API; most of ``again`` are among them.
        in_time: whether another batch would probably end before the deadline.
    """
    if barred:
        return "none"
    if again and in_time:
        return "resubmit"
    return "messages" if eligible and fallback == "messages" else "none"


def ends_in_time(left: float | None, past: Sequence[tuple[int, float]], requests: int) -> bool:
    """Return whether a batch of ``requests`` requests probably ends within ``left`` seconds (None: there is no limit).

    The batch is expected to take as long as the slowest past batch of similar size if enough of these are known, else
    an hour.
    """
    if left is None:
        return True
    alike = [
        seconds for count, seconds in past if count / SIMILAR_SIZE_FACTOR <= requests <= count * SIMILAR_SIZE_FACTOR
    ]
    return left >= (max(alike) if len(alike) >= MIN_SAMPLES else USUAL_BATCH)
