"""Prompt caching: what is written, what is read, and that the journal's bill is the sum of the usages."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from anthropic.types import Message, Usage

from claude_batch_tasks.simulator import Fault, Outcome, Simulator, Tokens

from .conftest import call, new_client, request

pytestmark = pytest.mark.latest

RULES = "The rules of the house. " * 50


def marked(text: str, ttl: str | None = None) -> dict[str, Any]:
    mark = {"type": "ephemeral"} if ttl is None else {"type": "ephemeral", "ttl": ttl}
    return {"type": "text", "text": text, "cache_control": mark}


def ask(custom_id: str, ttl: str | None = None, **params: Any) -> Any:
    """A question of its own under rules that all share."""
    return request(custom_id, **{"system": [marked(RULES, ttl)], **params})


def run(simulator: Simulator, client: anthropic.Anthropic, items: list[Any]) -> dict[str, Usage]:
    batch = client.messages.batches.create(requests=items)
    simulator.end()
    results = {line.custom_id: line.result for line in client.messages.batches.results(batch.id)}
    return {name: result.message.usage for name, result in results.items() if result.type == "succeeded"}


def split(usage: Usage) -> Tokens:
    """A usage as the journal counts it; that its numbers agree with each other is checked."""
    assert usage.cache_creation is not None
    creation = usage.cache_creation
    written = creation.ephemeral_5m_input_tokens, creation.ephemeral_1h_input_tokens
    assert usage.cache_creation_input_tokens == sum(written)
    assert usage.cache_read_input_tokens is not None
    return Tokens(usage.input_tokens, usage.output_tokens, *written, usage.cache_read_input_tokens)


def whole_input(tokens: Tokens) -> int:
    return tokens.input + tokens.cache_write_5m + tokens.cache_write_1h + tokens.cache_read


@pytest.mark.parametrize("ttl", [None, "5m", "1h"])
def test_the_first_request_of_a_batch_writes_and_the_others_read(
    simulator: Simulator, client: anthropic.Anthropic, ttl: str | None
) -> None:
    usages = run(simulator, client, [ask(f"r-{n}", ttl) for n in range(3)])
    first, second, third = (split(usages[f"r-{n}"]) for n in range(3))
    written = first.cache_write_1h if ttl == "1h" else first.cache_write_5m
    assert written > len(RULES) // 4
    assert whole_input(first) - first.input == written
    assert second.cache_read == written
    assert whole_input(second) == whole_input(first)
    assert 0 < second.input == first.input < written
    assert second == third
    # A later batch reads from the first request on.
    assert split(run(simulator, client, [ask("r-3", ttl)])["r-3"]) == second


def test_without_cache_control_nothing_is_cached(simulator: Simulator, client: anthropic.Anthropic) -> None:
    # The words alone are no mark, nor is a mark that is null.
    text = '{"cache_control": {"type": "ephemeral"}}'
    plain = {"type": "text", "text": RULES, "cache_control": None}
    usages = run(simulator, client, [request("a", text), request("b", text), request("c", system=[plain])])
    for usage in usages.values():
        tokens = split(usage)
        assert tokens == Tokens(tokens.input, tokens.output)
    assert split(usages["a"]) == split(usages["b"])


def test_marks_in_tools_system_and_messages(simulator: Simulator, client: anthropic.Anthropic) -> None:
    tool = {"name": "look", "description": RULES, "input_schema": {"type": "object"}}
    tools = [{**tool, "cache_control": {"type": "ephemeral"}}, {**tool, "name": "unmarked"}]

    def message(question: str, **params: Any) -> Tokens:
        content = params.pop("content", question)
        answer: Message = client.messages.create(
            **request("", question)["params"] | params | {"messages": [{"role": "user", "content": content}]}
        )
        return split(answer.usage)

    # Tools come first: another system prompt does not matter to them.
    written = message("1", tools=tools, system="one").cache_write_5m
    assert len(RULES) // 4 < written < len(RULES) // 2
    assert message("2", tools=tools, system="two").cache_read == written
    # The system prompt comes after the tools, and with other tools is another prefix.
    longer = message("3", tools=tools, system=[marked(RULES)])
    assert longer.cache_write_5m > written + len(RULES) // 4
    assert message("4", tools=tools, system=[marked(RULES)]).cache_read == longer.cache_write_5m
    assert message("5", tools=tools[:1], system=[marked(RULES)]).cache_read == 0
    # The last mark decides, here one in a message; what comes after it is not cached.
    document = [marked("A document. " * 100)]
    longest = message("6", tools=tools, system=[marked(RULES)], content=[*document, {"type": "text", "text": "6"}])
    again = message("7", tools=tools, system=[marked(RULES)], content=[*document, {"type": "text", "text": "seven"}])
    assert longest.cache_write_5m > longer.cache_write_5m + 300
    assert again.cache_read == longest.cache_write_5m


def test_marks_are_no_part_of_the_prefix(simulator: Simulator, client: anthropic.Anthropic) -> None:
    written = split(run(simulator, client, [ask("a")])["a"]).cache_write_5m
    for ttl in ("5m", "1h"):
        assert split(run(simulator, client, [ask("b", ttl)])["b"]).cache_read == written
    # A conversation that grows marks its newest block, and sends the older ones as before.
    turns = [marked("First turn."), marked("Second turn.")]
    for system in (marked(RULES), {"type": "text", "text": RULES}):
        params = request("", system=[system])["params"] | {"messages": [{"role": "user", "content": turns}]}
        usage = split(client.messages.create(**params).usage)
    assert usage.cache_read > written


def test_each_account_and_model_has_its_own_cache(simulator: Simulator, client: anthropic.Anthropic) -> None:
    first = split(run(simulator, client, [ask("a")])["a"])
    with new_client(simulator, "key-b") as other:
        assert split(other.messages.create(**ask("")["params"]).usage).cache_write_5m == first.cache_write_5m
    assert split(run(simulator, client, [ask("b", model="claude-opus-4-5")])["b"]).cache_read == 0
    # Batches and messages of one account share it.
    assert split(client.messages.create(**ask("")["params"]).usage).cache_read == first.cache_write_5m


def test_only_what_succeeds_uses_the_cache(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(outcomes=[Outcome("errored", custom_id="^r-0$"), Outcome("errored", prompt="M", via="messages")])
    simulator.faults(Fault("create", "status", status=500, calls=(1,)))
    with pytest.raises(anthropic.InternalServerError):
        run(simulator, client, [ask("x")])
    with pytest.raises(anthropic.APIStatusError):
        client.messages.create(**ask("M")["params"] | {"messages": [{"role": "user", "content": "M"}]})
    usages = run(simulator, client, [ask("r-0"), ask("bad", max_tokens=0), ask("r-1"), ask("r-2")])
    assert set(usages) == {"r-1", "r-2"}
    assert split(usages["r-1"]).cache_write_5m == split(usages["r-2"]).cache_read > 0


def test_a_stream_tells_the_same_usage(simulator: Simulator, client: anthropic.Anthropic) -> None:
    for _ in range(2):
        with client.messages.stream(**ask("s")["params"]) as stream:
            usage = stream.get_final_message().usage
    assert split(usage).cache_read > 0
    assert simulator.journal().totals.messages_tokens.cache_read == split(usage).cache_read


def test_the_journal_sums_the_usages_by_model(simulator: Simulator, client: anthropic.Anthropic) -> None:
    haiku, opus = "claude-haiku-4-5", "claude-opus-4-5"
    models = {f"r-{n}": opus if n % 3 == 0 else haiku for n in range(10)}
    items = [ask(name, "1h" if model == opus else None, model=model) for name, model in models.items()]
    usages = run(simulator, client, [*items, request("plain")])
    models["plain"] = haiku
    answers = [client.messages.create(**ask(f"m-{n}", ttl)["params"]) for n, ttl in enumerate(["1h", "1h", "5m"])]

    totals = simulator.journal().totals
    assert totals.batch_by_model == {
        model: Tokens.total(split(usages[name]) for name in models if models[name] == model) for model in (haiku, opus)
    }
    assert totals.messages_by_model == {haiku: Tokens.total(split(answer.usage) for answer in answers)}
    assert totals.batch_tokens == Tokens.total(totals.batch_by_model.values())
    assert totals.messages_tokens == totals.messages_by_model[haiku]
    assert totals.batch_by_model[opus].cache_write_1h > 0 == totals.batch_by_model[opus].cache_write_5m
    assert totals.batch_by_model[haiku].cache_write_5m > 0 == totals.batch_by_model[haiku].cache_write_1h
    assert totals.batch_by_model[opus].cache_read == 3 * totals.batch_by_model[opus].cache_write_1h
    # The batch has written what the messages read.
    assert totals.messages_tokens.cache_read == 3 * totals.batch_by_model[haiku].cache_write_5m
    assert (totals.batch_input_tokens, totals.batch_output_tokens) == (
        totals.batch_tokens.input,
        totals.batch_tokens.output,
    )
    assert (totals.messages_input_tokens, totals.messages_output_tokens) == (
        totals.messages_tokens.input,
        totals.messages_tokens.output,
    )


def test_a_repeated_run_costs_the_same(simulator: Simulator, client: anthropic.Anthropic) -> None:
    def bill() -> dict[str, Tokens]:
        simulator.reset()
        run(simulator, client, [ask(f"r-{n}") for n in range(5)])
        return simulator.journal().totals.batch_by_model

    assert bill() == bill()


def test_an_unlucky_shape_is_no_crash(simulator: Simulator) -> None:
    blocks: list[Any] = [1, {"cache_control": "x"}, {"nested": [{"cache_control": {}}]}]
    params = request("", "x", system=blocks, tools=[None])["params"]
    assert call(simulator, "POST", "/v1/messages", params).status == 400
