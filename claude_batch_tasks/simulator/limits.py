"""The rate limits of the Messages API, in real time, which `Behaviour.minute_seconds` compresses."""

from __future__ import annotations

import math
import time
from datetime import datetime, timezone

from .prompts import ApiError
from .script import MESSAGE_OF, Behaviour

#: The limits that the headers show for those that are not enforced.
USUAL = {"requests": 4000, "input-tokens": 2_000_000, "output-tokens": 400_000}
#: From this limit on, the headers round the remaining tokens to thousands.
ROUNDED_FROM = 10_000


class Limits:
    """The used part of one account's limits. Nothing is used before its first call."""

    def __init__(self) -> None:
        self._began = self._settled = time.monotonic()
        #: The used amount of each enforced limit. It may exceed the limit: an answer counts in full.
        self._used: dict[str, float] = {}

    def admit_call(self, behaviour: Behaviour, input_tokens: int) -> None:
        """Count a call with so many input tokens.

        Raises:
            ApiError: a limit forbids the call.
        """
        # The length of an answer is not known beforehand: one remaining token is enough.
        needs = {"requests": 1, "input-tokens": input_tokens, "output-tokens": 1}
        self._release_free(behaviour)
        waits = [
            self._seconds_until(behaviour, limit, self._used[what] + needs[what] - limit)
            for what, limit in enforced_limits(behaviour).items()
            if self._used[what] + needs[what] > limit
        ]
        if waits:
            headers = {**self.describe_limits(behaviour), "retry-after": str(math.ceil(max(waits)))}
            if behaviour.minute_seconds < 60:
                # A whole second may be many compressed minutes.
                headers["retry-after-ms"] = str(math.ceil(max(waits) * 1000))
            raise ApiError("rate_limit_error", MESSAGE_OF["rate_limit_error"], headers=headers)
        self._count_use("requests", 1)
        self._count_use("input-tokens", input_tokens)

    def count_answer(self, behaviour: Behaviour, output_tokens: int) -> None:
        """Count an answer."""
        self._release_free(behaviour)
        self._count_use("output-tokens", output_tokens)

    def describe_limits(self, behaviour: Behaviour) -> dict[str, str]:
        """Return the headers that describe the limits at this moment."""
        self._release_free(behaviour)
        limits = enforced_limits(behaviour)
        # For each: the limit, what remains of it, and the seconds until all of it remains.
        rows: dict[str, tuple[int, int, float]] = {}
        for what, usual in USUAL.items():
            if what in limits:
                limit, used = limits[what], self._used[what]
                rows[what] = limit, max(0, int(limit - used)), self._seconds_until(behaviour, limit, used)
            else:
                rows[what] = usual, usual, 0.0
        inputs, outputs = rows["input-tokens"], rows["output-tokens"]
        rows["tokens"] = inputs[0] + outputs[0], inputs[1] + outputs[1], max(inputs[2], outputs[2])
        headers = {}
        for what, (limit, remaining, seconds) in rows.items():
            if what != "requests" and limit >= ROUNDED_FROM:
                remaining = min(limit, round(remaining, -3))
            prefix = f"anthropic-ratelimit-{what}"
            headers[f"{prefix}-limit"] = str(limit)
            headers[f"{prefix}-remaining"] = str(remaining)
            headers[f"{prefix}-reset"] = format_reset(time.time() + seconds)
        return headers

    def _release_free(self, behaviour: Behaviour) -> None:
        """Release what has become free since the last call."""
        minute = behaviour.minute_seconds
        before, self._settled = self._settled, time.monotonic()
        new_window = (self._settled - self._began) // minute > (before - self._began) // minute
        settled: dict[str, float] = {}
        for what, limit in enforced_limits(behaviour).items():
            used = self._used.get(what, 0.0)
            if behaviour.messages_limit == "bucket":
                settled[what] = max(0.0, used - (self._settled - before) * limit / minute)
            else:
                settled[what] = 0.0 if new_window else used
        self._used = settled

    def _count_use(self, what: str, amount: int) -> None:
        if what in self._used:
            self._used[what] += amount

    def _seconds_until(self, behaviour: Behaviour, limit: int, amount: float) -> float:
        """Return the real seconds until this amount of what is used is free again."""
        minute = behaviour.minute_seconds
        if behaviour.messages_limit == "bucket":
            return amount * minute / limit
        return minute - (self._settled - self._began) % minute


def format_reset(at: float) -> str:
    """Return a moment as the headers have it: whole seconds, and none before it."""
    return datetime.fromtimestamp(math.ceil(at), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def enforced_limits(behaviour: Behaviour) -> dict[str, int]:
    """Return the limits that are enforced, by their names in the headers."""
    limits = {
        "requests": behaviour.messages_per_minute,
        "input-tokens": behaviour.input_tokens_per_minute,
        "output-tokens": behaviour.output_tokens_per_minute,
    }
    return {what: limit for what, limit in limits.items() if limit is not None}
