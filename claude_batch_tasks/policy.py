"""What to do, as pure functions: no I/O, no clock and no randomness of their own.

Times are UTC epoch seconds, durations are seconds. ``rand`` is a number in [0, 1) drawn by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Literal

from claude_batch_tasks import errors

#: Results can be downloaded for 29 days from *created_at* (not from the end), as Anthropic documents it.
RETENTION = 29 * 86_400.0

#: Anthropic ends a batch 24 hours after it was created.
BATCH_LIFETIME = 86_400.0

#: Anthropic ends a batch 24 hours after it was created.
BATCH_LIFETIME = 86_400.0

#: No countdown is longer than this, whatever the broker allows (Celery's own advice is "several minutes").
LONGEST_HOP = 600.0

#: Celery's Redis transport hands out a message again after this long, unless the app says otherwise.
DEFAULT_VISIBILITY_TIMEOUT = 3600.0

#: The interval between looks is this share of the batch's age: the end is noticed at most ~10 % late.
LOOK_SHARE = 0.1

#: How far a look may come earlier or later than planned, so that batches created together spread out.
LOOK_JITTER = 0.1

#: Downloads of a result file that has every row but not the tallies of the batch, before the rows are believed.
TALLY_DOWNLOADS = 3

_PERMANENT_STATUS = {400, 401, 402, 403, 405, 413, 422}

#: Outcomes of single requests that deserve another chance, by Anthropic's ``error.type``. Documented rule
#: (batch processing guide): an ``invalid_request_error`` needs another body; "any other error" may be sent again.
#: Of these we leave out what no repetition mends: authentication, billing and permission.
_PASSING_ERRORS = {"overloaded_error", "api_error", "timeout_error", "rate_limit_error"}

Endpoint = Literal["create", "retrieve", "list", "results", "cancel", "messages"]


def classify(endpoint: Endpoint, status: int | None, *, sent: bool = True) -> type[errors.ApiError]:
    """Which of our errors an answer is.

    Decided on the HTTP status alone, because the SDK's exception classes differ between the supported versions.

    Args:
        endpoint: what was called; only ``create`` and ``messages`` spend money.
        status: the HTTP status; ``None``: no answer, or one that was not the API's (a proxy's page, half a body).
        sent: False if the request certainly never left (connection refused, no free connection).
    """
    if not sent:
        return errors.TransientError
    if status == 404:
        return errors.NotFoundError
    if status in _PERMANENT_STATUS:
        return errors.PermanentError
    if status is not None and 300 <= status < 400:
        # Not followed. It is a wrong address for what spends money, and may be a passing page for a look.
        return errors.PermanentError if endpoint in ("create", "messages") else errors.TransientError
    if endpoint == "create" and (status is None or status == 408 or status >= 500):
        return errors.AmbiguousError
    if endpoint == "messages" and status is None:
        return errors.AmbiguousError
    if status is not None and 400 <= status < 500 and status not in (408, 409, 425, 429):
        return errors.PermanentError
    return errors.TransientError


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds a response asks us to wait: ``retry-after-ms``, else ``Retry-After`` as seconds or HTTP date.

    ``None`` if it asks nothing or says something unreadable. Never negative, never more than a day.
    """
    for name, read in (
        ("retry-after-ms", lambda value: float(value) / 1000),
        ("retry-after", float),
        ("retry-after", lambda value: parsedate_to_datetime(value).timestamp() - now),
    ):
        try:
            seconds = read(headers[name])
        except (KeyError, ValueError, TypeError):
            continue
        if seconds == seconds:  # not NaN
            return min(max(seconds, 0.0), BATCH_LIFETIME)
    return None


def backoff(failures: int, *, retry_min: float, retry_max: float, at_least: float | None, rand: float) -> float:
    """The countdown after the ``failures``-th failure in a row: exponential, full jitter, ``Retry-After`` below it."""
    ceiling = min(retry_max, retry_min * 2.0 ** min(max(failures - 1, 0), 64))
    return max(ceiling * rand, at_least or 0.0)


def look_interval(age: float, *, poll_min: float, poll_max: float, rand: float) -> float:
    """How long until the next look at a batch that has run for ``age`` seconds."""
    planned = min(max(age * LOOK_SHARE, poll_min), poll_max)
    return min(max(planned * (1 + LOOK_JITTER * (2 * rand - 1)), poll_min), poll_max)


def longest_hop(visibility_timeout: float) -> float:
    """The longest countdown one message may carry: a quarter of the visibility timeout, 600 s at most.

    Beyond the visibility timeout Redis delivers a waiting message a second time, and a loop of retries multiplies.
    """
    return min(LONGEST_HOP, visibility_timeout / 4)


def not_found_means(
    *, now: float, created_at: float, last_sighting: float, grace: float, absences: int, absences_limit: int
) -> Literal["propagation", "ask_list", "lost"]:
    """What a 404 on retrieve or results means.

    ``propagation``: the batch was seen less than ``grace`` seconds ago. ``ask_list``: too long ago to assume it; only
    a complete listing may tell. ``lost``: missing from ``absences_limit`` complete listings, or older than retention.
    """
    if now - created_at > RETENTION:
        return "lost"
    if now - last_sighting < grace:
        return "propagation"
    return "lost" if absences >= absences_limit else "ask_list"


def second_chance(outcome: str, error_type: str | None) -> bool:
    """Whether a request that ended so may be sent again: it expired, or failed for a cause that passes."""
    return outcome == "expired" or (outcome == "errored" and error_type in _PASSING_ERRORS)
