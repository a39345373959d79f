"""What to do, as pure functions: no I/O, no clock and no randomness of their own.

Times are UTC epoch seconds, durations are seconds. ``rand`` is a number in [0, 1) drawn by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from claude_batch_tasks import errors

#: Results can be downloaded for 29 days from *created_at* (not from the end), as Anthropic documents it.
RETENTION = 29 * 86_400.0

#: Anthropic ends a batch 24 hours after it was created.
BATCH_LIFETIME = 86_400.0

#: No countdown is longer than this, whatever the broker allows (Celery's own advice is "several minutes").
LONGEST_HOP = 600.0

#: Celery's Redis transport hands out a message again after this long, unless the app says otherwise.
DEFAULT_VISIBILITY_TIMEOUT = 3600.0

#: A wait longer than this stays in the store; a message with a countdown would stay in a worker's memory.
LONGEST_IN_BROKER = 1.0

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

#: A 429 without a Retry-After holds all calls on the account back for the first of these, seconds; one with it for no
#: less than the second, and no answer for longer than the third.
HOLD = 10.0
SHORTEST_HOLD = 1.0
LONGEST_HOLD = 600.0

#: Seconds past a job's patience in which it still tries to make its last look, and to fetch what has ended.
LAST_LOOK = 60.0

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

    ``None`` if it asks nothing or says something unreadable. Never negative, never more than ten minutes: whoever must
    wait longer is told so again.
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
            return min(max(seconds, 0.0), LONGEST_HOLD)
    return None


def backoff(failures: int, *, retry_min: float, retry_max: float, at_least: float | None, rand: float) -> float:
    """The countdown after the ``failures``-th failure in a row: exponential, full jitter, ``Retry-After`` below it."""
    ceiling = min(retry_max, retry_min * 2.0 ** min(max(failures - 1, 0), 64))
    return max(ceiling * rand, at_least or 0.0)


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


def hold_back(status: int, headers: Mapping[str, str], now: float) -> float | None:
    """For how many seconds an answer asks all calls on its account to wait; None: it does not.

    A 429 does, and so does an answer that says that no request is left (``anthropic-ratelimit-requests-remaining``).
    """
    if status == 429:
        wait = retry_after(headers, now)
        return HOLD if wait is None else max(wait, SHORTEST_HOLD)
    if headers.get("anthropic-ratelimit-requests-remaining") != "0":
        return None
    try:
        reset = datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"].replace("Z", "+00:00"))
        return min(max(reset.timestamp() - now, 0.0), LONGEST_HOLD)
    except (KeyError, ValueError):
        return None


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
