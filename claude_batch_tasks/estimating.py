"""What a job would cost, estimated from its requests alone: no network, no store and no Celery app are needed."""

from __future__ import annotations

import json
import math
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from claude_batch_tasks import costs
from claude_batch_tasks import requests as wire
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.index import Index
from claude_batch_tasks.prices import Prices, Used, check_overrides

#: UTF-8 bytes of text that make about one token, and tokens that come with every message.
TEXT_BYTES = 3.5
PER_MESSAGE = 4

#: Tokens of an image, whatever its bytes: Anthropic scales larger ones down to about this many.
IMAGE = 1_600

#: Tokens of a document at least, as of one whose size is not known, and bytes of it that make about one token.
DOCUMENT = 2_000
DOCUMENT_BYTES = 25

#: Anthropic's limits; the settings of a project may cut batches smaller, which changes no price.
_MOST_REQUESTS = 100_000
_MOST_BYTES = 256_000_000


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a job would cost.

    Costs are in USD and at most: the output is as long as ``max_tokens`` allow, nothing is read from a cache, and what
    is marked for a cache is written to it. The input is estimated, and does not hold what server tools add to it.
    """

    requests: int
    input_tokens: int
    """Estimated."""
    max_output_tokens: int
    """The sum of ``max_tokens``: no answer is longer."""
    cost: float | None
    """Through batches; None: the price of a model is not known."""
    fallback_cost: float | None
    """If all of them went through the Messages API instead."""
    by_model: dict[str, float | None]
    """``cost``, by model."""


def estimate(
    requests: Iterable[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]],
    *,
    prices: Mapping[str, Mapping[str, float]] | None = None,
) -> Estimate:
    """What a job would cost.

    One pass, holding about a megabyte of the requests and a few bytes for each.

    Args:
        requests: any iterable of ``{"custom_id": ..., "params": {...}}``, or a mapping of custom_id to params.
        prices: by model, in place of the known ones, as the setting ``claude_batch_prices`` has them; default: that of
            the current Celery app.

    Raises:
        InvalidRequests: they could not be sent as they are.
        ValueError: the prices make no sense.
    """
    known = Prices(check_overrides(_configured() if prices is None else prices))
    pieces = wire.cut(
        requests, nonce=secrets.token_hex(8), index=Index(), max_requests=_MOST_REQUESTS, max_bytes=_MOST_BYTES
    )
    totals: Counter[str] = Counter()
    cost: dict[str, Decimal | None] = {}
    fallback: dict[str, Decimal | None] = {}
    for piece in pieces:
        for params in map(msgspec.json.decode, wire.params_of(piece.body)):
            model = str(params["model"])
            least, most = _uses(params)
            totals.update(requests=1, input=least.input_tokens, output=most.output_tokens)
            cost[model] = _sum(cost.get(model, Decimal()), known.cost(model, most, batch=True))
            fallback[model] = _sum(fallback.get(model, Decimal()), known.cost(model, most, batch=False))
    return Estimate(
        requests=totals["requests"],
        input_tokens=totals["input"],
        max_output_tokens=totals["output"],
        cost=_usd(_sum(*cost.values())),
        fallback_cost=_usd(_sum(*fallback.values())),
        by_model={model: _usd(amount) for model, amount in cost.items()},
    )


def _configured() -> Any:
    from claude_batch_tasks.settings import PREFIX, configured_app  # which knows stores, and they us

    try:
        return configured_app().conf.get(f"{PREFIX}prices") or {}
    except InvalidSettings:  # there are several apps, and nothing says which is meant
        return {}


def tokens_of(params: Mapping[str, Any]) -> int:
    """The estimated input tokens of one request; of JSON of any shape."""
    return _measure(params)[0]


def bounds(params: Mapping[str, Any], prices: Prices, *, batch: bool) -> tuple[Decimal, Decimal] | None:
    """The least and the most that one request may cost, in USD; ``None``: the price of its model is not known.

    The least: its input, without any discount for cached tokens. The most: ``max_tokens`` of output with it, and the
    input at the dearest price of cache writes that the request asks for.
    """
    costs = [prices.cost(str(params["model"]), used, batch=batch) for used in _uses(params)]
    least, most = costs
    return None if least is None or most is None else (least, most)


def batch_bounds(requests: Iterable[bytes], prices: Prices) -> tuple[int, int] | str:
    """The least and the most that requests may cost in a batch, in nano-dollars; or the model whose price is not known.

    Args:
        requests: the params of each, as JSON.
    """
    least = most = 0
    for params in map(json.loads, requests):
        found = bounds(params, prices, batch=True)
        if found is None:
            return str(params["model"])
        least, most = least + costs.nano(found[0]), most + costs.nano(max(found))
    return least, most


def _uses(params: Mapping[str, Any]) -> tuple[Used, Used]:
    """The least and the most that a request may use."""
    tokens, ttl = _measure(params)
    field = {None: "input_tokens", "5m": "cache_write_5m", "1h": "cache_write_1h"}[ttl]
    return Used(input_tokens=tokens), Used(output_tokens=params["max_tokens"], **{field: tokens})


def _measure(params: Mapping[str, Any]) -> tuple[int, str | None]:
    """The estimated input tokens, and for how long they are to be cached at most: ``5m``, ``1h`` or not."""
    size = tokens = 0
    marks = [params.get("cache_control")]
    messages = params.get("messages")
    # A list of what is still to be looked at, and no recursion: there is no telling how deep it is nested.
    todo: list[Any] = [params.get("system"), params.get("tools")]
    for message in messages if isinstance(messages, list) else [messages]:
        tokens += PER_MESSAGE
        todo.append(message.get("content") if isinstance(message, dict) else message)
    while todo:
        part = todo.pop()
        if isinstance(part, str):
            size += _bytes(part)
        elif isinstance(part, (list, tuple)):
            todo += part
        elif isinstance(part, dict):
            marks.append(part.get("cache_control"))
            kind = part.get("type")
            if kind == "text":
                todo.append(part.get("text"))
            elif kind == "tool_result":
                todo.append(part.get("content"))
            elif kind == "image":
                tokens += IMAGE
            elif kind == "document":
                todo += (part.get("title"), part.get("context"))
                source = part.get("source")
                source = source if isinstance(source, dict) else {}
                if source.get("type") == "text":
                    todo.append(source.get("data"))
                elif source.get("type") == "content":
                    todo.append(source.get("content"))
                else:
                    # Base64 has four characters for three bytes; a url or a file has none of them here.
                    tokens += max(DOCUMENT, len(str(source.get("data", ""))) * 3 // 4 // DOCUMENT_BYTES)
            else:
                size += _bytes(part)
        elif part is not None:
            size += _bytes(part)
    asked = [mark for mark in marks if mark]
    ttl = "1h" if any(isinstance(mark, dict) and mark.get("ttl") == "1h" for mark in asked) else "5m"
    return tokens + math.ceil(size / TEXT_BYTES), ttl if asked else None


def _bytes(value: Any) -> int:
    """The length of a text in UTF-8, or of anything else as JSON."""
    if isinstance(value, str):
        return len(value.encode(errors="surrogatepass"))
    try:
        return len(msgspec.json.encode(value))
    except (TypeError, ValueError, RecursionError):
        return 0  # nothing that could be sent


def _sum(*costs: Decimal | None) -> Decimal | None:
    """None: one of them is not known."""
    known = [cost for cost in costs if cost is not None]
    return sum(known, Decimal()) if len(known) == len(costs) else None


def _usd(cost: Decimal | None) -> float | None:
    return None if cost is None else float(cost)
