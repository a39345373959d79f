"""What answers say of rate limits, and how many calls are made at the same time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

#: A 429 without a Retry-After holds all calls on the account back for the first of these, seconds; one with it for no
#: less than the second, and no answer for longer than the third.
HOLD = 10.0
SHORTEST_HOLD = 1.0
LONGEST_HOLD = 600.0

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


def hold_back(status: int, headers: Mapping[str, str], now: float) -> float | None:
    """For how many seconds an answer asks all calls on its account to wait; None: it does not.

    A 429 does, and so does an answer that says that no request is left (``anthropic-ratelimit-requests-remaining``).
    """
    if status == 429:
        wait = retry_after(headers, now)
        return HOLD if wait is None else max(wait, SHORTEST_HOLD)
    return _reset(headers, now) if headers.get("anthropic-ratelimit-requests-remaining") == "0" else None


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
