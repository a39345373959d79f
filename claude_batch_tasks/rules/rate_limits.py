"""What answers say about rate limits, and how many calls are made at the same time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

#: Seconds. A 429 without a Retry-After pauses all calls on the account for the first of these; a 429 with one for at
#: least the second; and no answer pauses them for longer than the third.
DEFAULT_PAUSE = 10.0
SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 600.0

#: Number of senders, each with its own Celery message, that work side by side on a batch's requests to the Messages
#: API.
SENDERS = 8

#: The least and the most calls that one sender makes at the same time. The number is how many times
#: ``FAST_CALL_SECONDS`` fits into the duration of the quickest recent call. A sender whose calls are fast enough one
#: after the other needs no more, and calls that run when a process is killed are lost.
MIN_CONCURRENCY, MAX_CONCURRENCY = 2, 16
FAST_CALL_SECONDS = 0.02

#: Seconds for which a sender starts new calls before it gives its worker to other tasks.
SENDER_TIME_SLICE = 10.0

#: Calls in flight with which an account's limits are tried at first.
FIRST_IN_FLIGHT = 8

#: A 429 of the Messages API pauses its calls for at least so many seconds: its Retry-After may be rounded down.
SHORTEST_MESSAGES_PAUSE = 0.1

#: What the Messages API limits per minute, under the names in its headers.
RATE_LIMITS = ("requests", "tokens", "input-tokens", "output-tokens")
_MOST_A_MINUTE = 10**12


def read_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds a response asks us to wait: ``retry-after-ms``, else ``Retry-After`` as seconds or HTTP date.

    Returns:
        From 0 to ten minutes (a longer wait is asked for again by the next answer); ``None`` if the headers ask for
        nothing or cannot be read.
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
            return min(max(seconds, 0.0), LONGEST_PAUSE)
    return None


def pause_of_account(status: int, headers: Mapping[str, str], now: float) -> float | None:
    """Return for how many seconds an answer asks all calls on its account to pause; None: it does not.

    A 429 asks for it, and so does an answer that says that no request is left
    (``anthropic-ratelimit-requests-remaining``).
    """
    if status == 429:
        wait = read_retry_after(headers, now)
        return DEFAULT_PAUSE if wait is None else max(wait, SHORTEST_PAUSE)
    return _seconds_until_reset(headers, now) if headers.get("anthropic-ratelimit-requests-remaining") == "0" else None


def choose_concurrency(seconds: float | None) -> int:
    """Return how many calls one sender makes at the same time if the quickest of its last calls took ``seconds``."""
    return (
        MIN_CONCURRENCY
        if seconds is None
        else min(max(math.ceil(seconds / FAST_CALL_SECONDS), MIN_CONCURRENCY), MAX_CONCURRENCY)
    )


def read_rate_limits(headers: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Return what an answer of the Messages API says about its rate limits: how much per minute, and how much is left.

    Returns:
        ``(limit, remaining)`` by ``requests``, ``tokens``, ``input-tokens`` and ``output-tokens``; a name is missing if
        its headers cannot be read.
    """
    found = {}
    for name in RATE_LIMITS:
        try:
            limit, left = (int(headers[f"anthropic-ratelimit-{name}-{what}"]) for what in ("limit", "remaining"))
        except (KeyError, ValueError):
            continue
        if 0 <= left <= _MOST_A_MINUTE and 0 < limit <= _MOST_A_MINUTE:
            found[name] = (limit, left)
    return found


def pause_of_model(status: int, headers: Mapping[str, str], now: float) -> float | None:
    """Return for how many seconds a refusal asks all Messages API calls for its model to pause; None: it does not."""
    if status != 429:
        return None
    wait = read_retry_after(headers, now)
    if wait is None and headers.get("anthropic-ratelimit-requests-remaining") == "0":
        wait = _seconds_until_reset(headers, now)
    return DEFAULT_PAUSE if wait is None else max(wait, SHORTEST_MESSAGES_PAUSE)


def _seconds_until_reset(headers: Mapping[str, str], now: float) -> float | None:
    try:
        reset = datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"].replace("Z", "+00:00"))
        return min(max(reset.timestamp() - now, 0.0), LONGEST_PAUSE)
    except (KeyError, ValueError, OverflowError):
        return None
