"""What one request may cost: the least and the most, and how much money a budget must have left for it."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from claude_batch_tasks import rules
from claude_batch_tasks.formatting import format_count
from claude_batch_tasks.pricing import input_sizes, spending
from claude_batch_tasks.pricing.input_sizes import Advisor, Inputs
from claude_batch_tasks.pricing.prices import Prices, Used, geo_factor

_ENDLESS = Decimal("Infinity")


class Unbounded(NamedTuple):
    """The reason why there is no upper bound on what a request may cost."""

    field: str
    """The field of the request that causes it."""
    why: str
    """The beginning of a sentence, and what to do: ``... is not known; add ...``."""


class Need(NamedTuple):
    """How much money a budget must have left for a request, in USD."""

    input: Decimal
    """For its input; for parts of unknown size, as much as fits into the model's context window."""
    most: Decimal
    """For its input at one token per byte, and the longest answer: the request cannot cost more."""


def tokens_of(params: Mapping[str, Any]) -> int:
    """Estimate the input tokens of one request; the JSON may have any shape."""
    return input_sizes.measure_inputs(params).tokens


def budget_need(params: Mapping[str, Any], prices: Prices, *, batch: bool) -> Need | Unbounded:
    """Return how much money a budget must have left for one request, or why that is not known."""
    return PricedRequest(params, prices, batch=batch).budget_need()


class BatchNeed(NamedTuple):
    """How much money a budget must have left for several requests, in nano-dollars."""

    input: int
    most: int
    unknown: Counter[str]
    """Parts of the requests whose size is not known, as in ``Estimate.unknown``."""


def batch_need(requests: Iterable[bytes], prices: Prices) -> BatchNeed | tuple[int, Unbounded]:
    """Return how much money a budget must have left for the requests of a batch.

    Args:
        requests: the params of each, as JSON.

    Returns:
        The sums; or, for the first request without an upper bound, its number and the reason.
    """
    needed = most = 0
    unknown: Counter[str] = Counter()
    for number, params in enumerate(map(json.loads, requests)):
        request = PricedRequest(params, prices, batch=True)
        found = request.budget_need()
        if isinstance(found, Unbounded):
            return number, found
        needed, most = needed + spending.to_nano_dollars(found.input), most + spending.to_nano_dollars(found.most)
        unknown.update(request.unknown)
    return BatchNeed(needed, most, unknown)


class PricedRequest:
    """The cost of one request: what it may read and write, and the prices of that."""

    def __init__(self, params: Mapping[str, Any], prices: Prices, *, batch: bool) -> None:
        self.inputs: Inputs = input_sizes.measure_inputs(params)
        self._prices, self._batch = prices, batch
        self._model, self._output = str(params["model"]), params["max_tokens"]
        self._factor = None if params.get("speed") == "fast" else geo_factor(params.get("inference_geo"))
        self._fast, self._fallbacks = params.get("speed") == "fast", params.get("fallbacks")

    @property
    def unknown(self) -> dict[str, int]:
        """Number of parts, or of requests, that have no known size or price, by what they are."""
        found = dict(self.inputs.unknown)
        if self.inputs.endless is not None:
            found[f"request with {self.inputs.endless[1]}"] = 1
        elif self.inputs.prompts > 1:
            found["request with server tools"] = 1
        if self.inputs.compacted:
            found["request with compaction"] = 1
        if self._fallbacks:
            found["request with fallback models"] = 1
        if self._why_unpriced() is not None:
            found[f"request of {self._model}{' in fast mode' if self._fast else ''}"] = 1
        return found

    def through_messages(self) -> PricedRequest:
        """Return the same request at the price of the Messages API."""
        other = copy.copy(self)
        other._batch = False
        return other

    def least_cost(self) -> Decimal:
        """Return what the request costs without its answer, and without the parts of unknown size."""
        if self._why_unpriced() is not None:
            return Decimal()
        return self._prompt_cost(self._model, self.inputs.tokens - self.inputs.assumed, 0, ttl=None) or Decimal()

    def cost_range(self) -> tuple[Decimal, Decimal] | None:
        """Estimate the least and the most that the request costs, in USD; None: the price is not known.

        The least is the price of the input, without any discount for cached tokens. The most adds ``max_tokens`` of
        output, and takes the input at the highest price of cache writes that the request asks for. Parts of unknown
        size count as large as they may be, and the most is infinity if nothing limits them.
        """
        if self._why_unpriced() is not None:
            return None
        least = self._prompt_cost(self._model, self.inputs.tokens, 0, ttl=None)
        assert least is not None
        needed = self._cost_limit(self._largest_prompt(self.inputs.tokens), self._output, ttl=self.inputs.ttl)
        return least, _ENDLESS if isinstance(needed, Unbounded) else max(needed, least)

    def budget_need(self) -> Need | Unbounded:
        """Return how much money a budget must have left for the request, or why that is not known."""
        if (unpriced := self._why_unpriced()) is not None:
            return unpriced
        needed = self._cost_limit(self._largest_prompt(self.inputs.tokens), 0, ttl=None)
        if isinstance(needed, Unbounded):
            return needed
        most = self._cost_limit(self._largest_prompt(self.inputs.most), self._output, ttl=self.inputs.ttl)
        assert isinstance(most, Decimal)
        return Need(needed, max(most, needed))

    def _why_unpriced(self) -> Unbounded | None:
        if self._fast:
            return Unbounded("params.speed", "the price of fast mode is not known; leave it out")
        if self._factor is None:
            return Unbounded("params.inference_geo", "the price of inference there is not known; leave it out")
        if not self._prices.has_price(self._model):
            return Unbounded("params.model", f"the price of {self._model} is not known; add it to claude_batch_prices")
        return None

    def _largest_prompt(self, tokens: int) -> int | None:
        """Return the most input tokens of one prompt, with ``tokens`` in its parts of known size; None: no limit."""
        window = self._prices.context_window(self._model, widest=True)
        if self.inputs.unknown or self.inputs.prompts > 1:
            return window
        return tokens if window is None else min(tokens, window)

    def _cost_limit(self, prompt: int | None, output: int, *, ttl: str | None) -> Decimal | Unbounded:
        """Return what all prompts cost if each has ``prompt`` input tokens and an answer of ``output`` tokens."""
        found = self.inputs
        if found.endless is not None:
            field, what = found.endless
            todo = "limit its uses" if field == "params.tools" else "leave them out"
            return Unbounded(field, f"nothing limits how many prompts {what} may take; {todo}")
        if prompt is None:
            field = "params.tools" if not found.unknown else "params.messages"
            return Unbounded(field, f"the context window of {self._model} is not known; send the content itself")
        total = Decimal()
        for times, cost in self._list_costs(prompt, output, ttl):
            if cost is None:
                return Unbounded(
                    "params.tools" if found.advisors else "params.fallbacks",
                    "the prices of the other models that may answer are not known; add them to claude_batch_prices",
                )
            total += times * cost
        searches = self._prices.compute_cost(self._model, Used(web_searches=found.searches), batch=self._batch)
        return total + (searches or 0)

    def _list_costs(self, prompt: int, output: int, ttl: str | None) -> Iterator[tuple[int, Decimal | None]]:
        """Yield how often each model may be prompted, and what each time costs at most; None: that is not known."""
        found = self.inputs
        longest = rules.LONGEST_MESSAGE if output else 0
        yield found.prompts, self._prompt_cost(self._model, prompt, output, ttl=ttl)
        if found.compacted:
            yield found.prompts, self._prompt_cost(self._model, prompt, longest, ttl=ttl)
        for advisor in found.advisors:
            yield advisor.uses, self._advice_cost(advisor, longest)
        for fallback in self._fallbacks if isinstance(self._fallbacks, list) else [self._fallbacks]:
            if fallback is not None:
                model = fallback.get("model") if isinstance(fallback, dict) else None
                yield found.prompts, self._prompt_cost(str(model), prompt, output, ttl=ttl) if model else None

    def _advice_cost(self, advisor: Advisor, longest: int) -> Decimal | None:
        window = self._prices.context_window(advisor.model, widest=True)
        if window is None:
            return None
        written = longest if advisor.output_tokens is None or not longest else advisor.output_tokens
        return self._prompt_cost(advisor.model, window, written, ttl="1h")

    def _prompt_cost(self, model: str, tokens: int, output: int, *, ttl: str | None) -> Decimal | None:
        """Return what one prompt of ``tokens`` and its answer cost; None: the price is not known."""
        field = {None: "input_tokens", "5m": "cache_write_5m", "1h": "cache_write_1h"}[ttl]
        used = Used(output_tokens=output, **{field: tokens})
        return self._prices.compute_cost(model, used, batch=self._batch, factor=self._factor or Decimal(1))


def describe_unknown(unknown: Mapping[str, int]) -> str:
    """Describe in words what has no known size or price."""
    parts: list[str] = []
    for what, count in unknown.items():
        if what.startswith("request"):
            rest = what.removeprefix("request")
            why = " whose price is not known" if rest.startswith(" of ") else ", which may take more than one prompt"
            parts.append(f"{format_count(count, 'request')}{rest}{why}")
        else:
            name, _, more = what.partition(" ")
            parts.append(f"{format_count(count, name)}{' ' + more if more else ''} whose size is not known")
    return "; ".join(parts)


def sum_known(*amounts: Decimal | None) -> Decimal | None:
    """Sum the amounts; return None if one of them is not known."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal()) if len(known) == len(amounts) else None
