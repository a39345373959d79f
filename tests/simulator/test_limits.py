"""What Anthropic refuses at once, and what it says about single requests later."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from claude_batch_tasks.simulator import Simulator

from .conftest import call, request, requests

pytestmark = pytest.mark.latest

BATCHES = "/v1/messages/batches"
PARAMS = request("x")["params"]


def refusal(simulator: Simulator, body: Any) -> tuple[int, str, str]:
    error = call(simulator, "POST", BATCHES, body).error
    assert simulator.state().totals.batches_created == 0
    return error


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"custom_id": "x" * 65, "params": PARAMS}, "requests.0.custom_id: String should have at most 64 characters"),
        ({"custom_id": "", "params": PARAMS}, "requests.0.custom_id: String should have at least 1 character"),
        (
            {"custom_id": "a b", "params": PARAMS},
            "requests.0.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
        ),
        ({"custom_id": "a\n", "params": PARAMS}, "requests.0.custom_id: String should match pattern"),
        ({"custom_id": 1, "params": PARAMS}, "requests.0.custom_id: Input should be a valid string"),
        ({"params": PARAMS}, "requests.0.custom_id: Field required"),
        ({"custom_id": "a"}, "requests.0.params: Field required"),
        ({"custom_id": "a", "params": []}, "requests.0.params: Input should be a valid dictionary"),
    ],
)
def test_malformed_requests_are_refused_at_once(simulator: Simulator, item: Any, message: str) -> None:
    status, kind, text = refusal(simulator, {"requests": [item]})
    assert (status, kind) == (400, "invalid_request_error")
    assert text.startswith(message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "requests: Field required"),
        ({"requests": []}, "requests: List should have at least 1 item after validation, not 0"),
        ({"requests": "x"}, "requests: "),
        (b"{", "The request body is not valid JSON."),
        (b'{"requests": [{"custom_id": "\xff", "params": {}}]}', "The request body is not valid JSON."),
        ({"requests": [request("a"), request("a")]}, "requests.1.custom_id: Duplicate custom_id 'a'"),
    ],
)
def test_malformed_bodies_are_refused_at_once(simulator: Simulator, body: Any, message: str) -> None:
    status, kind, text = refusal(simulator, body)
    assert (status, kind) == (400, "invalid_request_error")
    assert text.startswith(message)


def test_100_000_requests_are_allowed_and_not_one_more(simulator: Simulator) -> None:
    body = b'{"requests":[%s]}'
    item = b'{"custom_id":"%d","params":{}}'
    items = [item % n for n in range(100_001)]
    assert refusal(simulator, body % b",".join(items))[0] == 400
    assert call(simulator, "POST", BATCHES, body % b",".join(items[1:])).status == 200


def test_256_mb_are_allowed_and_not_one_byte_more(simulator: Simulator) -> None:
    assert simulator.state().behaviour.max_bytes == 256_000_000
    # The same with smaller numbers, for speed.
    simulator.behave(max_bytes=3_000_000, max_message_bytes=1000)
    body = b'{"requests":[{"custom_id":"a","params":{}}]}'
    status, kind, _ = refusal(simulator, body.ljust(3_000_001))
    assert (status, kind) == (413, "request_too_large")
    assert call(simulator, "POST", BATCHES, body.ljust(3_000_000)).status == 200
    assert call(simulator, "POST", "/v1/messages", b"{}".ljust(1001)).error[0] == 413


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"model": None}, "invalid_request_error", "model: "),
        ({"model": "gpt"}, "not_found_error", "model: gpt"),
        ({"max_tokens": 0}, "invalid_request_error", "max_tokens: "),
        ({"max_tokens": "9"}, "invalid_request_error", "max_tokens: "),
        ({"messages": []}, "invalid_request_error", "messages: at least one message is required"),
        (
            {"messages": [{"role": "robot", "content": "x"}]},
            "invalid_request_error",
            'messages: Unexpected role "robot".',
        ),
        ({"messages": [{"role": "user", "content": ""}]}, "invalid_request_error", "messages.0: "),
        ({"messages": ["x"]}, "invalid_request_error", "messages.0: Input should be an object"),
        ({"max_tokens": 64_001}, "invalid_request_error", "max_tokens: 64001 > 64000, which is the maximum"),
        ({"model": "claude-of-nobody"}, "not_found_error", "model: claude-of-nobody"),
        ({"stream": True}, "invalid_request_error", "stream: "),
    ],
)
def test_invalid_params_become_errored_lines(
    simulator: Simulator, client: anthropic.Anthropic, change: Any, kind: str, message: str
) -> None:
    batch = client.messages.batches.create(requests=[request("good"), request("bad", **change)])
    assert batch.request_counts.errored == 0
    simulator.end()
    results = {r.custom_id: r.result for r in client.messages.batches.results(batch.id)}
    assert results["good"].type == "succeeded"
    bad = results["bad"]
    assert bad.type == "errored"
    assert bad.error.error.type == kind
    assert bad.error.error.message.startswith(message)
    totals = simulator.journal().totals
    assert (totals.paid_batch, totals.requests_sent) == (1, 2)


def test_invalid_params_are_refused_at_once_by_the_messages_api(simulator: Simulator) -> None:
    for change, status in (({"model": "gpt"}, 404), ({"messages": []}, 400), ({"max_tokens": "x"}, 400)):
        assert call(simulator, "POST", "/v1/messages", {**PARAMS, **change}).error[0] == status
    assert call(simulator, "POST", "/v1/messages", b"[]").error[0] == 400
    assert simulator.journal().totals.paid_messages == 0


def test_sampling_parameters_depend_on_the_api_version(simulator: Simulator) -> None:
    for version, status in (("2023-06-01", 200), ("2026-10-21", 400)):
        headers = {"x-api-key": "k", "anthropic-version": version}
        answer = call(simulator, "POST", "/v1/messages", {**PARAMS, "temperature": 0.5}, headers)
        assert answer.status == status


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "after_id=nope", "after_id=a&before_id=b"])
def test_list_parameters_are_checked(simulator: Simulator, query: str) -> None:
    assert call(simulator, "GET", f"{BATCHES}?{query}").error[:2] == (400, "invalid_request_error")


def test_the_default_page_has_20_batches(simulator: Simulator, client: anthropic.Anthropic) -> None:
    for _ in range(21):
        client.messages.batches.create(requests=requests(1))
    assert len(client.messages.batches.list().data) == 20
    assert len(client.messages.batches.list(limit=1000).data) == 21


def test_the_rate_limit_of_messages(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(messages_per_minute=2)
    for n in range(2):
        client.messages.create(**request("", f"{n}")["params"])
    with pytest.raises(anthropic.RateLimitError) as refused:
        client.messages.create(**PARAMS)
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 30
    assert refused.value.response.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert simulator.journal().totals.paid_messages == 2
