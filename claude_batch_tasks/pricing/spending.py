"""What a job's answers have cost: their usage is added up by model, and then priced once.

Costs are stored as ``{model: exact decimal of USD as text, or None}``. Usage without a known price (a model, fast mode,
an answer without usage) has a name of its own there, so that it does not hide the costs that are known.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple, Protocol

from claude_batch_tasks.pricing.prices import Prices, Used

Costs = dict[str, "str | None"]

#: How many of the units that budgets count in make one dollar.
_NANO = 1_000_000_000

#: The name under which an answer without a model is listed.
_NO_MODEL = "unknown"


class Usage(Protocol):
    """The usage of one answer."""

    @property
    def used(self) -> Used: ...


class Charge(NamedTuple):
    """A part of an answer's usage that has one price."""

    model: str
    used: Used
    factor: Decimal = Decimal(1)
    """The factor on the listed prices of its tokens."""
    input_of_one: int | None = None
    """Input tokens of a single prompt, if the usage is the sum over several."""
    unpriced: str | None = None
    """The name under which it is listed if its price is not known."""


class Meter:
    """A sum of what answers of one kind cost.

    Args:
        batch: whether the answers come from a batch, at half the price.
        at: when the answers were requested, epoch seconds.
    """

    def __init__(self, prices: Prices, *, batch: bool, at: float | None = None) -> None:
        self._prices, self._batch, self._at = prices, batch, at
        #: The key is name, model, step of the model's prices, and factor; the value is the sums, the input of one
        #: answer, and the number of answers.
        self._sums: dict[tuple[str, str | None, int, Decimal], tuple[list[int], int, list[int]]] = {}

    def add_answers(self, model: str | None, usages: Iterable[Usage | None]) -> None:
        """Count answers of a model; an answer without usage or without a model has no price."""
        steps = self._prices.price_steps(model, at=self._at) if model else ()
        parts: dict[tuple[str, str | None, int], list[Used]] = {}
        for usage in usages:
            if usage is None or not model:
                parts.setdefault((_NO_MODEL, None, 0), []).append(Used())
                continue
            used = usage.used
            step = bisect_left(steps, used.total_input) if steps else 0
            parts.setdefault((model, model, step), []).append(used)
        for key, part in parts.items():
            self._add_usage((*key, Decimal(1)), part, part[0].total_input)

    def add_charge(self, charge: Charge) -> None:
        """Count a part of an answer."""
        if charge.unpriced is not None:
            self._add_usage((charge.unpriced, None, 0, charge.factor), [charge.used], 0)
            return
        prompt = charge.used.total_input if charge.input_of_one is None else charge.input_of_one
        step = bisect_left(self._prices.price_steps(charge.model, at=self._at), prompt)
        self._add_usage((charge.model, charge.model, step, charge.factor), [charge.used], prompt)

    def context_window(self, model: str) -> int | None:
        """Return the most tokens that a prompt for a model usually has; None: that is not known."""
        return self._prices.context_window(model)

    def _add_usage(self, key: tuple[str, str | None, int, Decimal], part: list[Used], input_of_one: int) -> None:
        sums, _, count = self._sums.setdefault(key, ([0] * len(Used._fields), input_of_one, [0]))
        sums[:] = map(sum, zip(sums, *part, strict=True))
        count[0] += len(part)

    def sum_costs(self) -> Costs:
        """Return what the answers have cost so far."""
        found: Costs = {}
        for key in self._sums:
            cost = self._compute_cost(key)
            found = merge_costs(found, {key[0]: None if cost is None else str(cost)})
        return found

    def count_unpriced(self) -> dict[str, int]:
        """Count the answers, or parts of answers, that have no known price, by their name in ``sum_costs``."""
        found: Counter[str] = Counter()
        for key, (_, _, count) in self._sums.items():
            if self._compute_cost(key) is None:
                found[key[0]] += count[0]
        return dict(found)

    def sum_savings(self) -> Decimal:
        """Return how much more, in USD, the same answers would have cost through the Messages API; 0 if they did."""
        if not self._batch:
            return Decimal(0)
        costs = ((self._compute_cost(key, batch=False), self._compute_cost(key)) for key in self._sums)
        return sum((full - half for full, half in costs if full is not None and half is not None), Decimal(0))

    def _compute_cost(self, key: tuple[str, str | None, int, Decimal], batch: bool | None = None) -> Decimal | None:
        _, model, _, factor = key
        sums, input_of_one, _ = self._sums[key]
        if model is None:
            return None
        batch = self._batch if batch is None else batch
        return self._prices.compute_cost(
            model, Used(*sums), batch=batch, at=self._at, input_of_one=input_of_one, factor=factor
        )


def merge_costs(*parts: Mapping[str, str | None]) -> Costs:
    """Sum costs by model; the sum is None if one of its parts is None."""
    found: Costs = {}
    for part in parts:
        for model, cost in part.items():
            if model not in found:
                found[model] = cost
            else:
                had = found[model]
                found[model] = None if had is None or cost is None else str(Decimal(had) + Decimal(cost))
    return found


def total_cost(costs: Mapping[str, str | None]) -> Decimal | None:
    """Return the sum over all models, in USD; None if the price of a model is not known."""
    known = [Decimal(cost) for cost in costs.values() if cost is not None]
    return sum(known, Decimal(0)) if len(known) == len(costs) else None


def total_known_cost(costs: Mapping[str, str | None]) -> Decimal:
    """Add up the known costs of all models, in USD."""
    return sum((Decimal(cost) for cost in costs.values() if cost is not None), Decimal(0))


def add_known_costs(parts: Iterable[Mapping[str, str | None]]) -> dict[str, Decimal | None]:
    """Add up the known costs by model, in USD; None: no cost of that model is known."""
    found: dict[str, Decimal | None] = {}
    for part in parts:
        for model, cost in part.items():
            had = found.setdefault(model, None)
            if cost is not None:
                found[model] = (had or Decimal(0)) + Decimal(cost)
    return found


def to_dollars(nano: int) -> float:
    """Convert nano-dollars to dollars."""
    return nano / _NANO


def to_nano_dollars(dollars: Decimal | float) -> int:
    """Convert dollars to whole nano-dollars, rounded up: budgets count in them."""
    return math.ceil(Decimal(str(dollars)) * _NANO)
