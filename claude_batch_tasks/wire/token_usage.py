"""The ``usage`` of answers: which counters are added up, and what they are charged as."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from itertools import product
from typing import Annotated, Any

import msgspec

from claude_batch_tasks.pricing.prices import Used, geo_factor
from claude_batch_tasks.pricing.spending import Charge

#: The counters of ``usage`` that are added up for a job's summary.
USAGE = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")

#: More tokens than any answer has. Sums of such counts, and their costs, fit into 64 bits.
_MOST_TOKENS = 10**9

#: A counter; any other value makes the usage odd, see ``read_usage``.
_Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST_TOKENS)]


class _CacheCreation(msgspec.Struct, gc=False):
    ephemeral_1h_input_tokens: _Count | None = None


class _ServerToolUse(msgspec.Struct, gc=False):
    web_search_requests: _Count | None = None
    web_fetch_requests: _Count | None = None

    @property
    def runs(self) -> int:
        """How many times tools ran."""
        return (self.web_search_requests or 0) + (self.web_fetch_requests or 0)


class _Counters(msgspec.Struct, gc=False):
    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    cache_creation_input_tokens: _Count | None = None
    cache_read_input_tokens: _Count | None = None
    cache_creation: _CacheCreation | None = None
    server_tool_use: _ServerToolUse | None = None

    @property
    def used(self) -> Used:
        """The counters that cost something."""
        written, tools = self.cache_creation_input_tokens or 0, self.server_tool_use
        # Tokens written to the cache for an hour; the rest is written for five minutes.
        longer = min((self.cache_creation.ephemeral_1h_input_tokens or 0) if self.cache_creation else 0, written)
        return Used(
            self.input_tokens or 0,
            self.output_tokens or 0,
            self.cache_read_input_tokens or 0,
            written - longer,
            longer,
            (tools.web_search_requests or 0) if tools else 0,
        )

    @property
    def tokens(self) -> Used:
        """The counters of tokens that cost something."""
        return self.used._replace(web_searches=0)


class _Iteration(_Counters, gc=False):
    """The usage of one prompt within a request: of the model itself, or of another one that works for it."""

    type: str | None = None
    model: str | None = None


class Usage(_Counters, gc=False):
    iterations: list[_Iteration] | None = None
    inference_geo: str | None = None
    service_tier: str | None = None
    speed: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the listed prices of its model apply to its counters as they are."""
        tools = self.server_tool_use
        return (
            self.iterations is None
            and (tools is None or not tools.runs)
            and (self.service_tier, self.inference_geo, self.speed) in _USUAL
        )

    def list_charges(self, model: str, window: int | None) -> list[Charge]:
        """Return the charges that the usage consists of.

        Args:
            model: the model that gave the answer.
            window: the most tokens of a prompt for that model.
        """
        odd = _odd_price(self.speed, self.service_tier, self.inference_geo)
        factor = geo_factor(self.inference_geo) or Decimal(1)
        charges = _charges_of_iterations(self, model) or [_charge_of_sum(self, model, window)]
        if odd is not None:
            charges = [charge._replace(unpriced=charge.unpriced or f"{charge.model} ({odd})") for charge in charges]
        if searches := (self.server_tool_use or _ServerToolUse()).web_search_requests:
            charges.append(Charge(model, Used(web_searches=searches)))
        return [charge._replace(factor=factor) for charge in charges]


_USUAL_GEO = (None, "", "global", "not_available")
_USUAL_TIER = (None, "standard", "batch")
_USUAL_SPEED = (None, "standard")
_USUAL = frozenset(product(_USUAL_TIER, _USUAL_GEO, _USUAL_SPEED))


def _odd_price(speed: str | None, tier: str | None, geo: str | None) -> str | None:
    """Return why the price of an answer's tokens is not the listed one and not known; None: it is known."""
    if speed not in _USUAL_SPEED:
        return f"speed {speed}"
    if tier not in _USUAL_TIER:
        return f"service tier {tier}"
    return f"inference in {geo}" if geo_factor(geo) is None else None


def _charge_of_sum(usage: Usage, model: str, window: int | None) -> Charge:
    """Return the one charge of a usage that does not list its prompts."""
    runs = usage.server_tool_use.runs if usage.server_tool_use else 0
    if not runs:
        return Charge(model, usage.tokens)
    # A loop of server tools sums up its prompts; none of these is longer than the window.
    prompt = usage.tokens.total_input // (1 + runs)
    return Charge(model, usage.tokens, input_of_one=prompt if window is None else min(prompt, window))


def _charges_of_iterations(usage: Usage, model: str) -> list[Charge]:
    """Return the charges by the prompts that made up an answer; none if the usage does not list them.

    The counters beside the list leave out what compaction, an advisor and a fallback model used, and may sum up the
    prompts of a tool loop. An attempt that was declined before it had any output is not charged.
    """
    if not (entries := usage.iterations):
        return []
    by_fallback = [entry.tokens for entry in entries if entry.type == "fallback_message"]
    charges = [_charge_of(entry, model) for entry in entries if not (by_fallback and _was_declined(entry))]
    listed = any(entry.type == "message" for entry in entries) or _add_up(by_fallback, usage.tokens)
    return charges if listed else [Charge(model, usage.tokens), *charges]


def _charge_of(entry: _Iteration, model: str) -> Charge:
    name = entry.model or model
    known = entry.type in ("message", "compaction") or (entry.type in _OF_OTHERS and entry.model is not None)
    return Charge(name, entry.tokens, unpriced=None if known else f"{name} ({entry.type})")


def _add_up(parts: list[Used], whole: Used) -> bool:
    return bool(parts) and Used(*map(sum, zip(*parts, strict=True))) == whole


def _was_declined(entry: _Iteration) -> bool:
    return entry.type == "message" and (entry.output_tokens or 0) <= _NO_OUTPUT


#: The most output tokens of an attempt that was declined before it said anything: the first token is counted when the
#: output begins.
_NO_OUTPUT = 1

#: Types of entries that are charged at the price of another model than the answer's.
_OF_OTHERS = ("advisor_message", "fallback_message")


def read_usage(raw: Any) -> Usage | None:
    """Read as much of an odd usage as possible."""
    if not isinstance(raw, dict):
        return None
    usage = msgspec.convert(usage_of(raw), Usage)
    for name in ("inference_geo", "service_tier", "speed"):
        value = raw.get(name)
        setattr(usage, name, value if value is None or isinstance(value, str) else "unreadable")
    entries = raw.get("iterations")
    if entries:
        usage.iterations = [_read_iteration(entry) for entry in (entries if isinstance(entries, list) else [entries])]
    with suppress(msgspec.ValidationError):
        usage.cache_creation = msgspec.convert(raw.get("cache_creation"), _CacheCreation | None)
    with suppress(msgspec.ValidationError):
        usage.server_tool_use = msgspec.convert(raw.get("server_tool_use"), _ServerToolUse | None)
    return usage


def _read_iteration(raw: Any) -> _Iteration:
    try:
        return msgspec.convert(raw, _Iteration)
    except msgspec.ValidationError:
        return _Iteration(type="unreadable")


def usage_of(raw: Any) -> dict[str, int]:
    """Return the counters of USAGE in a message's ``usage``."""
    if not isinstance(raw, dict):
        return {}
    counts = {name: raw.get(name) for name in USAGE}
    return {name: n for name, n in counts.items() if type(n) is int and 0 <= n <= _MOST_TOKENS}
