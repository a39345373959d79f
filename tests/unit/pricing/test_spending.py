"""What answers have cost: added up by model, and priced once."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from claude_batch_tasks.pricing import spending
from claude_batch_tasks.pricing.prices import Prices, Used
from claude_batch_tasks.pricing.spending import Meter

HAIKU = "claude-haiku-4-5"  # 1 / 5 USD per million tokens; cache: read 0.1, write 1.25, for an hour 2
STEPPED = "claude-haiku-5-5"  # 0.1 / 0.5, above 100,000 tokens of input 0.5 / 2.5
MILLION = 1_000_000

counts = st.integers(0, 200_000)
usages = st.builds(Used, counts, counts, counts, counts, counts, st.integers(0, 5))


def usage(*counts: int, **named: int) -> Any:
    return SimpleNamespace(used=Used(*counts, **named))


def metered(*answers: tuple[str | None, Any], batch: bool = False, prices: Any = None) -> dict[str, Decimal | None]:
    meter = Meter(Prices(prices or {}), batch=batch)
    for model, used in answers:
        meter.add_answers(model, [used])
    return {model: None if cost is None else Decimal(cost) for model, cost in meter.sum_costs().items()}


class TestAMeter:
    def test_of_nothing_shows_nothing(self) -> None:
        assert metered() == {}
        assert Meter(Prices(), batch=True).sum_costs() == {}

    @pytest.mark.parametrize(("batch", "share"), [(False, Decimal(1)), (True, Decimal("0.5"))])
    def test_adds_up_each_model_by_itself(self, batch: bool, share: Decimal) -> None:
        own = {"mine": {"input_mtok": 2, "output_mtok": 8}}
        answers = [(HAIKU, usage(MILLION, MILLION)), ("mine", usage(MILLION)), (HAIKU, usage(0, MILLION))]
        assert metered(*answers, batch=batch, prices=own) == {HAIKU: 11 * share, "mine": 2 * share}

    def test_knows_what_the_batch_has_saved(self) -> None:
        """Half the price of tokens; web searches cost the same either way, and an unknown price saves nothing."""
        saved = {}
        for batch in (True, False):
            meter = Meter(Prices(), batch=batch)
            meter.add_answers(HAIKU, [usage(MILLION, MILLION), usage(web_searches=1000)])
            meter.add_answers("claude-unknown", [usage(MILLION)])
            saved[batch] = meter.sum_savings()
        assert saved == {True: 3, False: 0}

    def test_knows_what_was_read_from_a_cache_and_for_how_long_it_was_written(self) -> None:
        used = usage(cache_read=MILLION, cache_write_5m=2 * MILLION, cache_write_1h=3 * MILLION)
        assert metered((HAIKU, used)) == {HAIKU: Decimal("0.1") + Decimal("2.5") + 6}

    def test_prices_each_answer_on_its_own_step(self) -> None:
        """However they are mixed: a sum of small ones is not on the step that it would reach itself."""
        small, on_it, above = usage(60_000, 1_000), usage(40_000, 1_000, 60_000), usage(40_000, 1_000, 60_001)
        each = [metered((STEPPED, used))[STEPPED] for used in (small, on_it, above)]
        assert each == [Decimal("0.0065"), Decimal("0.0051"), Decimal("0.02550005")]
        mixed = [(STEPPED, used) for used in (above, small, on_it, small, above)]
        total = metered(*mixed)[STEPPED]
        assert total == 2 * Decimal("0.02550005") + Decimal("0.0051") + 2 * Decimal("0.0065")
        together = Meter(Prices(), batch=False)
        together.add_answers(STEPPED, [used for _, used in mixed])
        assert Decimal(str(together.sum_costs()[STEPPED])) == total

    def test_does_not_know_the_cost_of_a_model_without_a_price(self) -> None:
        assert metered(("claude-x", usage(1)), (HAIKU, usage(MILLION))) == {"claude-x": None, HAIKU: Decimal(1)}

    @pytest.mark.parametrize(("model", "used"), [(None, usage(5)), ("", usage(5)), (HAIKU, None), (None, None)])
    def test_does_not_know_the_cost_of_an_answer_that_does_not_say_enough(self, model: Any, used: Any) -> None:
        assert metered((model, used), (HAIKU, usage(MILLION))) == {"unknown": None, HAIKU: Decimal(1)}

    def test_goes_by_the_prices_of_the_day(self) -> None:
        before, after = (Meter(Prices(), batch=False, at=at) for at in (1_773_316_800, 1_773_446_400))
        for meter in (before, after):  # of claude-opus-4-6, on 2026-03-12 and 2026-03-14
            meter.add_answers("claude-opus-4-6", [usage(150_000), usage(250_000)])
        assert spending.total_cost(before.sum_costs()) == Decimal("3.25"), "above 200,000 it was twice as much"
        assert spending.total_cost(after.sum_costs()) == 2

    @given(st.lists(st.tuples(st.sampled_from([HAIKU, STEPPED]), usages), max_size=12), st.booleans())
    def test_is_the_sum_of_its_answers(self, answers: list[tuple[str, Used]], batch: bool) -> None:
        expected: dict[str, Decimal] = {}
        for model, used in answers:
            cost = Prices().compute_cost(model, used, batch=batch)
            assert cost is not None
            expected[model] = expected.get(model, Decimal(0)) + cost
        found = metered(*((model, SimpleNamespace(used=used)) for model, used in answers), batch=batch)
        assert found == expected


class TestCosts:
    def test_are_added_up_exactly(self) -> None:
        assert spending.merge_costs() == {}
        assert spending.merge_costs({"a": "0.1"}, {"a": "0.2", "b": "1"}, {"b": "1E-9"}) == {
            "a": "0.3",
            "b": "1.000000001",
        }

    def test_that_hold_something_unknown_are_not_known(self) -> None:
        for parts in (({"a": None}, {"a": "1"}), ({"a": "1"}, {"a": None}), ({"a": "1"}, {"a": None}, {"a": "1"})):
            assert spending.merge_costs(*parts, {"b": "2"}) == {"a": None, "b": "2"}

    @pytest.mark.parametrize(
        ("each", "expected"),
        [({}, 0), ({"a": "0.1", "b": "0.2"}, Decimal("0.3")), ({"a": "0.1", "b": None}, None), ({"a": None}, None)],
    )
    def test_have_a_total_if_all_of_them_are_known(self, each: dict[str, str | None], expected: Decimal | None) -> None:
        assert spending.total_cost(each) == expected

    @pytest.mark.parametrize(
        ("dollars", "nano"),
        [
            (0, 0),
            (0.1, 100_000_000),
            (Decimal("0.0000000001"), 1),
            (Decimal("1.0000000001"), 1_000_000_001),
            (1e-10, 1),
            (1_000_000_000, 10**18),
            (Decimal("0E-20"), 0),
        ],
    )
    def test_in_whole_nano_dollars_are_never_less(self, dollars: Decimal | float, nano: int) -> None:
        assert spending.to_nano_dollars(dollars) == nano
