"""Answers of every kind have the shape that the API sends: recorded members, the SDK's strict models, whole streams."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.messages import MessageBatchIndividualResponse
from pydantic import TypeAdapter

from claude_batch_tasks.simulator import Answer, Simulator, ToolCall

from .conftest import call, request
from .test_shapes import no_extras, strictly

pytestmark = pytest.mark.latest

CITED = {"cited_text": "x", "document_index": 0, "document_title": "t"}
CITATIONS = (
    {"type": "char_location", **CITED, "file_id": None, "start_char_index": 0, "end_char_index": 1},
    {"type": "page_location", **CITED, "file_id": None, "start_page_number": 1, "end_page_number": 2},
    {"type": "content_block_location", **CITED, "file_id": None, "start_block_index": 0, "end_block_index": 1},
    {
        "type": "web_search_result_location",
        "cited_text": "x",
        "encrypted_index": "e",
        "title": "t",
        "url": "https://example.com/",
    },
)
SEARCH = (
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
    {
        "type": "web_search_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": [
            {
                "type": "web_search_result",
                "url": "https://example.com/",
                "title": "t",
                "encrypted_content": "e",
                "page_age": None,
            }
        ],
    },
    {"type": "redacted_thinking", "data": "d"},
    {"type": "text", "text": "found"},
)
STOP_REASONS = (
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "pause_turn",
    "refusal",
    "model_context_window_exceeded",
)
KINDS = {
    "echo": Answer(),
    "text": Answer(text="t" * 100),
    "json": Answer(json={"a": [1, None, "ü"]}),
    "thinking": Answer(thinking="h" * 90, text="t"),
    "tools": Answer(text="I call", tool=(ToolCall("f", {"a": "b" * 90}), ToolCall("g"))),
    "citations": Answer(text="so", citations=CITATIONS),
    "refusal": Answer(refusal="cyber"),
    "refusal after output": Answer(refusal={"type": "refusal", "category": None, "explanation": "no"}, text="I begin"),
    "empty": Answer(text=""),
    "paused": Answer(pauses=1, text="one two"),
    "search": Answer(content=SEARCH),
    "container": Answer(pauses=1, container={"id": "container_1", "expires_at": "2026-12-01T00:00:00Z"}),
    "usage": Answer(usage={"output_tokens": 9, "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0}}),
    **{reason: Answer(text="t", stop_reason=reason) for reason in STOP_REASONS},
}

#: As recorded: the members in their order, `...` for what differs from one answer to the next.
USAGE = {
    "input_tokens": ...,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 3,
    "output_tokens_details": {"thinking_tokens": 0},
    "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
    "service_tier": "standard",
    "inference_geo": "not_available",
}
MESSAGE = {
    "model": "claude-haiku-4-5-20251001",
    "id": ...,
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": "Echo: tell me"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "stop_details": None,
    "usage": USAGE,
}
START = {
    **MESSAGE,
    "content": [],
    "stop_reason": None,
    "usage": {
        **{name: USAGE[name] for name in USAGE if name not in ("output_tokens_details", "server_tool_use")},
        "output_tokens": 1,
    },
}
COUNTERS = {
    "input_tokens": ...,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 3,
    "output_tokens_details": {"thinking_tokens": 0},
    "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
}
EVENTS = [
    {"type": "message_start", "message": START},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Echo: tell me"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None, "stop_details": None},
        "usage": COUNTERS,
    },
    {"type": "message_stop"},
]
ERRORED = {
    "custom_id": "r-1",
    "result": {
        "type": "errored",
        "error": {
            "type": "error",
            "error": {
                "details": {"error_visibility": "user_facing"},
                "type": "overloaded_error",
                "message": "Overloaded",
            },
            "request_id": None,
        },
    },
}


def assert_recorded(sent: Any, recorded: Any) -> None:
    if recorded is ...:
        assert sent
    elif isinstance(recorded, dict):
        assert list(sent) == list(recorded)
        for name, value in recorded.items():
            assert_recorded(sent[name], value)
    else:
        assert sent == recorded


def read_events(body: bytes) -> list[Any]:
    events = [event.split("\n") for event in body.decode().strip().split("\n\n")]
    data = [json.loads(line.removeprefix("data: ")) for _, line in events]
    assert [name for name, _ in events] == [f"event: {event['type']}" for event in data]
    return data


def join_events(events: list[Any]) -> Any:
    """Return the message that the events make, joined as a client joins them."""
    message = events[0]["message"]
    partial = ""
    for event in events[1:]:
        kind, delta = event["type"], event.get("delta", {})
        if kind == "content_block_start":
            assert event["index"] == len(message["content"])
            message["content"].append(event["content_block"])
            partial = ""
        elif kind == "content_block_delta":
            block = message["content"][-1]
            partial += delta.get("partial_json", "")
            block.get("citations", []).extend([delta["citation"]] if "citation" in delta else [])
            block.update(
                {name: block[name] + delta[name] for name in ("text", "thinking", "signature") if name in delta}
            )
        elif kind == "content_block_stop" and partial:
            message["content"][-1]["input"] = json.loads(partial)
        elif kind == "message_delta":
            message = {**message, **delta, "usage": {**message["usage"], **event["usage"]}}
    return message


def test_recorded_shapes(simulator: Simulator) -> None:
    params = request("", "tell me")["params"]
    assert_recorded(call(simulator, "POST", "/v1/messages", params).json, MESSAGE)
    events = read_events(call(simulator, "POST", "/v1/messages", {**params, "stream": True}).body)
    assert len(events) == len(EVENTS)
    for sent, recorded in zip(events, EVENTS, strict=True):
        assert_recorded(sent, recorded)
    simulator.answer_with(Answer(custom_id="r-1", error="overloaded_error"), Answer(custom_id="r-2", type="canceled"))
    batch = call(simulator, "POST", "/v1/messages/batches", {"requests": [request("r-1"), request("r-2")]}).json
    simulator.end()
    body = call(simulator, "GET", f"/v1/messages/batches/{batch['id']}/results").body
    rows = {row["custom_id"]: row for row in map(json.loads, body.splitlines())}
    assert_recorded(rows["r-1"], ERRORED)
    assert_recorded(rows["r-2"], {"custom_id": "r-2", "result": {"type": "canceled"}})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_in_each_way(simulator: Simulator, kind: str) -> None:
    simulator.answer_with(KINDS[kind])
    params = request("", "tell me")["params"]
    plain = call(simulator, "POST", "/v1/messages", params)
    strictly(Message, plain.body)
    assert not any(block.get("citations", ...) in (None, []) for block in plain.json["content"])

    events = read_events(call(simulator, "POST", "/v1/messages", {**params, "stream": True}).body)
    adapter: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    for event in events:
        if event["type"] != "ping":
            no_extras(adapter.validate_json(json.dumps(event), strict=True))
    assert {**join_events(events), "id": ...} == {**plain.json, "id": ...}

    batch = call(simulator, "POST", "/v1/messages/batches", {"requests": [{"custom_id": "r-1", "params": params}]}).json
    simulator.end()
    (line,) = call(simulator, "GET", f"/v1/messages/batches/{batch['id']}/results").body.splitlines()
    strictly(MessageBatchIndividualResponse, line)
    message = json.loads(line)["result"]["message"]
    usage = {**plain.json["usage"], "service_tier": "batch"}
    assert {**message, "id": ...} == {**plain.json, "id": ..., "usage": usage}


def test_unknown_blocks_and_stop_reasons_are_sent_as_they_are(simulator: Simulator) -> None:
    simulator.answer_with(Answer(content=({"type": "new_block", "x": [1]},), stop_reason="brand_new"))
    params = request("", "tell me")["params"]
    message = call(simulator, "POST", "/v1/messages", params).json
    assert (message["content"], message["stop_reason"]) == ([{"type": "new_block", "x": [1]}], "brand_new")
    events = read_events(call(simulator, "POST", "/v1/messages", {**params, "stream": True}).body)
    assert join_events(events)["content"] == message["content"]
