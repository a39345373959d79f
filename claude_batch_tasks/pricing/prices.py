"""What usage costs: prices from the package ``genai-prices`` or the operator's own, and the batch discount.

Costs are exact USD. A model whose price is not known has no cost (None), which is not the same as a cost of 0.
"""

from __future__ import annotations

import json
import math
import re
import time
from bisect import bisect_left
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from genai_prices.types import PriceCalculation, TieredPrices

#: Fields of an override: USD per million tokens through the Messages API, and per thousand searches.
REQUIRED = ("input_mtok", "output_mtok")
OPTIONAL = ("cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok", "web_searches_kcount")

#: Prices of cached tokens as shares of the input price, for models without cache prices of their own, and the price of
#: a thousand searches, as Anthropic documents them.
_OF_INPUT = {
    "cache_read_mtok": Decimal("0.1"),
    "cache_write_mtok": Decimal("1.25"),
    "cache_write_1h_mtok": Decimal(2),
}
_WEB_SEARCHES = Decimal(10)

#: The factor on the listed prices of tokens, by where inference ran: ``usage.inference_geo`` and the parameter of that
#: name say where. For any other place the price is not known.
_GEO = {None: Decimal(1), "": Decimal(1), "global": Decimal(1), "not_available": Decimal(1), "us": Decimal("1.1")}

#: Models that read more than their usual context window with a beta header, and how many tokens.
_WIDENED = ("claude-sonnet-4",)
_WIDE_WINDOW = 1_000_000

_DAY = 86_400
_SNAPSHOT = re.compile(r"-[0-9]{8}\Z")


class Used(NamedTuple):
    """The counters of usage that cost something; ``input_tokens`` are without cached ones, as Anthropic counts them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    web_searches: int = 0

    @property
    def total_input(self) -> int:
        """Input tokens, including cached ones."""
        return self.input_tokens + self.cache_read + self.cache_write_5m + self.cache_write_1h


class _Rates(NamedTuple):
    """USD for one token or one search, through the Messages API."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal
    web_search: Decimal


class _Tariff(NamedTuple):
    """Ascending totals of input tokens above which the rates change, and the rates: one more than there are steps."""

    steps: tuple[int, ...]
    rates: tuple[_Rates, ...]


def geo_factor(geo: Any) -> Decimal | None:
    """Return the factor on token prices for where inference ran; None: the price there is not known."""
    return _GEO.get(geo) if geo is None or isinstance(geo, str) else None


class Prices:
    """The prices of models.

    Args:
        overrides: prices by model as ``check_overrides`` returns them; they have precedence over the listed prices, and
            apply to the model of exactly that name and to its dated snapshots (``<name>-YYYYMMDD``).
    """

    def __init__(self, overrides: Mapping[str, Mapping[str, float]] = {}) -> None:
        # Through str: the number as it was written, not the binary fraction next to it.
        self._own = {
            model: _make_tariff({name: Decimal(str(price)) for name, price in prices.items()})
            for model, prices in overrides.items()
        }

    def has_price(self, model: str) -> bool:
        """Return whether the model has a price today."""
        return self._find_tariff(model, None) is not None

    def price_steps(self, model: str, *, at: float | None = None) -> tuple[int, ...]:
        """Return the totals of input tokens of one request, including cached ones, above which its prices change.

        Args:
            at: epoch seconds; default: now.

        Returns:
            Ascending numbers; empty if the prices are flat or not known.
        """
        tariff = self._find_tariff(model, at)
        return tariff.steps if tariff is not None else ()

    def context_window(self, model: str, *, widest: bool = False) -> int | None:
        """Return the most input tokens that a prompt for a model may have; None: that is not known.

        Args:
            widest: the window with every known beta header.
        """
        known = _window(model)
        wider = widest and (model.startswith(_WIDENED) or bool(self.price_steps(model)))
        return max(known, _WIDE_WINDOW) if known is not None and wider else known

    def compute_cost(
        self,
        model: str,
        used: Used,
        *,
        batch: bool,
        at: float | None = None,
        input_of_one: int | None = None,
        factor: Decimal = Decimal(1),
    ) -> Decimal | None:
        """Return what usage costs, in USD; ``None``: the price of the model is not known.

        Args:
            used: the usage of one request, or the sum over several requests that are on the same step of the prices.
            batch: whether the price of batches applies.
            at: epoch seconds at which the price applies, since prices change; default: now.
            input_of_one: input tokens of one of several requests, including cached ones, which decides the step.
            factor: the factor on the listed prices of tokens.
        """
        tariff = self._find_tariff(model, at)
        if tariff is None:
            return None
        step = bisect_left(tariff.steps, used.total_input if input_of_one is None else input_of_one)
        rates = tariff.rates[step]
        tokens = (
            used.input_tokens * rates.input
            + used.output_tokens * rates.output
            + used.cache_read * rates.cache_read
            + used.cache_write_5m * rates.cache_write_5m
            + used.cache_write_1h * rates.cache_write_1h
        )
        # Batches halve the price of all tokens, including cached ones, but not that of searches.
        return (tokens / 2 if batch else tokens) * factor + used.web_searches * rates.web_search

    def _find_tariff(self, model: str, at: float | None) -> _Tariff | None:
        if self._own and (own := self._own.get(model) or self._own.get(_SNAPSHOT.sub("", model))):
            return own
        at = time.time() if at is None else at  # noqa: TID251 - a day is exact enough
        return _listed(model, int(at) // _DAY)


def check_overrides(value: Any) -> dict[str, dict[str, float]]:
    """Return prices by model, as ``Prices`` takes them.

    Args:
        value: a mapping of model to a mapping with REQUIRED and any of OPTIONAL, or that as JSON text.

    Raises:
        ValueError: the value has another form; the text names the model and the field.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError("prices must be a JSON object of model: prices") from None
    if not isinstance(value, Mapping):
        raise ValueError(f"prices must be a mapping of model to prices, not {type(value).__name__}")
    return {str(model): _check_prices(model, prices) for model, prices in value.items()}


def _check_prices(model: Any, prices: Any) -> dict[str, float]:
    if not isinstance(model, str) or not model:
        raise ValueError(f"{model!r} is not the name of a model")
    if not isinstance(prices, Mapping):
        raise ValueError(f"the prices of {model} must be a mapping of {', '.join(REQUIRED + OPTIONAL)}")
    for name in prices:
        if name not in REQUIRED + OPTIONAL:
            raise ValueError(f"the prices of {model}: {name} is none of {', '.join(REQUIRED + OPTIONAL)}")
    for name in REQUIRED:
        if name not in prices:
            raise ValueError(f"the prices of {model}: {name} is missing")
    return {name: _check_price(model, name, price) for name, price in prices.items()}


def _check_price(model: str, name: str, price: Any) -> float:
    number = math.nan
    if isinstance(price, (int, float, Decimal)) and not isinstance(price, bool):
        with suppress(ValueError, OverflowError):  # a signaling NaN; an int beyond floats
            number = float(price)
    if 0 <= number < math.inf:  # not for NaN
        return number
    raise ValueError(f"the prices of {model}: {name} must be a number of US dollars, 0 or more, not {price!r}")


@lru_cache(maxsize=1024)
def _listed(model: str, day: int) -> _Tariff | None:
    """Return the listed prices of a model on a day, counted since the epoch: prices change at midnight UTC."""
    found = _look_up(model, datetime.fromtimestamp(day * _DAY, timezone.utc))
    if found is None:
        return None
    # Not every release of genai-prices has every field.
    return _make_tariff({name: getattr(found.model_price, name, None) for name in REQUIRED + OPTIONAL})


@lru_cache(maxsize=1024)
def _window(model: str) -> int | None:
    found = _look_up(model, None)
    return None if found is None else found.model.context_window


def _look_up(model: str, at: datetime | None) -> PriceCalculation | None:
    """Return what genai-prices has of a model at a time (None: now); None: it does not know the model."""
    # Imported here, because that takes longer than importing all of this package.
    from genai_prices import Usage, calc_price

    try:
        return calc_price(Usage(), model, provider_id="anthropic", genai_request_timestamp=at)
    except LookupError:
        return None


def _make_tariff(prices: Mapping[str, Decimal | TieredPrices | None]) -> _Tariff | None:
    """Return the tariff of a model from its prices; None: a required price is missing.

    genai-prices itself adds up one answer at a time; a tariff is for sums over many answers.
    """
    known = {name: price for name, price in prices.items() if price is not None}
    if not known.keys() >= {*REQUIRED}:
        return None
    steps = sorted({tier.start for price in known.values() for tier in getattr(price, "tiers", ())})
    rates = [_make_rates({name: _price_above(step, price) for name, price in known.items()}) for step in (-1, *steps)]
    return _Tariff(tuple(steps), tuple(rates))


def _price_above(step: int, price: Decimal | TieredPrices) -> Decimal:
    """Return the price of requests just above a step; genai-prices has the tiers in ascending order."""
    if isinstance(price, Decimal):
        return price
    return next((tier.price for tier in reversed(price.tiers) if tier.start <= step), price.base)


def _make_rates(prices: Mapping[str, Decimal]) -> _Rates:
    base = prices["input_mtok"]
    cached = [prices.get(name, base * share) for name, share in _OF_INPUT.items()]
    tokens = [price.scaleb(-6) for price in (base, prices["output_mtok"], *cached)]
    return _Rates._make([*tokens, prices.get("web_searches_kcount", _WEB_SEARCHES).scaleb(-3)])
