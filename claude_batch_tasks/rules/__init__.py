"""What to do, as pure functions: no I/O, no clock and no randomness of their own.

Times are UTC epoch seconds, durations are seconds. ``rand`` is a number in [0, 1) drawn by the caller.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple

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

#: Seconds between two tries of what a store or a broker holds up that does not answer, at most: work goes on soon after
#: it answers again, and a try costs next to nothing.
OUTAGE_RETRY_MAX = 15.0

#: Seconds for which an eager job, whose caller stands still, meets nothing but failures before it ends; for which it
#: waits where ``max_wait`` says nothing (Anthropic ends a batch after 24 hours). One wait is at most this share of the
#: time since it began, or this long.
EAGER_MAX_FAILING = 30.0
EAGER_MAX_WAIT = 90_000.0
EAGER_WAIT_SHARE, EAGER_MIN_WAIT = 0.25, 0.05

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

#: Seconds by which clocks that are set by NTP may differ, with what a ``Date`` leaves out and the way of an answer.
EXACT = 2.0

#: Seconds past a job's patience in which it still tries to make its last look, and to fetch what has ended.
LAST_LOOK = 60.0

#: Downloads of a result file that has every row but not the tallies of the batch, before the rows are believed.
TALLY_DOWNLOADS = 3

#: What is eligible is sent again after the countdown of so many failures in a row, one more for each round before.
RESUBMIT_AFTER = 4

#: Seconds a batch takes where none of its size is known: Anthropic says that most end within the hour.
USUAL_BATCH = 3600.0

#: Through so many messages at a time, side by side, the requests of a batch go through the Messages API.
LANES = 8

#: Calls that one of them makes at the same time, at least and at most: as many as the quickest of the last calls takes
#: of these moments (seconds). What one process sends one after the other fast enough needs no more, and what is under
#: way when a process is killed is lost.
NARROW, WIDE = 2, 16
QUICK = 0.02

#: Seconds for which one of them makes new calls before it lets other tasks have its worker.
SLICE = 10.0

#: Calls in flight that an account's limits are tried with at first.
FIRST_IN_FLIGHT = 8

#: A 429 of the Messages API holds its calls back for no less, seconds: what its Retry-After says may be rounded down.
SHORTEST_MESSAGES_HOLD = 0.1

#: What the Messages API limits by the minute, as its headers call it.
RATES = ("requests", "tokens", "input-tokens", "output-tokens")
_ABSURD = 10**12

#: The SDK refuses to wait for longer answers without a stream: at 128,000 tokens an hour they take over ten minutes.
LONGEST_UNSTREAMED = 21_333
_SOONER_STREAMED = {"claude-opus-4-0", "claude-opus-4-20250514", "claude-4-opus-20250514", "claude-opus-4-1-20250805"}
_SLOW_UNSTREAMED = 8_192

#: The longest answer of the Messages API; longer ones (the beta ``output-300k``) exist in batches only.
LONGEST_MESSAGE = 128_000

#: Bytes of one answer, unpacked: of the Messages API, or a line of a result file. What Claude has said goes into the
#: next request of a conversation, and that may have 32 MB.
ANSWER_BYTES = 32_000_000

#: Of such an answer as server-sent events: 128,000 tokens in an event each are 20 MB.
STREAM_BYTES = 64_000_000

#: Of any other answer: a page of a listing has 1,000 batches of under 1,000 bytes each.
LISTING_BYTES = 8_000_000

#: Of an error's answer; what is over is left unread.
ERROR_BYTES = 1_000_000

#: Values in one answer of the Messages API, about: a hundred bytes each once they are Python's.
ANSWER_VALUES = 2_000_000

#: Seconds an answer may take from its first byte to its last. 128,000 tokens take an hour, and 100,000 of the longest
#: answers some hours.
LOOK_SECONDS = 600
ANSWER_SECONDS = 4 * 3600
DOWNLOAD_SECONDS = 12 * 3600

#: Lines of a result file beyond one for each request, before it is read no further.
SURPLUS_LINES = 10_000

#: Pages of a listing: of a million batches.
PAGES = 1000

#: Refusals that pass by themselves, whoever they come from: time-out, conflict, too early, too many.
_PASSING_REFUSALS = {408, 409, 425, 429}

#: Redirects that leave it to the caller to send the request elsewhere: nothing was done with it here.
_REDIRECTS = {301, 302, 307, 308}

#: What whoever has no such route answers; 501 is definite, whoever it comes from.
NO_ROUTE = (404, 405, 501)
_NOT_IMPLEMENTED = 501

#: What Cloudflare, in front of the API, answers when it could not connect to it: the request has not arrived there.
_NOT_REACHED = 522

#: Own 4xx that are about the one request alone: another one of the same account may be answered.
_ABOUT_THE_REQUEST = {400, 413, 422}

#: The HTTP status that Anthropic sends with each ``error.type``; an event of a stream has only the type.
STATUS_OF = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

#: Outcomes of single requests that deserve another chance, by Anthropic's ``error.type``. Documented rule
#: (batch processing guide): an ``invalid_request_error`` needs another body; "any other error" may be sent again.
#: Of these we leave out what no repetition mends: authentication, billing and permission.
_PASSING_ERRORS = {"overloaded_error", "api_error", "timeout_error", "rate_limit_error"}

#: What an account meets with whatever it sends: by HTTP status, by ``error.type`` in a result file (where
#: ``permission_error`` may be about one model), by ``error.details.error_code`` (the SDK's typed errors), and by the
#: words of errors of any type: low credit comes as ``invalid_request_error``, in thousands of rows.
_ACCOUNT_STATUS = {401, 402, 403}
_ACCOUNT_TYPES = {"authentication_error", "billing_error"}
_ACCOUNT_CODES = {
    "claude_code_key_creator_not_member",
    "cmek_context_unavailable",
    "cmek_key_disabled",
    "cmek_key_network_blocked",
    "cmek_key_unreachable",
    "contract_spend_limit_reached",
    "enforced_spend_limit_reached",
    "linked_organization_billing_unavailable",
    "linked_organization_spend_limit_reached",
    "organization_on_hold",
    "organization_type_not_supported",
    "parent_organization_required",
    "ramp_limit_exceeded",
    "workspace_human_review_disabled",
}
#: What codes that are not known yet have in their names where they are of this kind; not what is a request's own.
_ACCOUNT_CODE = re.compile(
    r"account|api_key|billing|cmek|contract|credit|key_creator|not_member|on_hold|organization|payment|quota|spend"
    r"|subscription|suspended|workspace"
)
_REQUEST_CODE = re.compile(r"^(user_profile|compaction|thread|tool|file|image|storage|request_body|available_tools)_")
_ACCOUNT_WORDS = re.compile(
    r"credit balance|spend(ing)? limit|usage limits?\b|plans (&|and) billing"
    r"|organization (has been|is) (disabled|on hold)",
    re.IGNORECASE,
)

Endpoint = Literal["create", "retrieve", "list", "results", "cancel", "messages"]


def classify(
    endpoint: Endpoint, status: int | None, *, own: bool = False, error_type: str | None = None, sent: bool = True
) -> type[errors.ApiError]:
    """Return which of our errors an answer is. This is the one table of what every status means.

    It goes by the HTTP status and by whether the body is in the API's own form, because the SDK's exception classes
    differ between the supported versions, and because a proxy, a gateway or Cloudflare may answer in the API's place.

    ================================ ========== ========== ==========
    answer                           create     messages   the others
    ================================ ========== ========== ==========
    not sent (nobody there), 522     transient  transient  transient
    429, in any form                 transient  transient  transient
    own 529 ``overloaded_error``     transient  transient  transient
    own 408, 409, 425                transient  transient  transient
    404, in any form                 not found  not found  not found
    501, in any form                 permanent  ambiguous  transient
    any other own 4xx                permanent  permanent  permanent
    301, 302, 307, 308               permanent  permanent  transient
    any other 3xx or 4xx             ambiguous  ambiguous  transient
    everything else, and no answer   ambiguous  ambiguous  transient
    ================================ ========== ========== ==========

    Redirects are not followed: for what spends money the address is wrong, for a look they may be a passing page.
    What costs money is repeated only after an answer that is known to mean "not executed". A 500 or 504 in the API's
    own form is none: Anthropic documents it as "an unexpected error" and "timed out while processing", and nowhere
    that it is not billed. 520, 503 and 524 were recorded at the API's own host after the answer was made. A 404 comes
    from whoever finds nothing at the address, so that nothing ran; in another form than the API's it says nothing of a
    batch, see ``sightings.not_found``. A 403 that is not the API's own was recorded there too, and passed by itself:
    see ``is_foreign_refusal`` for how long reading calls wait for that.

    Args:
        endpoint: what was called; only ``create`` and ``messages`` spend money.
        status: the HTTP status; None: no answer, or one of status 200 that cannot be read.
        own: the body is in the API's own form.
        error_type: the ``error.type`` of such a body.
        sent: False if the request certainly never left (connection refused, no free connection).
    """
    if not sent or status in (429, _NOT_REACHED) or (own and status == 529 and error_type == "overloaded_error"):
        return errors.TransientError
    if status == 404:
        return errors.NotFoundError
    if status == _NOT_IMPLEMENTED and endpoint == "create":
        return errors.BatchesUnsupported
    if own and status is not None and 400 <= status < 500:
        return errors.TransientError if status in _PASSING_REFUSALS else errors.PermanentError
    if endpoint not in ("create", "messages"):
        return errors.TransientError
    return errors.PermanentError if status in _REDIRECTS else errors.AmbiguousError


def is_foreign_refusal(status: int | None, error_type: str | None) -> bool:
    """Whether an error is a refusal (3xx, 4xx, 501) by something in front of the API that may never pass.

    Such as a challenge page, a login page, a gateway's own 401. Reading calls wait for its end for
    ``proxy_error_grace`` seconds.

    Args:
        status, error_type: the error's; only what is in the API's own form has a type.
    """
    if error_type is not None or status is None or status in _PASSING_REFUSALS:
        return False
    return 300 <= status < 500 or status == _NOT_IMPLEMENTED


def may_pass(status: int | None) -> bool:
    """Whether a foreign refusal of a create is worth another create: of these only a 403 passed by itself."""
    return status == 403


def concerns_request(status: int | None) -> bool:
    """Whether a permanent error is about the one request alone, which then has errored."""
    return status in _ABOUT_THE_REQUEST


class BodyLimit(NamedTuple):
    """How much of an answer is read."""

    size: int | None
    """Bytes, unpacked; None: as many as there are, one after the other."""
    seconds: float
    """From its first byte to its last."""
    cut: bool = False
    """What is over is left unread, and no error."""


def body_limit(endpoint: Endpoint, *, stream: bool = False) -> BodyLimit:
    """How much of an endpoint's answer is read."""
    if endpoint == "results":
        return BodyLimit(None, DOWNLOAD_SECONDS)
    if endpoint == "messages":
        return BodyLimit(STREAM_BYTES if stream else ANSWER_BYTES, ANSWER_SECONDS)
    return BodyLimit(LISTING_BYTES, LOOK_SECONDS)


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
        except (KeyError, ValueError, TypeError, OverflowError):
            continue
        if seconds == seconds:  # not NaN
            return min(max(seconds, 0.0), LONGEST_HOLD)
    return None


def date(headers: Mapping[str, str]) -> float | None:
    """Return the time by the clock of whoever answered: its ``Date``, and the ``Age`` of what a cache had kept.

    ``None`` if it does not say so readably.
    """
    try:
        return parsedate_to_datetime(headers["date"]).timestamp() + min(max(float(headers.get("age", 0)), 0.0), 86_400)
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def ahead(date: float | None, now: float) -> float:
    """Return by how many seconds the clock that showed ``date`` is ahead of the one that shows ``now``.

    0 where they differ by no more than that comes to, or it is not known.
    """
    found = 0.0 if date is None else date - now
    return found if abs(found) > EXACT else 0.0


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
    return _reset(headers, now) if headers.get("anthropic-ratelimit-requests-remaining") == "0" else None


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


def concerns_account(
    error_type: str | None, message: str | None, *, status: int | None = None, code: str | None = None
) -> bool:
    """Whether all that the account sends meets this error: bad credentials, no credit, a spend limit, a hold.

    A 403 that is not in the API's own form (it has no type) is none: it may be a challenge page, which passes.

    Args:
        error_type, message, code: Anthropic's ``error.type``, ``error.message``, ``error.details.error_code``.
        status: the HTTP status; None: it stands in a result file.
    """
    if (status in _ACCOUNT_STATUS and (status, error_type) != (403, None)) or code in _ACCOUNT_CODES:
        return True
    if code and _ACCOUNT_CODE.search(code) and not _REQUEST_CODE.search(code):
        return True
    if status is None and error_type in _ACCOUNT_TYPES:
        return True
    return status not in (404, 529) and bool(_ACCOUNT_WORDS.search(message or ""))


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


def streams(model: str, max_tokens: int) -> bool:
    """Whether an answer may take so long that it must be streamed."""
    return max_tokens > (_SLOW_UNSTREAMED if model in _SOONER_STREAMED else LONGEST_UNSTREAMED)


def width(seconds: float | None) -> int:
    """How many calls one process makes at the same time when the quickest of its last ones took so long."""
    return NARROW if seconds is None else min(max(math.ceil(seconds / QUICK), NARROW), WIDE)


def limits(headers: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """What an answer of the Messages API says of its rate limits: how much a minute, how much is left.

    By ``requests``, ``tokens``, ``input-tokens`` and ``output-tokens``, each only if it says so readably.
    """
    found = {}
    for name in RATES:
        try:
            limit, left = (int(headers[f"anthropic-ratelimit-{name}-{what}"]) for what in ("limit", "remaining"))
        except (KeyError, ValueError):
            continue
        if 0 <= left <= _ABSURD and 0 < limit <= _ABSURD:
            found[name] = (limit, left)
    return found


def messages_hold(status: int, headers: Mapping[str, str], now: float) -> float | None:
    """For how many seconds a refusal asks all calls of the Messages API for its model to wait; None: it does not."""
    if status != 429:
        return None
    wait = retry_after(headers, now)
    if wait is None and headers.get("anthropic-ratelimit-requests-remaining") == "0":
        wait = _reset(headers, now)
    return HOLD if wait is None else max(wait, SHORTEST_MESSAGES_HOLD)


def _reset(headers: Mapping[str, str], now: float) -> float | None:
    try:
        reset = datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"].replace("Z", "+00:00"))
        return min(max(reset.timestamp() - now, 0.0), LONGEST_HOLD)
    except (KeyError, ValueError, OverflowError):
        return None
