"""Another chance, against the independent API: streams, params as they are, rate limits, budgets, costs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from claude_batch_tasks import BatchJob, run_batch
from tests.adversarial.conftest import Given, World
from tests.adversarial.server import (
    NO_CREDIT,
    OVERLOADED,
    SPEND_LIMIT,
    Account,
    Answer,
    Manners,
    Streaming,
    refusal,
    where,
)
from tests.factories import make_params

pytestmark = pytest.mark.workers

Spare = Callable[[], str]

CONTENT = [
    {"type": "thinking", "thinking": "Let me see ... \u2028 é", "signature": "c2lnbmF0dXJl"},
    {"type": "redacted_thinking", "data": "b3BhcXVl"},
    {
        "type": "text",
        "text": "First, 漢字 and 😀.",
        "citations": [{"type": "char_location", "cited_text": "a"}, {"x": 1}],
    },
    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"deep": [1, {"é": None}], "n": 1.5}},
    {"type": "tool_use", "id": "toolu_2", "name": "nothing", "input": {}},
    {"type": "hologram", "shape": {"x": [1]}},
]
USAGE = {
    "input_tokens": 10,
    "output_tokens": 200,
    "cache_creation_input_tokens": 30,
    "cache_read_input_tokens": 40,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
}


def expired(index: int, prompt: str) -> dict[str, Any]:
    return {"type": "expired"}


def run(world: World, name: str, manners: Manners, count: int = 1, **options: Any) -> tuple[Given, Account]:
    """A job whose requests all expire in their batch, unless the manners say otherwise; ``params`` go into each."""
    params = options.pop("params", {})
    world.app.set_current()
    account = world.server.account(name)
    account.manners = manners
    manners.result = manners.result or expired
    prompts = {f"id {i}": f"{name} {i}" for i in range(count)}
    made = {id_: {**make_params(text, model="claude-x", max_tokens=64), **params} for id_, text in prompts.items()}
    result = run_batch.delay(made, client=name, **{"retries": 0, **options})
    return Given(name, account, result, world.app, prompts), account


class TestALongAnswer:
    @pytest.mark.parametrize(
        "look",
        [
            {},
            {"streaming": Streaming(eol=b"\r\n", comments=True, unknown=True, space=False)},
            {"streaming": Streaming(pretty=True, pings=0, piece=1, deltas=3), "chunks": [1]},
            {"streaming": Streaming(piece=1000), "chunks": [7], "ascii": True, "coding": "gzip"},
        ],
    )
    def test_is_streamed_and_comes_out_whole(self, look: dict[str, Any], world: World, spare: Spare) -> None:
        message = {"content": CONTENT, "usage": USAGE, "stop_reason": "tool_use", "container": {"id": "c"}}
        given, account = run(world, spare(), Manners(message=message, **look), params={"max_tokens": 21_334})
        assert given.get()["fallback"] == 1
        assert [call.stream for call in account.messages] == [True]
        found = given.job.result("id 0").message
        assert found is not None
        assert {name: found[name] for name in message} == message

    def test_is_one_that_the_sdk_would_not_wait_for(self, world: World, spare: Spare) -> None:
        given, account = run(world, spare(), Manners(), params={"max_tokens": 21_333})
        assert given.get()["fallback"] == 1
        assert [call.stream for call in account.messages] == [False]

    def test_that_begins_with_an_error_is_asked_for_again(self, world: World, spare: Spare) -> None:
        manners = Manners(streaming=Streaming(ends=["error first", "error first"]))
        given, account = run(world, spare(), manners, params={"max_tokens": 30_000})
        assert given.get()["fallback"] == 1
        assert (len(account.messages), account.paid.total()) == (3, 1)

    @pytest.mark.parametrize("end", ["error", "cut", "reset", "early", "unstopped"])
    def test_that_breaks_off_is_paid_and_not_asked_for_again(self, end: str, world: World, spare: Spare) -> None:
        given, account = run(world, spare(), Manners(streaming=Streaming(end=end)), params={"max_tokens": 30_000})
        summary = given.get()
        assert (summary["fallback"], summary["expired"]) == (0, 1)
        assert len(account.messages) == 1
        assert "it may have been billed, so it is not sent again" in str(given.job.result("id 0").note)

    @pytest.mark.parametrize("end", ["done", "cut after", "twice"])
    @pytest.mark.parametrize("chunks", [[], [7]])
    def test_is_whole_whatever_comes_before_it_or_after(
        self, end: str, chunks: list[int], world: World, spare: Spare
    ) -> None:
        manners = Manners(streaming=Streaming(end=end), chunks=chunks, message={"content": CONTENT, "usage": USAGE})
        given, account = run(world, spare(), manners, params={"max_tokens": 30_000})
        assert (given.get()["fallback"], len(account.messages)) == (1, 1)
        message = given.job.result("id 0").message
        assert message is not None
        assert (message["content"], message["model"]) == (CONTENT, "claude-x")

    def test_is_none_where_it_is_mixed_with_another(self, world: World, spare: Spare) -> None:
        manners = Manners(streaming=Streaming(end="mixed"), message={"content": CONTENT, "usage": USAGE})
        given, account = run(world, spare(), manners, params={"max_tokens": 30_000})
        assert (given.get()["fallback"], len(account.messages)) == (0, 1)
        assert "it may have been billed, so it is not sent again" in str(given.job.result("id 0").note)

    def test_has_the_model_that_answered_and_its_price(self, world: World, spare: Spare) -> None:
        asked, served = "claude-opus-4-5-20251101", "claude-haiku-4-5-20251001"
        switch = {"type": "fallback", "from": {"model": asked}, "to": {"model": served}}
        content = [{"type": "text", "text": "I will not."}, switch, {"type": "text", "text": "I will."}]
        given, _ = run(
            world, spare(), Manners(message={"content": content}), params={"model": asked, "max_tokens": 30_000}
        )
        summary = given.get()
        message = given.job.result("id 0").message
        assert message is not None
        assert (message["model"], message["content"]) == (served, content)
        assert list(summary["cost_by_model"]) == [served]

    def test_may_be_that_of_a_request_that_says_it_needs_no_stream(self, world: World, spare: Spare) -> None:
        given, account = run(world, spare(), Manners(), params={"max_tokens": 30_000, "stream": False})
        assert given.get()["fallback"] == 1
        assert [call.stream for call in account.messages] == [True]


class TestAnAnswerThatMayHaveBeenBilled:
    def test_counts_against_the_budget_and_is_not_asked_for_again(self, world: World, spare: Spare) -> None:
        """By hand: $1 for each of the answers at most, of which there are 40."""
        params = {"model": "claude-opus-4-5-20251101", "max_tokens": 40_000}
        manners = Manners(forever={"messages": Answer(520, b"", acts=True)})
        given, account = run(world, spare(), manners, 40, params=params, max_fallback_cost=5)
        summary = given.get()
        assert (summary["fallback"], summary["expired"]) == (0, 40)
        assert 4 <= len(account.messages) <= 6
        assert set(account.paid_messages.values()) == {1}

    def test_by_a_gateway_that_takes_no_key_is_the_last_one(self, world: World, spare: Spare) -> None:
        refused = Answer(401, b'{"error": {"message": "team key expired", "type": "auth_error", "code": "401"}}')
        given, account = run(world, spare(), Manners(forever={"messages": refused}, message_seconds=0.1), 60)
        summary = given.get()
        assert "team key expired" in summary["stopped"]
        assert len(account.messages) < 40


class TestParams:
    def test_pass_as_they_are(self, world: World, spare: Spare) -> None:
        params = {"temperature": 0.25, "unheard_of": {"x": [1.5, None, "é"]}, "thinking": {"type": "adaptive"}}
        given, account = run(world, spare(), Manners(), params=params)
        given.get()
        [call] = account.messages
        prompt = {"messages": [{"role": "user", "content": f"{given.name} 0"}]}
        assert json.loads(json.dumps(call.params)) == {"model": "claude-x", "max_tokens": 64, **prompt, **params}

    def test_pass_as_they_are_with_a_stream(self, world: World, spare: Spare) -> None:
        given, account = run(world, spare(), Manners(), params={"max_tokens": 50_000, "unheard_of": [1]})
        given.get()
        [call] = account.messages
        assert (call.params["stream"], call.params["unheard_of"], call.params["max_tokens"]) == (True, [1], 50_000)


class TestRateLimits:
    @pytest.mark.parametrize(
        "limits",
        [
            {"window": False, "reset": "full"},
            {"window": False, "reset": "next", "burst_share": 10},
            {"window": True, "reset": "full"},
            {"window": True, "reset": "absent", "precise": False},
        ],
    )
    def test_are_kept(self, limits: dict[str, Any], world: World, spare: Spare) -> None:
        manners = Manners(messages_limit=120, minute=3.0, message_seconds=0.05, **limits)
        given, account = run(world, spare(), manners, 250)
        assert given.get()["fallback"] == 250
        assert account.accepted == 250
        # Where the end of a window is unknown, a few are refused at each; without care there would be some fifteen.
        assert account.refused <= 10
        assert set(account.paid.values()) == {1}

    def test_of_tokens_are_kept(self, world: World, spare: Spare) -> None:
        manners = Manners(input_tokens_limit=3000, minute=2.0, reset="full")
        padding = {"messages": [{"role": "user", "content": "x" * 400}]}
        given, account = run(world, spare(), manners, 60, params=padding)
        assert given.get()["fallback"] == 60
        assert account.refused <= 3

    def test_that_are_not_told_are_found_out(self, world: World, spare: Spare) -> None:
        """By refusals alone: none is lost, and all wait when one is refused."""
        slowly = refusal(429, "rate_limit_error", "slow down", retry_after="1")
        manners = Manners(call=every(10, slowly), message_seconds=0.2)
        given, account = run(world, spare(), manners, 60)
        assert given.get()["fallback"] == 60
        refused = account.messages[9].at
        # Else there would be some twenty.
        assert sum(refused + 0.45 < call.at < refused + 0.9 for call in account.messages) == 0

    def test_of_calls_in_flight_are_kept(self, world: World, spare: Spare) -> None:
        given, account = run(world, spare(), Manners(message_seconds=0.05), 60, max_messages_in_flight=3)
        assert given.get()["fallback"] == 60
        assert account.most_in_flight == 3

    def test_rise_while_nothing_is_refused(self, world: World, spare: Spare) -> None:
        given, account = run(world, spare(), Manners(message_seconds=0.4), 200, max_messages_in_flight=30)
        assert given.get()["fallback"] == 200
        assert 12 < account.most_in_flight <= 30

    def test_fall_when_the_api_is_overloaded(self, world: World, spare: Spare) -> None:
        manners = Manners(script={"messages": [OVERLOADED] * 6}, message_seconds=0.2)
        given, account = run(world, spare(), manners, 40, max_messages_in_flight=30)
        assert given.get()["fallback"] == 40
        assert account.most_in_flight < 30
        assert set(account.paid.values()) == {1}


def every(number: int, answer: Any) -> Callable[[int, str, Any], Any]:
    return lambda call, prompt, params: answer if call % number == 0 else None


class TestAnAccountThatMayNotSpend:
    @pytest.mark.parametrize("answer", [NO_CREDIT, SPEND_LIMIT])
    def test_stops_all_and_keeps_what_there_is(self, answer: Any, world: World, spare: Spare) -> None:
        manners = Manners(call=where(" 7", answer), message_seconds=0.02)
        given, account = run(world, spare(), manners, 100)
        summary = given.get()
        assert summary["state"] == "completed"
        assert summary["stopped"]
        assert summary["fallback"] + summary["expired"] == 100
        assert summary["expired"] == summary["fallback_skipped"]
        assert len(account.messages) < 100
        assert len(list(BatchJob(given.result.id, world.app).results())) == 100


class TestTheCost:
    def test_is_that_of_batches_and_messages_alike(self, world: World, spare: Spare) -> None:
        """By hand: claude-opus-4-5 is $5 and $25 a million tokens, writes 1.25 and 2 times, reads 0.1 of the input."""
        third = Manners(
            result=lambda index, prompt: {"type": "expired" if index % 3 == 0 else "succeeded"},
            usage=lambda index, prompt, params: USAGE,
        )
        given, account = run(world, spare(), third, 9, params={"model": "claude-opus-4-5-20251101"})
        each = (5 * (10 + 1.25 * 10 + 2 * 20 + 0.1 * 40) + 25 * 200) / 1e6
        summary = given.get()
        assert Counter(found.source for found in given.job.results()) == {"batch": 6, "messages": 3}
        assert summary["cost"] == pytest.approx(6 * each / 2 + 3 * each, rel=1e-9)
        assert summary["cost_by_model"] == {"claude-opus-4-5-20251101": summary["cost"]}
        assert given.job.status().cost == summary["cost"]
        assert account.accepted == 3
