"""Estimates: tokens by hand for every kind of content, costs by hand, and shapes nobody sends."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from claude_batch_tasks.errors import InvalidRequests
from claude_batch_tasks.jobs.estimating import Estimate, estimate
from claude_batch_tasks.pricing.input_sizes import DOCUMENT, IMAGE, PER_MESSAGE
from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.pricing.request_bounds import (
    BatchNeed,
    Need,
    PricedRequest,
    Unbounded,
    batch_need,
    budget_need,
    tokens_of,
)
from tests.factories import make_params

HAIKU = "claude-haiku-4-5"  # 1 / 5 USD per million tokens; cache: write 1.25, for an hour 2
MINE = {"mine": {"input_mtok": 10, "output_mtok": 100}}
HOUR = {"type": "ephemeral", "ttl": "1h"}
FIVE_MINUTES = {"type": "ephemeral"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=20),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "source", "data", "content", "cache_control", "ttl", "role"]) | st.text(),
            children
            | st.sampled_from(["text", "image", "document", "tool_result", "base64", "content", "url", "1h", "user"]),
            max_size=5,
        )
    ),
    max_leaves=20,
)


def params(content: Any = "x" * 35, *, model: str = HAIKU, max_tokens: int = 100, **more: Any) -> dict[str, Any]:
    """Ten tokens of text in one message, unless told otherwise."""
    return {**make_params(content, model=model, max_tokens=max_tokens), **more}


def bound_cost(request: dict[str, Any], prices: Prices, *, batch: bool) -> tuple[Decimal, Decimal] | None:
    return PricedRequest(request, prices, batch=batch).cost_range()


def tokens(content: Any, **more: Any) -> int:
    return tokens_of(params(content, **more)) - PER_MESSAGE


def text(count: int, **more: Any) -> dict[str, Any]:
    """A block of so many tokens; of an even number."""
    return {"type": "text", "text": "x" * (count * 7 // 2), **more}


class TestTokens:
    def test_text_by_its_bytes(self) -> None:
        assert tokens("x" * 35) == 10
        assert tokens("ü" * 35) == 20
        assert tokens("日" * 7) == 6
        assert tokens("x") == 1

    def test_blocks_of_text_and_no_more_than_the_text(self) -> None:
        assert tokens([text(10), text(20, citations=None)]) == 30

    def test_the_system_prompt_in_either_form(self) -> None:
        assert tokens("", system="x" * 70) == 20
        assert tokens("", system=[text(10), text(20)]) == 30

    def test_tools_as_json(self) -> None:
        assert tokens("", tools=[{"name": "x" * 24}]) == 10  # {"name":"..."}

    def test_every_message_adds_a_few(self) -> None:
        request = params("")
        request["messages"] *= 3
        assert tokens_of(request) == 3 * PER_MESSAGE

    @pytest.mark.parametrize(
        "source", [{"type": "base64", "data": "A" * 1_000_000}, {"type": "url", "url": "https://x"}, None]
    )
    def test_an_image_whatever_its_bytes(self, source: Any) -> None:
        assert tokens([{"type": "image", "source": source}, text(10)]) == IMAGE + 10

    @pytest.mark.parametrize(
        ("source", "count"),
        [
            ({"type": "base64", "data": "A" * 400}, DOCUMENT),
            ({"type": "base64", "data": "A" * 200_000}, 6_000),  # 150 kB
            ({"type": "url", "url": "https://example.com/a.pdf"}, DOCUMENT),
            ({"type": "file", "file_id": "file_1"}, DOCUMENT),
            ({"type": "text", "data": "x" * 35}, 10),
            ({"type": "content", "content": "x" * 35}, 10),
            ({"type": "content", "content": [text(10), {"type": "image"}]}, 10 + IMAGE),
            (None, DOCUMENT),
        ],
    )
    def test_a_document_by_its_source(self, source: Any, count: int) -> None:
        assert tokens([{"type": "document", "source": source}]) == count

    def test_what_stands_with_a_document(self) -> None:
        block = {"type": "document", "title": "x" * 35, "context": "x" * 70, "source": {"type": "text", "data": ""}}
        assert tokens([block]) == 30

    def test_what_a_tool_gave_back(self) -> None:
        assert tokens([{"type": "tool_result", "tool_use_id": "t", "content": "x" * 35}]) == 10
        assert tokens([{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image"}, text(2)]}]) == 1_602

    def test_any_other_block_as_json(self) -> None:
        assert tokens([{"type": "new", "a": "x" * 14}]) == 10

    @given(value=json_values, system=json_values, tools=json_values)
    def test_odd_shapes_are_no_error(self, value: Any, system: Any, tools: Any) -> None:
        request = {"model": HAIKU, "max_tokens": 1, "messages": value, "system": system, "tools": tools}
        assert tokens_of(request) >= 0
        least, most = bound_cost(request, Prices(), batch=True) or (1, 0)
        assert least <= most
        assert tokens_of({"model": value}) >= 0

    @pytest.mark.parametrize("kind", [list, dict])
    def test_however_deep(self, kind: type) -> None:
        deep: Any = "x" * 35
        for _ in range(20_000):
            deep = [deep] if kind is list else {"type": "tool_result", "content": deep}
        assert tokens(deep) == 10
        assert tokens([{"type": "new", "a": deep}]) >= 0
        while isinstance(deep, (list, dict)):  # taken apart one by one, or the interpreter would recurse
            deep = deep[0] if isinstance(deep, list) else deep["content"]


class TestBounds:
    @pytest.mark.parametrize(("batch", "share"), [(False, 1), (True, Decimal("0.5"))])
    def test_the_input_alone_and_the_longest_answer(self, batch: bool, share: Decimal) -> None:
        request = params("x" * 350, max_tokens=1_000)
        input_usd = (100 + PER_MESSAGE) * Decimal("0.000001")
        assert bound_cost(request, Prices(), batch=batch) == (input_usd * share, (input_usd + Decimal("0.005")) * share)

    @pytest.mark.parametrize(
        ("request_", "times"),
        [
            (params([text(20)]), "1"),
            (params([text(20, cache_control=None)]), "1"),
            (params([text(20, cache_control=FIVE_MINUTES)]), "1.25"),
            (params([text(20, cache_control={**HOUR, "ttl": "5m"})]), "1.25"),
            (params([text(20, cache_control=HOUR)]), "2"),
            (params([text(20, cache_control=HOUR), text(20, cache_control=FIVE_MINUTES)]), "2"),
            (params(system=[text(20, cache_control=HOUR)]), "2"),
            (params(cache_control=FIVE_MINUTES), "1.25"),
            (params(tools=[{"name": "t", "cache_control": HOUR}]), "2"),
            (params([{"type": "tool_result", "content": [text(2, cache_control=HOUR)]}]), "2"),
            (params([{"type": "image", "source": {"type": "url"}, "cache_control": FIVE_MINUTES}]), "1.25"),
            (params("about cache_control"), "1"),
        ],
    )
    def test_the_dearest_price_of_cache_writes_that_is_asked_for(self, request_: Any, times: str) -> None:
        found = bound_cost(request_, Prices(), batch=False)
        assert found is not None
        least, most = found
        assert least == tokens_of(request_) * Decimal("0.000001")
        assert most == least * Decimal(times) + Decimal("0.0005")

    def test_a_model_without_a_price(self) -> None:
        assert bound_cost(params(model="mine"), Prices(), batch=True) is None
        assert bound_cost(params(model="mine"), Prices(MINE), batch=True) is not None

    @pytest.mark.parametrize("model", [3, ["claude-x"], {"a": 1}])
    def test_a_model_that_is_no_name(self, model: Any) -> None:
        assert bound_cost(params(model=model), Prices(), batch=True) is None


FILE = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
OPUS = "claude-opus-4-5"  # 5 / 25 USD per million tokens; a context window of 200,000


def server_tool(kind: str, **more: Any) -> dict[str, Any]:
    return {"tools": [{"type": f"{kind}_20260318", "name": kind, **more}]}


class TestWhatABudgetMustHave:
    def test_for_text_is_its_estimate_and_at_most_a_token_a_byte(self) -> None:
        found = budget_need(params("日" * 100, max_tokens=1_000), Prices(), batch=False)
        assert isinstance(found, Need)
        assert found.input == (86 + PER_MESSAGE) * Decimal("0.000001")
        assert found.most >= (300 + 5_000) * Decimal("0.000001")

    @pytest.mark.parametrize(
        ("model", "tokens"),
        [(OPUS, 200_000), ("claude-opus-5", 1_000_000), ("claude-sonnet-4-5", 1_000_000), (HAIKU, 200_000)],
    )
    def test_for_a_file_is_as_much_as_fits_into_a_prompt(self, model: str, tokens: int) -> None:
        prices = Prices({model: {"input_mtok": 2, "output_mtok": 10}})
        found = budget_need(params([FILE], model=model), prices, batch=True)
        assert found == Need(tokens * Decimal("0.000001"), tokens * Decimal("0.000001") + Decimal("0.0005"))

    def test_for_text_is_never_more_than_fits_into_a_prompt(self) -> None:
        found = budget_need(params("x" * 900_000), Prices(), batch=False)
        assert isinstance(found, Need)
        assert found.most == Decimal("0.2") + Decimal("0.0005")

    def test_for_server_tools_is_a_prompt_for_each_use(self) -> None:
        found = budget_need(params(model=OPUS, **server_tool("web_search", max_uses=4)), Prices(), batch=True)
        assert found == Need(Decimal("2.54"), Decimal("2.54") + 5 * Decimal("0.00125"))  # a search is a cent

    def test_in_the_us_is_a_tenth_more(self) -> None:
        there, anywhere = (
            budget_need(params([FILE], model="claude-opus-4-6", inference_geo=geo), Prices(), batch=True)
            for geo in ("us", "global")
        )
        assert isinstance(there, Need)
        assert isinstance(anywhere, Need)
        assert (there.input, there.most) == (anywhere.input * Decimal("1.1"), anywhere.most * Decimal("1.1"))

    def test_holds_what_compaction_and_other_models_take(self) -> None:
        alone, compacted, advised, fallen_back = (
            budget_need(params([FILE], model=OPUS, **more), Prices(), batch=True)
            for more in (
                {},
                {"context_management": {"edits": [{"type": "compact_20260112"}]}},
                server_tool("advisor", model="claude-opus-5", max_uses=1),
                {"fallbacks": [{"model": "claude-opus-5"}]},
            )
        )
        for more in (compacted, advised, fallen_back):
            assert isinstance(alone, Need)
            assert isinstance(more, Need)
            assert more.input >= 2 * alone.input
            assert more.most >= 2 * alone.most

    @pytest.mark.parametrize(
        ("request_", "field", "says"),
        [
            (params(model="mine"), "params.model", "the price of mine is not known; add it to claude_batch_prices"),
            (params([FILE], model="own"), "params.messages", "the context window of own is not known"),
            (params(**server_tool("web_search")), "params.tools", "web_search without max_uses"),
            (params(mcp_servers=[{}]), "params.mcp_servers", "leave them out"),
            (params(speed="fast"), "params.speed", "fast mode"),
            (params(inference_geo="mars"), "params.inference_geo", "inference there"),
            (params(fallbacks="default"), "params.fallbacks", "the other models"),
            (params(**server_tool("advisor", model="mine", max_uses=1)), "params.tools", "the other models"),
        ],
    )
    def test_is_not_said_where_nothing_limits_it(self, request_: Any, field: str, says: str) -> None:
        found = budget_need(request_, Prices({"own": {"input_mtok": 1, "output_mtok": 1}}), batch=True)
        assert isinstance(found, Unbounded)
        assert found.field == field
        assert says in found.why

    def test_of_a_batch_is_the_sum_or_names_the_first_without_a_limit(self) -> None:
        requests = [params(), params([FILE], model=OPUS)]
        found = batch_need(map(msgspec.json.encode, requests), Prices())
        assert isinstance(found, BatchNeed)
        assert (found.input, dict(found.unknown)) == (7_000 + 500_000_000, {"file": 1})
        requests.append(params(speed="fast"))
        refused = batch_need(map(msgspec.json.encode, requests), Prices())
        assert isinstance(refused[1], Unbounded)
        assert (refused[0], refused[1].field) == (2, "params.speed")


class TestARange:
    def test_says_what_is_not_known_and_how_much_it_may_be(self) -> None:
        found = estimate({str(n): params([FILE], model=OPUS) for n in range(4)})
        assert found.unknown == {"file": 4}
        assert found.reasons == "4 files whose size is not known"
        assert found.at_least == pytest.approx(4 * PER_MESSAGE * 2.5e-6), "a file may be empty"
        assert found.input_tokens == 4 * (DOCUMENT + PER_MESSAGE)
        assert found.cost == 4 * (200_000 * 2.5e-6 + 100 * 12.5e-6)
        assert str(found) == "at least $4e-05; 4 files whose size is not known (up to $2.005)"

    def test_has_no_upper_end_where_nothing_limits_it(self) -> None:
        found = estimate({"a": params(**server_tool("web_search")), "b": params([FILE])})
        assert (found.cost, found.fallback_cost, found.by_model) == (None, None, {HAIKU: None})
        assert found.at_least is not None
        assert str(found).startswith("at least $")
        assert "no limit is known" in str(found)
        assert "1 request with web_search without max_uses" in found.reasons
        assert "1 file whose size is not known" in found.reasons

    def test_of_text_is_one_figure(self) -> None:
        found = estimate({"a": params()})
        assert (found.at_least, found.unknown, found.reasons) == (None, {}, "")
        assert str(found) == "about $0.000257 with the longest answers"

    def test_of_what_has_no_price_says_both(self) -> None:
        found = estimate({"a": params(model="mine"), "b": params("x" * 3_500)})
        assert found.cost is None
        assert found.at_least == pytest.approx(1_004 * 0.5e-6)
        assert found.reasons == "1 request of mine whose price is not known"


class TestEstimate:
    @pytest.fixture(autouse=True)
    def no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(socket, "socket", None)

    def test_what_a_job_of_one_model_would_cost(self) -> None:
        content = "x" * (3_500 - 14)  # with what comes with a message, 1,000 tokens
        job = ({"custom_id": str(n), "params": params(content, max_tokens=200)} for n in range(1_000))
        assert estimate(job) == Estimate(
            requests=1_000,
            input_tokens=1_000_000,
            max_output_tokens=200_000,
            cost=1.0,  # (1 + 0.2 * 5) / 2
            fallback_cost=2.0,
            by_model={HAIKU: 1.0},
        )

    def test_several_models_and_overrides(self) -> None:
        job = {"a": params(model="mine", max_tokens=1_000), "b": params(max_tokens=1_000), "c": params(model="mine")}
        found = estimate(job, prices=MINE)
        mine, haiku = 2 * 14 * 10 + 1_100 * 100, 14 * 1 + 1_000 * 5
        assert found.by_model == {"mine": mine / 2e6, HAIKU: haiku / 2e6}
        assert found.cost == (mine + haiku) / 2e6
        assert found.fallback_cost == (mine + haiku) / 1e6

    def test_one_model_without_a_price_leaves_the_sum_unknown(self) -> None:
        found = estimate({"a": params(model="mine"), "b": params()})
        assert found.by_model == {"mine": None, HAIKU: pytest.approx(0.000257)}
        assert (found.cost, found.fallback_cost) == (None, None)
        assert (found.requests, found.input_tokens, found.max_output_tokens) == (2, 28, 200)

    def test_requests_of_one_model_on_both_sides_of_a_step(self) -> None:
        long = "x" * 700_000  # 200,000 tokens
        found = estimate({"a": params(long, model="claude-haiku-5-5"), "b": params(model="claude-haiku-5-5")})
        assert found.fallback_cost == (200_004 * 0.5 + 100 * 2.5 + 14 * 0.1 + 100 * 0.5) / 1e6

    @given(sizes=st.lists(st.integers(0, 3_000), min_size=1, max_size=8), asked=st.sampled_from([None, HOUR]))
    def test_it_is_the_sum_of_the_upper_bounds(self, sizes: list[int], asked: Any) -> None:
        job = {str(n): params("x" * size, cache_control=asked) for n, size in enumerate(sizes)}
        for batch in (True, False):
            found = [bound_cost(request, Prices(), batch=batch) for request in job.values()]
            most = float(sum(pair[1] for pair in found if pair is not None))
            assert (estimate(job).cost if batch else estimate(job).fallback_cost) == most
        assert estimate(job).input_tokens == sum(map(tokens_of, job.values()))

    def test_requests_are_taken_one_by_one(self) -> None:
        taken = 0

        def job() -> Iterator[dict[str, Any]]:
            nonlocal taken
            for taken in range(3):
                yield {"custom_id": str(taken), "params": params()}

        assert estimate(job()).requests == 3
        assert taken == 2

    @pytest.mark.parametrize(
        "job",
        [[], 3, "text", {"a": {}}, [{"custom_id": "a", "params": params(max_tokens=0)}], {"a": params(model="")}],
    )
    def test_what_could_not_be_sent_is_refused(self, job: Any) -> None:
        with pytest.raises(InvalidRequests, match="nothing was stored or sent"):
            estimate(job)

    def test_so_is_a_job_that_names_two_requests_alike(self) -> None:
        with pytest.raises(InvalidRequests, match="occurs more than once"):
            estimate([{"custom_id": "a", "params": params()}] * 2)

    def test_prices_that_make_no_sense_are_refused(self) -> None:
        with pytest.raises(ValueError, match="output_mtok is missing"):
            estimate({"a": params()}, prices={"mine": {"input_mtok": 1}})
