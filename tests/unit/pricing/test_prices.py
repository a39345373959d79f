"""Costs computed by hand, and what is known of models without a price."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import genai_prices
import pytest
from genai_prices.types import Tier, TieredPrices
from hypothesis import given, settings, strategies as st

from claude_batch_tasks.pricing import prices as prices_module
from claude_batch_tasks.pricing.prices import Prices, Used, check_overrides

HAIKU = "claude-haiku-4-5"  # 1 / 5 USD per million tokens; cache: read 0.1, write 1.25, for an hour 2
TIERED = "claude-haiku-5-5"  # 0.1 / 0.5, above 100,000 tokens of input 0.5 / 2.5
AT = datetime(2026, 10, 20, 15, 30, tzinfo=timezone.utc).timestamp()
MINE = {"mine": {"input_mtok": 2.0, "output_mtok": 8.0}}

counts = st.integers(0, 10**9)
usages = st.builds(Used, counts, counts, counts, counts, counts, counts)


def cost(used: Used, model: str = HAIKU, *, batch: bool = False, **more: Any) -> Decimal | None:
    return Prices().compute_cost(model, used, batch=batch, at=AT, **more)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put prices in place of the known ones, by model."""

    def put(**prices: Any) -> None:
        def calc_price(usage: Any, model: str, **_: Any) -> Any:
            if model not in prices:
                raise LookupError(model)
            return SimpleNamespace(model_price=SimpleNamespace(**prices[model]))

        monkeypatch.setattr(genai_prices, "calc_price", calc_price)
        prices_module._listed.cache_clear()

    yield put
    prices_module._listed.cache_clear()


class TestCost:
    @pytest.mark.parametrize(
        ("used", "usd"),
        [
            (Used(), "0"),
            (Used(input_tokens=1_000_000), "1"),
            (Used(output_tokens=1_000_000), "5"),
            (Used(cache_read=1_000_000), "0.1"),
            (Used(cache_write_5m=1_000_000), "1.25"),
            (Used(cache_write_1h=1_000_000), "2"),
            (Used(input_tokens=1, output_tokens=1), "0.000006"),
            (Used(1_000, 200, 5_000, 400, 300), "0.0036"),
        ],
    )
    def test_tokens_cost_what_they_are_listed_for_and_half_of_it_in_a_batch(self, used: Used, usd: str) -> None:
        assert cost(used) == Decimal(usd)
        assert cost(used, batch=True) == Decimal(usd) / 2

    @pytest.mark.parametrize("batch", [False, True])
    def test_searches_are_never_discounted(self, batch: bool) -> None:
        assert cost(Used(web_searches=3), batch=batch) == Decimal("0.03")

    def test_a_batch_with_searches(self) -> None:
        assert cost(Used(input_tokens=100_000, web_searches=1), batch=True) == Decimal("0.06")

    def test_dated_snapshots_have_the_price_of_their_model(self) -> None:
        assert cost(Used(input_tokens=1_000_000), "claude-haiku-4-5-20251001") == 1

    @pytest.mark.parametrize("model", ["claude-nonsense-1", "gpt-4o", "", "\n", "mine"])
    def test_a_model_without_a_price_has_no_cost(self, model: str) -> None:
        assert cost(Used(input_tokens=1), model) is None
        assert cost(Used(), model) is None
        assert not Prices().has_price(model)
        assert Prices().price_steps(model) == ()

    def test_now_is_the_default(self) -> None:
        assert Prices().has_price(HAIKU)
        assert Prices().compute_cost(HAIKU, Used(input_tokens=1_000_000), batch=False) == 1

    @given(used=usages)
    def test_a_million_of_one_answer_costs_a_million_times_as_much(self, used: Used) -> None:
        many = Used(*(1_000_000 * count for count in used))
        one = cost(used)
        assert one is not None
        assert cost(many) == 1_000_000 * one

    @given(usage=st.tuples(*[st.integers(0, 300_000)] * 4))
    @pytest.mark.parametrize("model", [HAIKU, TIERED, "claude-opus-4-5", "claude-sonnet-4-5"])
    def test_agrees_with_the_package_that_keeps_the_prices(self, model: str, usage: tuple[int, int, int, int]) -> None:
        fresh, output, read, write = usage
        theirs = genai_prices.calc_price(
            genai_prices.Usage(
                input_tokens=fresh + read + write,  # theirs hold the cached ones
                output_tokens=output,
                cache_read_tokens=read,
                cache_write_tokens=write,
            ),
            model,
            provider_id="anthropic",
            genai_request_timestamp=datetime.fromtimestamp(AT, timezone.utc),
        )
        assert cost(Used(fresh, output, read, write), model) == theirs.total_price


class TestSteps:
    def test_flat_prices_have_none(self) -> None:
        assert Prices().price_steps(HAIKU, at=AT) == ()

    def test_above_a_step_all_tokens_of_a_request_are_dearer(self) -> None:
        assert Prices().price_steps(TIERED, at=AT) == (100_000,)
        assert cost(Used(input_tokens=100_000), TIERED) == Decimal("0.01")
        assert cost(Used(input_tokens=100_001), TIERED) == Decimal("0.0500005")
        assert cost(Used(input_tokens=100_001), TIERED, batch=True) == Decimal("0.02500025")

    @pytest.mark.parametrize("cached", ["cache_read", "cache_write_5m", "cache_write_1h"])
    def test_cached_tokens_count_towards_it(self, cached: str) -> None:
        below, above = (cost(Used(output_tokens=1_000_000, **{cached: n}), TIERED) for n in (100_000, 100_001))
        assert below is not None
        assert above is not None
        assert below < 1 < Decimal("2.5") < above

    def test_a_sum_is_on_the_step_of_one_of_its_requests(self) -> None:
        used = Used(input_tokens=1_000_000, output_tokens=1_000_000)
        assert cost(used, TIERED, input_of_one=1_000) == Decimal("0.6")
        assert cost(used, TIERED, input_of_one=200_000) == Decimal("3")

    def test_prices_may_change_at_different_steps(self, listed: Any) -> None:
        listed(
            m={
                "input_mtok": TieredPrices(
                    base=Decimal(1), tiers=[Tier(start=10, price=Decimal(2)), Tier(start=30, price=Decimal(3))]
                ),
                "output_mtok": TieredPrices(base=Decimal(5), tiers=[Tier(start=20, price=Decimal(6))]),
                "web_searches_kcount": Decimal(7),
            }
        )
        assert Prices().price_steps("m") == (10, 20, 30)
        used = Used(input_tokens=1_000_000, output_tokens=1_000_000, web_searches=1_000)
        seen = [cost(used, "m", input_of_one=n) for n in (0, 10, 11, 20, 21, 30, 31)]
        assert seen == [13, 13, 14, 14, 15, 15, 16]

    def test_prices_hold_from_a_day_on(self) -> None:
        used = Used(input_tokens=1_000_000)
        before = datetime(2026, 3, 12, 23, 59, tzinfo=timezone.utc).timestamp()
        after = datetime(2026, 3, 13, 0, 1, tzinfo=timezone.utc).timestamp()
        assert Prices().price_steps("claude-opus-4-6", at=before) == (200_000,)
        assert Prices().price_steps("claude-opus-4-6", at=after) == ()
        assert Prices().compute_cost("claude-opus-4-6", used, batch=False, at=before) == 10
        assert Prices().compute_cost("claude-opus-4-6", used, batch=False, at=after) == 5


class TestWhatIsNotListed:
    def test_cached_tokens_cost_shares_of_the_input_and_searches_what_is_documented(self, listed: Any) -> None:
        listed(m={"input_mtok": Decimal(4), "output_mtok": Decimal(20)})
        million = 1_000_000
        assert cost(Used(cache_read=million), "m") == Decimal("0.4")
        assert cost(Used(cache_write_5m=million), "m") == 5
        assert cost(Used(cache_write_1h=million), "m") == 8
        assert cost(Used(web_searches=1_000), "m") == 10

    def test_so_do_they_above_a_step(self, listed: Any) -> None:
        tiers = TieredPrices(base=Decimal(1), tiers=[Tier(start=10, price=Decimal(3))])
        listed(m={"input_mtok": tiers, "output_mtok": Decimal(5)})
        assert cost(Used(cache_write_1h=1_000_000), "m", input_of_one=10) == 2
        assert cost(Used(cache_write_1h=1_000_000), "m", input_of_one=11) == 6

    def test_a_price_of_nothing_is_a_price(self, listed: Any) -> None:
        listed(m={"input_mtok": Decimal(1), "output_mtok": Decimal(0), "cache_read_mtok": Decimal(0)})
        assert cost(Used(output_tokens=5, cache_read=5), "m") == 0

    @pytest.mark.parametrize("missing", ["input_mtok", "output_mtok"])
    def test_a_model_that_lacks_one_of_the_two_is_not_known(self, listed: Any, missing: str) -> None:
        listed(m={"input_mtok": Decimal(1), "output_mtok": Decimal(5), missing: None})
        assert not Prices().has_price("m")

    def test_a_model_is_looked_up_once_a_day(self, listed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        listed(m={"input_mtok": Decimal(1), "output_mtok": Decimal(5)})
        used = Used(input_tokens=1)
        assert cost(used, "m") is not None
        monkeypatch.delattr(genai_prices, "calc_price")
        assert Prices().compute_cost("m", used, batch=True, at=AT + 3600) is not None


class TestOverrides:
    def test_they_give_a_price_to_a_model_without_one(self) -> None:
        prices = Prices(MINE)
        used = Used(1_000_000, 1_000_000, 1_000_000, 1_000_000, 1_000_000, 1_000)
        assert prices.has_price("mine")
        assert prices.price_steps("mine") == ()
        assert (
            prices.compute_cost("mine", used, batch=False)
            == Decimal("2") + 8 + Decimal("0.2") + Decimal("2.5") + 4 + 10
        )
        assert prices.compute_cost("mine", used, batch=True) == Decimal("16.7") / 2 + 10

    def test_they_win(self) -> None:
        prices = Prices({HAIKU: {"input_mtok": 0.7, "output_mtok": 3, "cache_read_mtok": 0, "web_searches_kcount": 1}})
        used = Used(input_tokens=1_000_000, cache_read=1_000_000, web_searches=1_000)
        assert prices.compute_cost(HAIKU, used, batch=False) == Decimal("1.7")

    @pytest.mark.parametrize(
        ("model", "known"),
        [
            ("mine", True),
            ("mine-20260101", True),
            ("mine-2026010", False),
            ("mine-202601011", False),
            ("mine-20260101\n", False),
            ("mine-20260101-20260101", False),
            ("mine-x", False),
            ("Mine", False),
            ("-20260101", False),
        ],
    )
    def test_they_hold_for_the_model_and_its_dated_snapshots(self, model: str, known: bool) -> None:
        assert Prices(MINE).has_price(model) is known

    def test_one_of_a_dated_snapshot_wins_over_that_of_its_model(self) -> None:
        prices = Prices({**MINE, "mine-20260101": {"input_mtok": 1, "output_mtok": 1}})
        assert prices.compute_cost("mine-20260101", Used(input_tokens=1_000_000), batch=False) == 1
        assert prices.compute_cost("mine-20260102", Used(input_tokens=1_000_000), batch=False) == 2

    def test_floats_are_taken_as_they_are_written(self) -> None:
        prices = Prices({"m": {"input_mtok": 0.1, "output_mtok": 0.3}})
        assert prices.compute_cost("m", Used(input_tokens=3, output_tokens=1), batch=False) == Decimal("0.0000006")


class TestCheckOverrides:
    @pytest.mark.parametrize("value", [MINE, json.dumps(MINE), {"mine": {"input_mtok": 2, "output_mtok": Decimal(8)}}])
    def test_takes_a_mapping_or_its_json(self, value: Any) -> None:
        assert check_overrides(value) == MINE

    def test_none_are_none(self) -> None:
        assert check_overrides({}) == check_overrides("{}") == {}

    @pytest.mark.parametrize(
        ("prices", "field"),
        [
            ({"input_mtok": 1}, "output_mtok is missing"),
            ({"output_mtok": 1}, "input_mtok is missing"),
            ({"input_mtok": 1, "output_mtok": 1, "input": 1}, "input is none of"),
            ({"input_mtok": 1, "output_mtok": 1, 7: 1}, "7 is none of"),
            *(
                ({"input_mtok": 1, "output_mtok": 1, "cache_read_mtok": bad}, "cache_read_mtok must be a number")
                for bad in (-1, float("nan"), float("inf"), Decimal("sNaN"), 10**400, "1", None, True, [1])
            ),
            (3, "must be a mapping"),
            ("{}", "must be a mapping"),
        ],
    )
    def test_says_what_is_wrong_with_which_model(self, prices: Any, field: str) -> None:
        with pytest.raises(ValueError, match=field) as caught:
            check_overrides({"claude-x": prices})
        assert "claude-x" in str(caught.value)

    @pytest.mark.parametrize("value", [None, 3, [], "", "no JSON", "[]", "3", {3: MINE["mine"]}, {"": MINE["mine"]}])
    def test_refuses_what_is_no_mapping_of_models(self, value: Any) -> None:
        with pytest.raises(ValueError, match="model"):
            check_overrides(value)

    @settings(max_examples=20)
    @given(value=st.recursive(st.none() | st.floats() | st.text(), lambda c: st.dictionaries(st.text(), c)))
    def test_whatever_it_is_no_other_error_comes_of_it(self, value: Any) -> None:
        with suppress(ValueError):
            Prices(check_overrides(value))
