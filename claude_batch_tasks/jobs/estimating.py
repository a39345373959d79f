"""The estimate of a job's cost from its requests alone: no network, no store and no Celery app are needed."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from claude_batch_tasks import outputs
from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.jobs import notebook_html
from claude_batch_tasks.pricing.prices import Prices, check_overrides
from claude_batch_tasks.pricing.request_bounds import PricedRequest, describe_unknown, sum_known
from claude_batch_tasks.records import PublicStruct
from claude_batch_tasks.settings import prices_of
from claude_batch_tasks.wire import batch_requests
from claude_batch_tasks.wire.custom_ids import Index

#: Anthropic's limits for a batch; a project's settings may make batches smaller, which changes no price.
_MOST_REQUESTS = 100_000
_MOST_BYTES = 256_000_000


class Estimate(PublicStruct, frozen=True, kw_only=True):
    """What a job would cost, in USD. ``str()`` says it in one line.

    Answers are taken to be as long as ``max_tokens`` allow, nothing to be read from a cache, and what is marked for a
    cache to be written to it. Tokens of text are estimated by its bytes.
    """

    requests: int
    input_tokens: int
    """Estimated; a document of unknown size is taken for a small one."""
    max_output_tokens: int
    """The sum of ``max_tokens``: no answer is longer."""
    cost: float | None
    """Through batches, where each part in ``unknown`` is as large as the model's context window allows; None: the price
    of a model is not known, or nothing limits what a part of ``unknown`` leads to."""
    fallback_cost: float | None
    """If all of them went through the Messages API instead."""
    by_model: dict[str, float | None]
    """``cost``, by model."""
    at_least: float | None = None
    """Through batches, without what is ``unknown`` and with answers of no length; None: nothing is unknown."""
    unknown: dict[str, int] = msgspec.field(default_factory=dict)
    """What the requests do not say the size or the price of, and how often: ``{"file": 4}``."""

    @property
    def reasons(self) -> str:
        """Why ``cost`` is no estimate: ``4 files whose size is not known``; empty if it is one."""
        return describe_unknown(self.unknown)

    def _repr_html_(self) -> str:
        """Return a table, which notebooks show."""
        rows = {
            "Requests": f"{self.requests:,}",
            "Input tokens": f"about {self.input_tokens:,}",
            "Output tokens": f"at most {self.max_output_tokens:,}",
            "Cost": str(self),
            **{f"Cost of {model}": notebook_html.format_dollars(cost) for model, cost in self.by_model.items()},
            "Cost by the Messages API": notebook_html.format_dollars(self.fallback_cost),
        }
        return notebook_html.format_table("Estimate", rows)

    def __str__(self) -> str:
        if not self.unknown:
            return f"about {_format_cost(self.cost)} with the longest answers"
        most = "no limit is known" if self.cost is None else f"up to {_format_cost(self.cost)}"
        return f"at least {_format_cost(self.at_least)}; {self.reasons} ({most})"


def estimate(
    requests: batch_requests.Requests,
    *,
    prices: Mapping[str, Mapping[str, float]] | None = None,
    output: Any = None,
) -> Estimate:
    """Return what a job would cost.

    One pass, holding about a megabyte of the requests and a few bytes for each.

    Args:
        requests: any iterable of ``{"custom_id": ..., "params": {...}}``, or a mapping of custom_id to params.
        prices: by model, in place of the known ones, as the setting ``claude_batch_prices`` has them; default: that of
            the current Celery app.
        output: the type of the answers, as ``run_batch`` takes it: its JSON schema is a part of each request.

    Raises:
        InvalidRequests: they could not be sent as they are.
        InvalidSettings: answers cannot have such a type.
        ValueError: the prices are not valid.
    """
    known = Prices(check_overrides(_configured_prices() if prices is None else prices))
    spec = outputs.describe_output(output)
    pieces = batch_requests.cut_batches(
        requests,
        nonce=secrets.token_hex(8),
        index=Index(),
        max_requests=_MOST_REQUESTS,
        max_bytes=_MOST_BYTES,
        prepare=None if spec is None else outputs.OutputSender(spec).add_output,
    )
    totals: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    at_least = Decimal()
    cost: dict[str, Decimal | None] = {}
    fallback: dict[str, Decimal | None] = {}
    for piece in pieces:
        for params in map(msgspec.json.decode, batch_requests.params_of(piece.body)):
            model = str(params["model"])
            found = PricedRequest(params, known, batch=True)
            batch, messages = found.cost_range(), found.through_messages().cost_range()
            totals.update(requests=1, input=found.inputs.tokens, output=params["max_tokens"])
            unknown.update(found.unknown)
            at_least += found.least_cost()
            cost[model] = sum_known(cost.get(model, Decimal()), batch[1] if batch else None)
            fallback[model] = sum_known(fallback.get(model, Decimal()), messages[1] if messages else None)
    return Estimate(
        requests=totals["requests"],
        input_tokens=totals["input"],
        max_output_tokens=totals["output"],
        cost=_as_dollars(sum_known(*cost.values())),
        fallback_cost=_as_dollars(sum_known(*fallback.values())),
        by_model={model: _as_dollars(amount) for model, amount in cost.items()},
        at_least=float(at_least) if unknown else None,
        unknown=dict(unknown),
    )


def _configured_prices() -> Any:
    try:
        return prices_of(configured_app())
    except InvalidSettings:  # there are several apps, and none of them is named
        return {}


def _as_dollars(amount: Decimal | None) -> float | None:
    return None if amount is None or not amount.is_finite() else float(amount)


def _format_cost(amount: float | None) -> str:
    return "unknown" if amount is None else f"${amount:,.4g}"
