"""The answers have the fields that public recordings of the API have, no more and no fewer, with values of their kinds.

The shapes are written down here: a set of fields, the kinds of values, `...` for anything.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from claude_batch_tasks.simulator import Simulator

from .conftest import call, request, requests
from .test_shapes import BATCHES


class Text(str):
    """A string that matches a pattern."""

    __slots__ = ()


TIME = Text(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?(\+00:00|Z)")
BATCH = {
    "id": Text(r"msgbatch_01\w{22}"),
    "type": "message_batch",
    "processing_status": Text("in_progress|canceling|ended"),
    "request_counts": dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), int),
    "ended_at": None,
    "created_at": TIME,
    "expires_at": TIME,
    "archived_at": None,
    "cancel_initiated_at": None,
    "results_url": None,
}
ENDED = {**BATCH, "ended_at": TIME, "results_url": Text(r"http://.*/v1/messages/batches/msgbatch_01\w{22}/results")}
USAGE = {
    "input_tokens": int,
    "cache_creation_input_tokens": int,
    "cache_read_input_tokens": int,
    "cache_creation": {"ephemeral_5m_input_tokens": int, "ephemeral_1h_input_tokens": int},
    "output_tokens": int,
    "output_tokens_details": {"thinking_tokens": int},
    "server_tool_use": {"web_search_requests": int, "web_fetch_requests": int},
    "service_tier": "standard",
    "inference_geo": str,
}
MESSAGE = {
    "model": "claude-haiku-4-5-20251001",
    "id": Text(r"msg_\w{20,}"),
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": str}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "stop_details": None,
    "usage": USAGE,
}
ERROR = {
    "type": "error",
    "error": {"type": "not_found_error", "message": str},
    "request_id": Text(r"req_011C\w{20}"),
}
ROW = {
    "custom_id": str,
    "result": {"type": "succeeded", "message": {**MESSAGE, "usage": {**USAGE, "service_tier": "batch"}}},
}
ERRORED_ROW = {
    "custom_id": str,
    "result": {
        "type": "errored",
        "error": {
            "type": "error",
            "error": {
                "details": {"error_visibility": "user_facing"},
                "type": "invalid_request_error",
                "message": "bogus: Extra inputs are not permitted",
            },
            "request_id": None,
        },
    },
}
STREAM = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None, "usage": ...}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": str}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None, "stop_details": None},
        "usage": ...,
    },
    {"type": "message_stop"},
]
#: The counters that both the beginning and the end of a stream have.
COUNTERS = {"input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"}


def differs(value: Any, shape: Any, path: str = "") -> str:
    """The first place where a value is not of a shape; an empty text if it is."""
    if shape is ...:
        return ""
    fits: object
    if isinstance(shape, Text):
        fits = isinstance(value, str) and re.fullmatch(shape, value)
    elif isinstance(shape, type):
        fits = type(value) is shape
    elif isinstance(shape, dict):
        if not isinstance(value, dict) or value.keys() != shape.keys():
            return f"{path}: {sorted(value) if isinstance(value, dict) else value} is not {sorted(shape)}"
        return next(filter(None, (differs(value[name], shape[name], f"{path}.{name}") for name in shape)), "")
    elif isinstance(shape, list):
        if not isinstance(value, list) or len(value) != len(shape):
            return f"{path}: {value} is not {shape}"
        return next(
            filter(None, (differs(*pair, f"{path}.{n}") for n, pair in enumerate(zip(value, shape, strict=True)))), ""
        )
    else:
        fits = value == shape
    return "" if fits else f"{path}: {value!r} is not {shape!r}"


def test_batches(simulator: Simulator) -> None:
    created = call(simulator, "POST", BATCHES, {"requests": requests(1)}).json
    assert not differs(created, BATCH)
    simulator.end()
    ended = call(simulator, "GET", f"{BATCHES}/{created['id']}").json
    assert not differs(ended, ENDED)
    page = call(simulator, "GET", BATCHES).json
    assert not differs(page, {"data": [ENDED], "has_more": False, "first_id": created["id"], "last_id": created["id"]})


def test_results(simulator: Simulator) -> None:
    body = {"requests": [request("good"), request("bad", bogus=1)]}
    batch = call(simulator, "POST", BATCHES, body).json
    simulator.end()
    rows = map(json.loads, call(simulator, "GET", f"{BATCHES}/{batch['id']}/results").body.splitlines())
    by_id = {row["custom_id"]: row for row in rows}
    assert not differs(by_id["good"], ROW)
    assert not differs(by_id["bad"], ERRORED_ROW)


def test_a_message_and_its_stream(simulator: Simulator) -> None:
    params = request("")["params"]
    assert not differs(call(simulator, "POST", "/v1/messages", params).json, MESSAGE)
    body = call(simulator, "POST", "/v1/messages", {**params, "stream": True}).body.decode()
    events = [json.loads(line.removeprefix("data: ")) for line in body.splitlines() if line.startswith("data: ")]
    assert not differs(events, STREAM)
    for usage in (events[0]["message"]["usage"], events[-2]["usage"]):
        assert set(usage) >= COUNTERS


@pytest.mark.parametrize("path", [f"{BATCHES}/msgbatch_x", f"{BATCHES}/msgbatch_x/results", "/v1/models/gpt", "/v1/x"])
def test_errors(simulator: Simulator, path: str) -> None:
    assert not differs(call(simulator, "GET", path).json, ERROR)


def test_headers_of_rate_limits(simulator: Simulator) -> None:
    headers = call(simulator, "POST", "/v1/messages", request("")["params"]).headers
    for what in ("requests", "input-tokens", "output-tokens", "tokens"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", headers[f"anthropic-ratelimit-{what}-reset"])
