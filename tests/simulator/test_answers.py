"""Scripted answers: which request gets which, what they consist of, and how they go on."""

from __future__ import annotations

import json
import tracemalloc
from functools import partial
from typing import Any

import anthropic
import pytest

from claude_batch_tasks.simulator import Answer, Behaviour, Control, Simulator, ToolCall
from claude_batch_tasks.simulator.answers.judging import Judge, Sendings
from claude_batch_tasks.simulator.models import read_catalog
from claude_batch_tasks.simulator.prompts import read_batch
from claude_batch_tasks.simulator.validation import Terms

from .conftest import call, request

BATCHES = "/v1/messages/batches"


def send(simulator: Control, text: str, **params: Any) -> Any:
    """Return the answer of the Messages API."""
    return call(simulator, "POST", "/v1/messages", request("", text, **params)["params"]).json


def run(simulator: Simulator, *requests: Any) -> dict[str, Any]:
    """Return the results of a batch by custom_id."""
    batch = call(simulator, "POST", BATCHES, {"requests": requests}).json
    simulator.end(batch["id"])
    lines = call(simulator, "GET", f"{BATCHES}/{batch['id']}/results").body.splitlines()
    return {row["custom_id"]: row["result"] for row in map(json.loads, lines)}


def texts(message: Any) -> str:
    return "".join(block.get("text", "") for block in message["content"])


def turn(message: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": message["content"]}


def test_rules_look_at_custom_id_prompts_and_model(simulator: Simulator) -> None:
    simulator.answer_with(
        Answer(custom_id="-3$", text="by custom_id"),
        Answer(prompt="^ask (a|b)$", text="by prompt"),
        Answer(last_prompt="again", text="by last prompt"),
        Answer(model="opus", text="by model"),
        Answer(via="messages", text="by way"),
    )
    results = run(
        simulator,
        request("r-3"),
        request("r-4", "ask b"),
        request("r-5", "x", model="claude-opus-5"),
        request("r-6", "y"),
        request("r-7", "z", messages=[{"role": "user", "content": c} for c in ("one", "again")]),
    )
    assert [texts(results[f"r-{n}"]["message"]) for n in range(3, 8)] == [
        "by custom_id",
        "by prompt",
        "by model",
        "Echo: y",
        "by last prompt",
    ]
    assert texts(send(simulator, "y")) == "by way"


def test_new_rules_come_first(simulator: Simulator) -> None:
    simulator.answer_with(Answer(text="old"))
    simulator.answer_with(Answer(prompt="a", text="new"))
    assert (texts(send(simulator, "a")), texts(send(simulator, "b"))) == ("new", "old")
    simulator.answer_with(replace=True)
    assert texts(send(simulator, "b")) == "Echo: b"


def test_attempts_are_those_of_the_first_prompt_however_it_is_sent(simulator: Simulator) -> None:
    simulator.answer_with(
        Answer(prompt="sum", attempts=1, text="no JSON"),
        Answer(prompt="sum", attempts=(2,), error="overloaded_error"),
        Answer(prompt="sum", json={"sum": 3, "of": "{prompt}"}),
    )
    first = run(simulator, request("r-1", "sum 1"), request("r-2", "sum 2"))
    assert [texts(first[name]["message"]) for name in ("r-1", "r-2")] == ["no JSON", "no JSON"]
    turns = [{"role": "user", "content": "sum 1"}, turn(first["r-1"]["message"]), {"role": "user", "content": 'a "b"'}]
    second = run(simulator, request("other", "", messages=turns, model="claude-opus-5"))["other"]
    assert second["error"]["error"]["type"] == "overloaded_error"
    third = send(simulator, "", messages=turns)
    assert json.loads(texts(third)) == {"sum": 3, "of": 'a "b"'}


def test_the_same_text_beside_another_image_is_another_request(simulator: Simulator) -> None:
    simulator.answer_with(Answer(attempts=1, text="first"))

    def describe(data: str) -> str:
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
        content = [image, {"type": "text", "text": "Describe it"}]
        return texts(send(simulator, "", messages=[{"role": "user", "content": content}]))

    assert [describe(data) for data in ("aaaa", "bbbb", "aaaa")] == ["first", "first", "Echo: Describe it"]


def test_attempts_of_a_custom_id(simulator: Simulator) -> None:
    simulator.answer_with(Answer(attempts=1, attempts_of="custom_id", type="expired"))
    assert {name: row["type"] for name, row in run(simulator, request("a", "x"), request("b", "x")).items()} == {
        "a": "expired",
        "b": "expired",
    }
    again = run(simulator, request("a", "another"), request("c", "x"))
    assert (again["a"]["type"], again["c"]["type"]) == ("succeeded", "expired")


def test_a_refusal_before_any_output_is_not_billed(simulator: Simulator) -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "no"}
    simulator.answer_with(
        Answer(prompt="none", refusal="cyber"),
        Answer(prompt="some", refusal=details, text="I begin"),
        Answer(prompt="bare", stop_reason="refusal"),
        Answer(prompt="blank", refusal=True, text=" " * 8),
    )
    rows = run(simulator, request("n", "none"), request("s", "some"), request("b", "bare"), request("k", "blank"))
    none, some, bare = (rows[name]["message"] for name in "nsb")
    assert (none["stop_reason"], none["content"], none["usage"]["output_tokens"]) == ("refusal", [], 0)
    assert none["stop_details"] == {"type": "refusal", "category": "cyber", "explanation": None}
    assert (some["stop_reason"], texts(some), some["stop_details"]) == ("refusal", "I begin", details)
    assert (bare["stop_reason"], bare["content"]) == ("refusal", [])
    send(simulator, "none")
    journal = simulator.journal()
    assert (journal.totals.paid_batch, journal.totals.paid_messages) == (1, 0)
    assert {record.text: record.paid for record in journal.prompts} == {"none": 0, "some": 1, "bare": 0, "blank": 0}
    assert journal.totals.batch_tokens.output == 1
    assert journal.batches[0].request_counts["succeeded"] == 4


def test_blocks_of_every_kind(simulator: Simulator) -> None:
    cited = {"type": "char_location", "cited_text": "x", "document_index": 0, "document_title": None}
    cited |= {"start_char_index": 0, "end_char_index": 1, "file_id": None}
    simulator.answer_with(
        Answer(prompt="think", thinking="hmm" * 8, text="so", citations=(cited,)),
        Answer(prompt="tool", text="I call", tool=(ToolCall("f", {"a": 1}), ToolCall("g", id="toolu_x"))),
        Answer(prompt="raw", content=({"type": "new_block", "x": [1]},), stop_reason="brand_new"),
        Answer(prompt="empty", text=""),
        Answer(prompt="counted", usage={"output_tokens": 500, "input_tokens": 7, "iterations": []}),
    )
    think = send(simulator, "think")
    assert [block["type"] for block in think["content"]] == ["thinking", "text"]
    assert think["content"][1]["citations"] == [cited]
    assert think["usage"]["output_tokens_details"] == {"thinking_tokens": 6}
    tool = send(simulator, "tool")
    assert (tool["stop_reason"], tool["content"][1]["input"], tool["content"][2]["id"]) == (
        "tool_use",
        {"a": 1},
        "toolu_x",
    )
    raw = send(simulator, "raw")
    assert (raw["stop_reason"], raw["content"]) == ("brand_new", [{"type": "new_block", "x": [1]}])
    empty = send(simulator, "empty")
    assert (empty["stop_reason"], empty["content"], empty["usage"]["output_tokens"]) == ("end_turn", [], 1)
    before = simulator.journal().totals.messages_tokens
    counted = send(simulator, "counted")
    assert (texts(counted), counted["usage"]["output_tokens"]) == ("Echo: counted", 500)
    after = simulator.journal().totals.messages_tokens
    assert (after.input - before.input, after.output - before.output) == (7, 500)


def test_a_paused_answer_goes_on_where_it_stopped(simulator: Simulator) -> None:
    simulator.answer_with(Answer(prompt="search", pauses=2, text="one two three four"))
    # Also a model that takes no beginning of its answer continues a paused turn.
    ask = partial(send, simulator, "", model="claude-opus-5-5")
    messages: list[Any] = [{"role": "user", "content": "search"}]
    first = ask(messages=messages)
    second = ask(messages=[*messages, turn(first)])
    joined = {"role": "assistant", "content": first["content"] + second["content"]}
    third = ask(messages=[*messages, joined])
    assert [part["stop_reason"] for part in (first, second, third)] == ["pause_turn", "pause_turn", "end_turn"]
    assert texts(first) + texts(second) + texts(third) == "one two three four"
    assert [block["type"] for block in second["content"]] == ["web_fetch_tool_result", "text", "server_tool_use"]
    assert second["content"][0]["tool_use_id"] == first["content"][1]["id"]
    assert second["usage"]["server_tool_use"] == {"web_search_requests": 0, "web_fetch_requests": 1}


def test_paused_json_comes_whole_at_the_end(simulator: Simulator) -> None:
    simulator.answer_with(Answer(pauses=1, thinking="hm", json={"a": 1}))
    messages: list[Any] = [{"role": "user", "content": "x"}]
    first = send(simulator, "", messages=messages)
    second = send(simulator, "", messages=[*messages, turn(first)])
    assert [block["type"] for block in first["content"]] == ["server_tool_use"]
    assert [block["type"] for block in second["content"]] == ["web_fetch_tool_result", "thinking", "text"]
    assert (first["stop_reason"], second["stop_reason"]) == ("pause_turn", "end_turn")


def test_a_paused_answer_of_several_blocks(simulator: Simulator) -> None:
    blocks = (
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
        {"type": "text", "text": "found"},
    )
    simulator.answer_with(Answer(prompt="search", pauses=1, content=blocks))
    messages: list[Any] = [{"role": "user", "content": "search"}]
    first = send(simulator, "", messages=messages)
    without = {"role": "assistant", "content": first["content"][1:]}
    rest = [send(simulator, "", messages=[*messages, last]) for last in (turn(first), without)]
    assert first["stop_reason"] == "pause_turn"
    assert [first["content"] + part["content"] for part in rest] == [list(blocks)] * 2


def test_max_tokens_really_cuts_and_a_continuation_gets_the_rest(simulator: Simulator) -> None:
    simulator.answer_with(Answer(prompt="long", thinking="t" * 8, text="abcdefghij"))
    cut = send(simulator, "long", max_tokens=3)
    assert (cut["stop_reason"], texts(cut), cut["usage"]["output_tokens"]) == ("max_tokens", "abcd", 3)
    assert send(simulator, "long", max_tokens=5)["stop_reason"] == "end_turn"
    rest = send(simulator, "", messages=[{"role": "user", "content": "long"}, turn(cut)])
    assert (rest["stop_reason"], texts(rest)) == ("end_turn", "efghij")
    given = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Echo: he"}]
    assert texts(send(simulator, "", messages=given)) == "llo"
    given[1]["content"] = "Something else"
    assert texts(send(simulator, "", messages=given)) == "Echo: hello"


def test_rules_are_refused_with_the_entry_and_the_field(simulator: Simulator) -> None:
    for answers, problem in (
        ([{}, {"promt": "x"}], r"unknown field `promt` - at `\$.answers\[1\]`"),
        ([{"prompt": "("}], r"`prompt` is no regular expression: .* - at `\$.answers\[0\]`"),
        ([{"probability": 2}], r"`float` <= 1.0 - at `\$.answers\[0\].probability`"),
        ([{"pauses": -1}], r"`int` >= 0 - at `\$.answers\[0\].pauses`"),
        ([{"attempts": [0]}], r"`int` >= 1 - at `\$.answers\[0\].attempts\[0\]`"),
        ([{"text": "x", "json": None}], r"`text` and `json` exclude each other - at `\$.answers\[0\]`"),
        ([{"pauses": "2"}], r"Expected `int`, got `str` - at `\$.answers\[0\].pauses`"),
    ):
        with pytest.raises(ValueError, match=problem):
            simulator._call_control("answers", dict, {"answers": answers})


@pytest.mark.latest
def test_the_sdk_streams_blocks_of_every_kind(simulator: Simulator, client: anthropic.Anthropic) -> None:
    answer = Answer(thinking="hm", text="a" * 50, tool=ToolCall("f", {"a": ["ü"] * 20}))
    simulator.answer_with(answer)
    with client.messages.stream(**request("", "tell me")["params"]) as stream:
        message = stream.get_final_message()
    plain = client.messages.create(**request("", "tell me")["params"])
    assert message.to_dict()["content"] == plain.to_dict()["content"]
    assert (message.stop_reason, message.usage.output_tokens) == (plain.stop_reason, plain.usage.output_tokens)


def test_what_many_requests_share_is_stored_once() -> None:
    rules = tuple(Answer(prompt=f"{n}$", json={"long": "x" * 10_000}, attempts=1) for n in range(10))
    config = {"format": {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False}}}
    asked = [request(f"r-{n}", output_config=config) for n in range(2000)]
    body = json.dumps({"requests": asked}).encode()
    terms = Terms("2023-06-01", read_catalog(), in_batch=True)
    tracemalloc.start()
    try:
        prompts = read_batch(body, Judge(Behaviour(answers=rules), "batch", Sendings()), terms)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(prompt.answer is rules[n % 10] for n, prompt in enumerate(prompts))
    assert len({id(prompt.form) for prompt in prompts}) == 1
    assert size / len(prompts) < 1500
