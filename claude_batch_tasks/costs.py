"""What a job's answers have cost: their usage added up by model, and priced once.

Costs are kept as ``{model: exact decimal of USD as text, or None if the model's price is not known}``.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Protocol

from claude_batch_tasks.prices import Prices, Used

Costs = dict[str, "str | None"]

#: The smallest part of a dollar that budgets count in.
_NANO = 1_000_000_000

#: What an answer that does not say so is listed under.
_NO_MODEL = "unknown"


class Usage(Protocol):
    """The usage of one answer."""

    @property
    def used(self) -> Used: ...


class Meter:
    """Adds up what answers of one kind cost.

    Args:
        batch: they come from a batch, at half the price.
        at: when they were asked for, epoch seconds.
    """

    def __init__(self, prices: Prices, *, batch: bool, at: float | None = None) -> None:
        self._prices, self._batch, self._at = prices, batch, at
        #: By model and step of its prices: the sums, and the input of one answer.
        self._sums: dict[tuple[str | None, int], tuple[list[int], int]] = {}

    def add(self, model: str | None, usages: Iterable[Usage | None]) -> None:
        """Count answers of a model; one without usage, or without a model, has no price."""
        steps = self._prices.steps(model, at=self._at) if model else ()
        parts: dict[tuple[str | None, int], list[Used]] = {}
        for usage in usages:
            if usage is None:
                parts.setdefault((None, 0), []).append(Used())
                continue
            used = usage.used
            step = bisect_left(steps, used.total_input) if steps else 0
            parts.setdefault((model, step), []).append(used)
        for key, part in parts.items():
            sums, _ = self._sums.setdefault(key, ([0] * len(Used._fields), part[0].total_input))
            sums[:] = map(sum, zip(sums, *part, strict=True))

    def costs(self) -> Costs:
        """What they have cost so far."""
        found: Costs = {}
        for (model, _), (sums, input_of_one) in self._sums.items():
            cost = None
            if model is not None:
                cost = self._prices.cost(model, Used(*sums), batch=self._batch, at=self._at, input_of_one=input_of_one)
            found = merged(found, {model or _NO_MODEL: None if cost is None else str(cost)})
        return found


def merged(*parts: Mapping[str, str | None]) -> Costs:
    """The sum of costs; what holds something unknown is not known."""
    found: Costs = {}
    for part in parts:
        for model, cost in part.items():
            if model not in found:
                found[model] = cost
            else:
                had = found[model]
                found[model] = None if had is None or cost is None else str(Decimal(had) + Decimal(cost))
    return found


def total(costs: Mapping[str, str | None]) -> Decimal | None:
    """USD in all; None if the price of a model is not known."""
    known = [Decimal(cost) for cost in costs.values() if cost is not None]
    return sum(known, Decimal(0)) if len(known) == len(costs) else None


def dollars(nano: int) -> float:
    """Nano-dollars as what they are of a dollar."""
    return nano / _NANO


def nano(dollars: Decimal | float) -> int:
    """As whole nano-dollars, rounded up: budgets count in them."""
    return math.ceil(Decimal(str(dollars)) * _NANO)
