"""Which requests are sent again, and how: because they failed, or to repair their answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from claude_batch_tasks.records import RepairOptions
from claude_batch_tasks.rules.polling import MIN_SAMPLES, SIMILAR_SIZE_FACTOR

#: Eligible requests are sent again after the countdown of so many failures in a row, plus one for each earlier round.
RESUBMIT_AFTER = 4

#: Seconds that a batch takes if no past batch of similar size is known: Anthropic says that most end within the hour.
USUAL_BATCH = 3600.0

#: Errors, by Anthropic's ``error.type``, after which a single request is resubmitted. Documented rule (batch processing
#: guide): an ``invalid_request_error`` needs another body; "any other error" may be sent again. We leave out those that
#: repeating does not fix: authentication, billing and permission.
_PASSING_ERRORS = {"overloaded_error", "api_error", "timeout_error", "rate_limit_error"}


Repair = Literal["refusal_model", "max_tokens", "continue", "reask"]
SentAs = Literal["resubmission", "refusal_model", "max_tokens", "continue", "reask"]

#: The repair for answers that are not complete, by reason; there is none for the other reasons.
REPAIRS: dict[str, Repair] = {
    "refusal": "refusal_model",
    "max_tokens": "max_tokens",
    "pause_turn": "continue",
    "invalid": "reask",
}

#: The least budget for thinking that the API takes.
_LEAST_BUDGET = 1024

#: The most output tokens of models by the beginnings of their names, as Anthropic documents them; the longest beginning
#: counts. A model that is not here has no known limit.
_OUTPUT_LIMITS = {
    "claude-3-": 4_096,
    "claude-3-5-": 8_192,
    "claude-3-7-": 64_000,
    "claude-haiku-4-": 64_000,
    "claude-sonnet-4-": 64_000,
    "claude-opus-4-": 32_000,
    "claude-opus-4-5": 64_000,
    **dict.fromkeys(("claude-sonnet-4-6", "claude-opus-4-6", "claude-opus-4-7", "claude-opus-4-8"), 128_000),
    **{f"claude-{line}-5": 128_000 for line in ("haiku", "sonnet", "opus", "fable", "mythos")},
}

#: The limit of newer models in a batch with the beta header of that name.
LONG_OUTPUT = "output-300k"
_LONG_OUTPUT_TOKENS = 300_000

_DATE = re.compile(r"[-@][0-9]{8}")

_NAME = re.compile(r"claude-.*")


def deserves_resubmission(outcome: str, error_type: str | None) -> bool:
    """Return whether a request with this outcome may be sent again: it expired, or failed for a cause that passes."""
    return outcome == "expired" or (outcome == "errored" and error_type in _PASSING_ERRORS)


def may_fall_back(outcome: str, error_type: str | None, *, cut_short: bool) -> bool:
    """Return whether a request with this outcome may go through the Messages API.

    Args:
        cut_short: we canceled its batch for the sake of a deadline, so that it was not executed if it was canceled.
    """
    return deserves_resubmission(outcome, error_type) or (cut_short and outcome == "canceled")


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


def choose_repair(
    outcome: str,
    error_type: str | None,
    incomplete: str | None,
    *,
    repairs: Mapping[str, int],
    failed: int,
    options: RepairOptions,
) -> SentAs | None:
    """Decide as what a request is sent again in a batch; None: it is not.

    =======================================  =========================  ===============================================
    the last attempt                         the request is sent again  as long as
    =======================================  =========================  ===============================================
    expired, or errored for a passing cause  as a ``resubmission``      at most ``retries`` attempts had failed before
    errored otherwise, or was canceled       no
    was refused                              as ``refusal_model``       ``refusal_model`` names one more model
    was cut at ``max_tokens``                as ``max_tokens``          ``max_tokens_limit`` is given, see
                                                                        ``raise_max_tokens``
    paused                                   as ``continue``            it was continued under ``continue_paused`` times
    is invalid                               as ``reask``               it was asked again under ``reask`` times
    succeeded otherwise                      no
    =======================================  =========================  ===============================================

    A failed repair is a failed attempt: its resubmission repeats it.

    Args:
        outcome, error_type: those of the last attempt.
        incomplete: why its answer is not complete, if it succeeded.
        repairs: how many times the request was sent for each kind of repair.
        failed: how many of its attempts failed, the last one included.
        options: those of the job.
    """
    if outcome != "succeeded":
        again = deserves_resubmission(outcome, error_type) and failed <= options.retries
        return "resubmission" if again else None
    kind = REPAIRS.get(incomplete or "")
    return kind if kind is not None and repairs.get(kind, 0) < _most(kind, options) else None


def _most(kind: Repair, options: RepairOptions) -> float:
    """Return how many times a request may be sent for a kind of repair."""
    return {
        "refusal_model": len(options.refusal_models),
        "max_tokens": 0 if options.max_tokens_limit is None else float("inf"),
        "continue": options.continue_paused,
        "reask": options.reask,
    }[kind]


def is_same_model(one: str, other: str) -> bool:
    """Return whether two names are those of one model: they are equal, or one has a date at its end."""
    short, long = sorted((one, other), key=len)
    return one == other or (long.startswith(short) and _DATE.fullmatch(long[len(short) :]) is not None)


def output_limit(model: str, *, long_output: bool = False) -> int | None:
    """Return the most output tokens of a model; None: that is not known.

    Args:
        long_output: whether the job has the beta header ``LONG_OUTPUT``.
    """
    name = found[0] if (found := _NAME.search(model)) else model
    known = max((begins for begins in _OUTPUT_LIMITS if name.startswith(begins)), key=len, default=None)
    limit = None if known is None else _OUTPUT_LIMITS[known]
    return _LONG_OUTPUT_TOKENS if long_output and limit == max(_OUTPUT_LIMITS.values()) else limit


def raise_max_tokens(given: int, times: int, *, limit: int | None, of_model: int | None) -> int:
    """Return a request's ``max_tokens`` after it was doubled some times: never above the limits, nor below ``given``.

    Args:
        given: as it was submitted.
        limit: the job's ``max_tokens_limit``.
        of_model: the model's limit.
    """
    limits = [each for each in (limit, of_model) if each is not None]
    return max(given, min(given << times, *limits)) if limits and times else given


def fit_budget(budget: int, max_tokens: int) -> int | None:
    """Return the budget for thinking of a request whose ``max_tokens`` became smaller; None: too small for any."""
    found = min(budget, max_tokens - 1)
    return found if found >= min(_LEAST_BUDGET, budget) else None
