"""The Messages API of the unfriendly server, as Anthropic's own client reads it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any
from urllib.request import Request, urlopen

import anthropic
import pytest

from tests.adversarial import server as api
from tests.adversarial.server import Account, Manners, Streaming, UnfriendlyServer, where
from tests.factories import make_params

CITATION = {
    "type": "char_location",
    "cited_text": "é",
    "document_index": 0,
    "document_title": None,
    "start_char_index": 0,
    "end_char_index": 1,
    "file_id": None,
}
BLOCKS: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "hm, a long é thought", "signature": "sig=="},
    {"type": "redacted_thinking", "data": "xx"},
    {
        "type": "text",
        "text": "first \u2028 é 漢字 😀 and more",
        "citations": [CITATION, {**CITATION, "cited_text": "b"}],
    },
    {"type": "tool_use", "id": "tu", "name": "f", "input": {"a": [1, {"b": "é\n"}], "c": None}},
    {"type": "tool_use", "id": "tv", "name": "g", "input": {}},
    {"type": "text", "text": "", "citations": None},
]
USAGE = {
    "input_tokens": 3,
    "cache_creation_input_tokens": 30,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    "cache_read_input_tokens": 7,
    "output_tokens": 50,
    "service_tier": "standard",
}


@pytest.fixture(scope="module")
def server() -> Iterator[UnfriendlyServer]:
    with UnfriendlyServer() as server:
        yield server


@pytest.fixture
def account(server: UnfriendlyServer, request: pytest.FixtureRequest) -> Account:
    return server.account(request.node.name)


@pytest.fixture
def client(server: UnfriendlyServer, request: pytest.FixtureRequest) -> Iterator[anthropic.Anthropic]:
    headers = {"x-account": request.node.name}
    with anthropic.Anthropic(base_url=server.url, api_key="k", max_retries=0, default_headers=headers) as client:
        yield client


def params(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {**make_params(text, model="claude-y", max_tokens=64), **more}


def body(client: anthropic.Anthropic, **more: Any) -> bytes:
    return bytes(client.messages.with_raw_response.create(**params(stream=True, **more)).http_response.read())


@pytest.mark.parametrize(
    ("name", "manners", "streaming"),
    [
        ("plain", {}, {}),
        ("single_bytes", {"chunks": [1]}, {"eol": b"\r\n", "comments": True, "unknown": True, "piece": 1}),
        ("odd", {"chunks": [7, 1, 64]}, {"space": False, "pretty": True, "pings": 3, "deltas": 4}),
        ("gzip", {"chunks": [11], "coding": "gzip", "ascii": True}, {"piece": 1000}),
    ],
)
def test_a_stream_says_what_the_message_says(
    client: anthropic.Anthropic, account: Account, name: str, manners: dict[str, Any], streaming: dict[str, Any]
) -> None:
    account.manners = Manners(
        message={"content": BLOCKS, "stop_reason": "tool_use"},
        usage=lambda index, prompt, params: USAGE,
        streaming=Streaming(**streaming),
        **manners,
    )
    whole = client.messages.create(**params()).to_dict()
    with client.messages.stream(**params()) as stream:
        seen = [event.type for event in stream]
        streamed = stream.get_final_message().to_dict()
    assert seen[0] == "message_start"
    assert seen[-1] == "message_stop"
    for message in (whole, streamed):
        message.pop("id")
        message.pop("stop_details", None)
        for block in message["content"]:
            block.pop("caller", None)  # which 0.96 adds, in one of the two
    assert json.loads(json.dumps(streamed)) == json.loads(json.dumps(whole))
    assert whole["model"] == "claude-y"
    assert [call.stream for call in account.messages] == [False, True]
    assert account.paid["hello"] == 2
    assert account.in_flight == 0


def test_the_order_of_events(client: anthropic.Anthropic, account: Account) -> None:
    account.manners = Manners(streaming=Streaming(piece=100))
    names = [line[7:] for line in body(client).decode().split("\n") if line.startswith("event: ")]
    assert names == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_streams_end_as_they_are_told_to(client: anthropic.Anthropic, account: Account) -> None:
    ends = ["error first", "error", "cut", "reset", "early", "unstopped"]
    account.manners = Manners(streaming=Streaming(ends=ends))
    read = []
    for end in ends:
        try:
            read.append(body(client))
        except Exception as error:  # noqa: BLE001
            read.append(type(error).__name__.encode())
        assert account.messages[-1].end == end
    first, middle, cut, reset, early, unstopped = read
    assert first.startswith(b"event: error")
    assert b"message_start" in middle
    assert b"overloaded_error" in middle
    assert b"Error" in cut
    assert b"Error" in reset
    assert b"message_delta" not in early
    assert b"message_delta" in unstopped
    assert b"message_stop" not in unstopped
    assert account.paid["hello"] == 5
    assert account.sent["hello"] == 6
    assert b"message_stop" in body(client)


@pytest.mark.parametrize("window", [False, True])
def test_the_limit_of_requests(client: anthropic.Anthropic, account: Account, window: bool) -> None:
    account.manners = Manners(messages_limit=5, minute=2.0, window=window, reset="next")
    answer = client.messages.with_raw_response.create(**params())
    assert answer.headers["anthropic-ratelimit-requests-limit"] == "5"
    assert answer.headers["anthropic-ratelimit-requests-remaining"] == "4"
    assert (datetime.fromisoformat(answer.headers["anthropic-ratelimit-requests-reset"])) <= datetime.now(timezone.utc)
    for _ in range(4):
        client.messages.create(**params())
    with pytest.raises(anthropic.RateLimitError) as caught:
        client.messages.create(**params())
    headers = caught.value.response.headers
    assert headers["retry-after"] == ("2" if window else "1")
    assert headers["anthropic-ratelimit-requests-remaining"] == "0"
    wait = int(headers["retry-after-ms"]) / 1000
    assert 0 < wait <= (2 if window else 0.4)
    assert (account.accepted, account.refused, account.paid["hello"]) == (5, 1, 5)
    time.sleep(wait + 0.01)
    client.messages.create(**params())
    assert account.accepted_at[-1] - account.accepted_at[0] >= (2 if window else 0.4) - 0.01


def test_the_limit_of_input_tokens(client: anthropic.Anthropic, account: Account) -> None:
    account.manners = Manners(input_tokens_limit=100, burst_share=2, precise=False)
    answer = client.messages.with_raw_response.create(**params("x" * 160))
    assert answer.headers["anthropic-ratelimit-input-tokens-remaining"] == "9"
    assert "anthropic-ratelimit-requests-limit" not in answer.headers
    reset = datetime.fromisoformat(answer.headers["anthropic-ratelimit-input-tokens-reset"])
    assert 20 < (reset - datetime.now(timezone.utc)).total_seconds() <= 41 * 0.6
    with pytest.raises(anthropic.RateLimitError) as caught:
        client.messages.create(**params("x" * 60))
    assert caught.value.response.headers["retry-after"] == "5"  # 7 tokens at 0.6 s
    assert "retry-after-ms" not in caught.value.response.headers
    assert (account.accepted, account.refused, account.input_tokens) == (1, 1, 41)


def test_errors_by_call(client: anthropic.Anthropic, account: Account) -> None:
    planned = [api.NO_CREDIT, api.OWN_LIMIT, api.NO_KEY, api.NOT_PAID, api.FORBIDDEN, api.SPEND_LIMIT, api.OVERLOADED]
    account.manners = Manners(
        messages_limit=100, script={"messages": [None, *planned]}, call=where("bad", api.SPEND_LIMIT)
    )
    client.messages.create(**params())
    statuses = []
    for n in range(len(planned)):
        with pytest.raises(anthropic.APIStatusError) as caught:
            client.messages.create(**params(stream=bool(n % 2)))
        statuses.append(caught.value.status_code)
    assert statuses == [400, 400, 401, 402, 403, 429, 529]
    client.messages.create(**params())
    with pytest.raises(anthropic.RateLimitError) as caught_limit:
        client.messages.create(**params("a bad one"))
    error: Any = caught_limit.value.body
    assert error["error"]["details"]["error_code"] == "enforced_spend_limit_reached"
    assert "retry-after" not in caught_limit.value.response.headers
    assert caught_limit.value.response.headers["anthropic-ratelimit-requests-remaining"] == "98"
    assert (account.accepted, account.refused, sum(account.paid.values())) == (2, 0, 2)


def test_a_message_takes_its_time_and_its_params_are_kept(client: anthropic.Anthropic, account: Account) -> None:
    account.manners = Manners(message_seconds=0.3)
    gate = threading.Barrier(6)

    def call(n: int) -> None:
        gate.wait()
        client.messages.create(**params(f"n {n}", extra_body={"unheard_of": {"x": [1.5, None]}}))

    since = time.monotonic()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(call, range(6)))
    assert 0.3 <= time.monotonic() - since < 1.5
    assert 2 <= account.most_in_flight <= 6
    assert account.in_flight == 0
    assert {call.params["unheard_of"]["x"][0] for call in account.messages} == {1.5}
    assert account.messages[0].headers["anthropic-version"]


def test_usage_of_batch_results(
    client: anthropic.Anthropic, account: Account, server: UnfriendlyServer, request: pytest.FixtureRequest
) -> None:
    account.manners = Manners(
        looks=-1, usage=lambda index, prompt, params: {**USAGE, "input_tokens": index, "output_tokens": len(prompt)}
    )
    requests: Any = [{"custom_id": f"c{i}", "params": params("ab")} for i in range(3)]
    batch = client.messages.batches.create(requests=requests)
    headers = {"x-account": request.node.name, "x-api-key": "k"}
    url = f"{server.url}/v1/messages/batches/{batch.id}/results"
    lines = urlopen(Request(url, headers=headers)).read().splitlines()
    usages = [json.loads(line)["result"]["message"]["usage"] for line in lines]
    assert [(usage["input_tokens"], usage["output_tokens"]) for usage in usages] == [(0, 2), (1, 2), (2, 2)]


def test_a_body_that_is_none(client: anthropic.Anthropic, account: Account) -> None:
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(**{**params(), "messages": []})
    assert account.accepted == 0
    assert account.messages[0].params["model"] == "claude-y"
