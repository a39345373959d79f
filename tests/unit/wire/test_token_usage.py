"""What an answer's usage is charged for: by prompt, by the model that ran it, and never nothing for what is unknown."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.pricing.spending import Meter
from claude_batch_tasks.wire import result_rows

OPUS = "claude-opus-4-5"  # 5 / 25 USD per million tokens
SONNET = "claude-sonnet-4-5"  # 3 / 15, and 6 / 22.5 for prompts of more than 200,000 tokens; a window of 200,000
STEPPED = "claude-haiku-5-5"  # 0.1 / 0.5, and 0.5 / 2.5 above 100,000; a window of a million
FABLE = "claude-fable-5"  # 10 / 50


def tokens(input_: int, output: int, **more: Any) -> dict[str, Any]:
    return {"input_tokens": input_, "output_tokens": output, **more}


def entry(kind: str, input_: int, output: int, **more: Any) -> dict[str, Any]:
    return {"type": kind, **tokens(input_, output), **more}


def searched(web: int = 1, **more: int) -> dict[str, Any]:
    return {"server_tool_use": {"web_search_requests": web, **more}}


def priced(model: str, usage: Any) -> tuple[dict[str, Decimal | None], dict[str, int]]:
    """Costs through the Messages API, and what has none that is known, both as the fast and the slow reader see it."""
    message = {"role": "assistant", "model": model, "usage": usage}
    line = msgspec.json.encode({"custom_id": "a", "result": {"type": "succeeded", "message": message}})
    read = [result_rows.decode_row(line), result_rows.decode_row(line.replace(b'"role":"assistant"', b'"role":NaN'))]
    found = []
    for row in read:
        meter = Meter(Prices(), batch=False)
        result_rows.count_answers(meter, [row.result.message])
        costs = {name: None if cost is None else Decimal(cost) for name, cost in meter.sum_costs().items()}
        found.append((costs, meter.count_unpriced()))
    assert found[0] == found[1]
    return found[0]


def cost(model: str, usage: Any) -> Decimal:
    costs, unpriced = priced(model, usage)
    assert unpriced == {}
    return sum((each for each in costs.values() if each is not None), Decimal(0))


def usd(*parts: tuple[int, float]) -> Decimal:
    """Tokens at dollars a million each."""
    return sum((count * Decimal(str(price)) for count, price in parts), Decimal(0)) / 1_000_000


class TestIterations:
    def test_that_only_repeat_the_counters_change_nothing(self) -> None:
        usage = tokens(1_000, 100)
        same = {**usage, "iterations": [entry("message", 1_000, 100)]}
        assert cost(OPUS, same) == cost(OPUS, usage) == usd((1_000, 5), (100, 25))

    def test_of_compaction_are_not_in_the_counters(self) -> None:
        """0.305 dollars, of which the counters beside the list have 0.009."""
        usage = tokens(1_300, 100, iterations=[entry("compaction", 54_200, 1_000), entry("message", 1_300, 100)])
        assert cost(OPUS, tokens(1_300, 100)) == Decimal("0.009")
        assert cost(OPUS, usage) == Decimal("0.305")
        without_message = {**usage, "iterations": usage["iterations"][:1]}
        assert cost(OPUS, without_message) == Decimal("0.305")

    def test_of_an_advisor_are_at_its_own_price(self) -> None:
        advisor = entry("advisor_message", 2_000, 300, model=FABLE, cache_read_input_tokens=1_000)
        both = [entry("message", 1_000, 50), advisor, entry("message", 1_400, 70)]
        costs, unpriced = priced(OPUS, tokens(2_400, 120, iterations=both))
        assert costs == {OPUS: usd((2_400, 5), (120, 25)), FABLE: usd((2_000, 10), (300, 50), (1_000, 1))}
        assert unpriced == {}

    @pytest.mark.parametrize("output", [0, 1])
    def test_of_a_fallback_are_at_the_price_of_the_model_that_answered(self, output: int) -> None:
        """Whichever model the answer names; what was declined before it said anything is not charged."""
        entries = [entry("message", 900, output, model=FABLE), entry("fallback_message", 1_000, 100, model=OPUS)]
        for named in (OPUS, FABLE):
            assert priced(named, tokens(1_000, 100, iterations=entries)) == ({OPUS: usd((1_000, 5), (100, 25))}, {})
            alone = tokens(1_000, 100, iterations=entries[1:])
            assert priced(named, alone) == ({OPUS: usd((1_000, 5), (100, 25))}, {})

    def test_of_what_was_declined_in_the_middle_are_charged_as_well(self) -> None:
        entries = [entry("message", 900, 40, model=FABLE), entry("fallback_message", 1_000, 100, model=OPUS)]
        costs, _ = priced(OPUS, tokens(1_000, 100, iterations=entries))
        assert costs == {FABLE: usd((900, 10), (40, 50)), OPUS: usd((1_000, 5), (100, 25))}

    def test_beside_counters_that_have_none_of_them_are_added(self) -> None:
        entries = [entry("fallback_message", 1_000, 100, model=OPUS)]
        costs, _ = priced(FABLE, tokens(500, 10, iterations=entries))
        assert costs == {FABLE: usd((500, 10), (10, 50)), OPUS: usd((1_000, 5), (100, 25))}

    def test_have_their_own_caches(self) -> None:
        written = {"cache_creation_input_tokens": 100, "cache_creation": {"ephemeral_1h_input_tokens": 60}}
        entries = [entry("compaction", 0, 0, **written), entry("message", 1_000, 0)]
        assert cost(OPUS, tokens(1_000, 0, iterations=entries)) == usd((1_000, 5), (40, 6.25), (60, 10))

    @pytest.mark.parametrize(
        "odd",
        [entry("of_tomorrow", 5, 5), entry("advisor_message", 5, 5), "odd", {"type": "message", "input_tokens": -1}],
    )
    def test_of_an_unknown_kind_leave_the_rest_its_price(self, odd: Any) -> None:
        costs, unpriced = priced(OPUS, tokens(1_000, 100, iterations=[entry("message", 1_000, 100), odd]))
        assert costs[OPUS] == usd((1_000, 5), (100, 25))
        assert list(costs.values()).count(None) == 1
        assert sum(unpriced.values()) == 1


class TestLongPrompts:
    @pytest.mark.parametrize("total", [401_468, 640_000, 950_648])
    def test_are_told_by_one_prompt_and_not_by_the_sum_over_a_tool_loop(self, total: int) -> None:
        """Three recorded answers were priced almost twice."""
        usage = tokens(total, 2_000, **searched(4))
        assert cost(SONNET, usage) == usd((total, 3), (2_000, 15)) + 4 * Decimal("0.01")
        assert cost(SONNET, tokens(total, 2_000, **searched(0, web_fetch_requests=6))) == usd((total, 3), (2_000, 15))

    def test_are_those_that_are_long_by_themselves(self) -> None:
        assert cost(SONNET, tokens(401_468, 2_000)) == usd((401_468, 6), (2_000, 22.5))
        assert cost(SONNET, tokens(401_468, 2_000, **searched(0))) == usd((401_468, 6), (2_000, 22.5))
        entries = [entry("message", 90_000, 10), entry("message", 150_000, 20)]
        usage = tokens(240_000, 30, iterations=entries, **searched(1))
        expected = usd((90_000, 0.1), (10, 0.5), (150_000, 0.5), (20, 2.5)) + Decimal("0.01")
        assert cost(STEPPED, usage) == expected


class TestOtherPrices:
    @pytest.mark.parametrize(
        ("geo", "factor"), [("us", "1.1"), ("global", "1"), ("not_available", "1"), ("", "1"), (None, "1")]
    )
    def test_in_the_us_tokens_cost_a_tenth_more(self, geo: str | None, factor: str) -> None:
        usage = tokens(1_000, 100, inference_geo=geo, **searched(2))
        assert cost(OPUS, usage) == usd((1_000, 5), (100, 25)) * Decimal(factor) + Decimal("0.02")

    @pytest.mark.parametrize(
        "more",
        [
            {"speed": "fast"},
            {"service_tier": "priority"},
            {"inference_geo": "mars"},
            {"speed": 3},
            {"service_tier": "of tomorrow"},
        ],
    )
    def test_that_are_not_known_are_not_nothing(self, more: dict[str, Any]) -> None:
        costs, unpriced = priced(OPUS, tokens(1_000, 100, **more))
        assert list(costs.values()) == [None]
        assert list(unpriced.values()) == [1]
        assert next(iter(unpriced)).startswith(f"{OPUS} (")

    @pytest.mark.parametrize("tier", ["standard", "batch", None])
    def test_of_the_usual_tiers_are_the_listed_ones(self, tier: str | None) -> None:
        assert cost(OPUS, tokens(1_000, 100, service_tier=tier, speed="standard")) == usd((1_000, 5), (100, 25))

    def test_of_one_row_hide_nothing_of_the_others(self) -> None:
        meter = Meter(Prices(), batch=True)
        usages = [tokens(1_000, 0), tokens(1_000, 0, speed="fast"), tokens(1_000, 0)]
        lines = [
            msgspec.json.encode(
                {"custom_id": "a", "result": {"type": "succeeded", "message": {"model": OPUS, "usage": usage}}}
            )
            for usage in usages
        ]
        result_rows.count_answers(meter, [result_rows.decode_row(line).result.message for line in lines])
        costs = meter.sum_costs()
        assert (Decimal(costs[OPUS] or 0), costs[f"{OPUS} (speed fast)"]) == (Decimal("0.005"), None)
        assert meter.count_unpriced() == {f"{OPUS} (speed fast)": 1}
