"""Every answer is what the SDK's own models call right, read strictly and without a field they do not know."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.messages import DeletedMessageBatch, MessageBatch, MessageBatchIndividualResponse
from pydantic import BaseModel, TypeAdapter

from claude_batch_tasks.simulator import Behaviour, Outcome, Simulator

from .conftest import Raw, call, request, requests

pytestmark = pytest.mark.latest

BATCHES = "/v1/messages/batches"


def strictly(model: type[BaseModel], body: bytes | str) -> Any:
    """Validate JSON strictly, unknown fields included."""
    value = model.model_validate_json(body, strict=True)
    no_extras(value)
    return value


def no_extras(value: object) -> None:
    if isinstance(value, BaseModel):
        # Recorded, and not in all classes of errors.
        assert set(value.model_extra or ()) <= {"details"}, (type(value), value.model_extra)
        for name in type(value).model_fields:
            no_extras(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            no_extras(item)


def create(simulator: Simulator, body: Any = None) -> MessageBatch:
    answer = call(simulator, "POST", BATCHES, body or {"requests": requests(3)})
    assert answer.status == 200, answer.body
    batch: MessageBatch = strictly(MessageBatch, answer.body)
    return batch


def lines(answer: Raw) -> list[MessageBatchIndividualResponse]:
    assert answer.status == 200
    return [strictly(MessageBatchIndividualResponse, line) for line in answer.body.splitlines()]


def test_a_batch_in_each_of_its_states(simulator: Simulator) -> None:
    batch = create(simulator)
    assert batch.id.startswith("msgbatch_01")
    assert batch.processing_status == "in_progress"
    assert (batch.expires_at - batch.created_at).total_seconds() == 86_400
    assert batch.request_counts.processing == 3
    assert batch.results_url is None
    assert batch.ended_at is batch.cancel_initiated_at is batch.archived_at is None

    canceling = strictly(MessageBatch, call(simulator, "POST", f"{BATCHES}/{batch.id}/cancel").body)
    assert canceling.processing_status == "canceling"
    assert canceling.cancel_initiated_at is not None
    assert canceling.request_counts.processing == 3

    simulator.end(batch.id)
    ended = strictly(MessageBatch, call(simulator, "GET", f"{BATCHES}/{batch.id}").body)
    assert ended.processing_status == "ended"
    assert ended.ended_at is not None
    assert ended.results_url == f"{simulator.url}{BATCHES}/{batch.id}/results"

    deleted = strictly(DeletedMessageBatch, call(simulator, "DELETE", f"{BATCHES}/{batch.id}").body)
    assert deleted.id == batch.id


def test_every_kind_of_result_line(simulator: Simulator) -> None:
    simulator.behave(
        outcomes=[
            {"type": "expired", "custom_id": "^r-0$"},
            {"type": "canceled", "custom_id": "^r-1$"},
            *({"type": "errored", "error": kind, "custom_id": f"^{kind}$"} for kind in ERRORS),
        ]
    )
    batch = create(simulator, {"requests": requests(3) + [request(kind) for kind in ERRORS]})
    simulator.end(batch.id)
    answer = call(simulator, "GET", f"{BATCHES}/{batch.id}/results")
    assert answer.headers["content-type"] == "application/x-jsonl"
    results = {line.custom_id: line.result for line in lines(answer)}
    assert {name: result.type for name, result in results.items() if name.startswith("r-")} == {
        "r-0": "expired",
        "r-1": "canceled",
        "r-2": "succeeded",
    }
    for kind in ERRORS:
        result = results[kind]
        assert result.type == "errored"
        assert result.error.error.type == kind
    succeeded = results["r-2"]
    assert succeeded.type == "succeeded"
    assert succeeded.message.usage.service_tier == "batch"
    assert succeeded.message.content[0].text == "Echo: prompt of r-2"  # type: ignore[union-attr]


ERRORS = (
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "rate_limit_error",
    "timeout_error",
    "api_error",
    "overloaded_error",
)


def test_a_list_page(simulator: Simulator) -> None:
    page = call(simulator, "GET", BATCHES).json
    assert page == {"data": [], "has_more": False, "first_id": None, "last_id": None}
    ids = [create(simulator).id for _ in range(3)]
    page = call(simulator, "GET", f"{BATCHES}?limit=2&beta=true").json
    assert page["has_more"] is True
    assert (page["first_id"], page["last_id"]) == (ids[2], ids[1])
    for batch in page["data"]:
        strictly(MessageBatch, json.dumps(batch))


def test_a_message(simulator: Simulator) -> None:
    answer = call(simulator, "POST", "/v1/messages", request("")["params"])
    message = strictly(Message, answer.body)
    assert message.usage.service_tier == "standard"
    for header in ("requests-limit", "requests-remaining", "requests-reset", "tokens-limit"):
        assert f"anthropic-ratelimit-{header}" in answer.headers


def test_a_streamed_message(simulator: Simulator) -> None:
    answer = call(simulator, "POST", "/v1/messages", request("", "x" * 100, stream=True)["params"])
    assert answer.headers["content-type"].startswith("text/event-stream")
    adapter: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    kinds = []
    for event in answer.body.decode().strip().split("\n\n"):
        name, data = event.split("\n")
        kind = name.removeprefix("event: ")
        assert json.loads(data.removeprefix("data: "))["type"] == kind
        kinds.append(kind)
        if kind != "ping":
            no_extras(adapter.validate_json(data.removeprefix("data: "), strict=True))
    assert kinds[:3] == ["message_start", "content_block_start", "ping"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert kinds.count("content_block_delta") == 3


def test_the_sdk_reads_the_stream(simulator: Simulator, client: anthropic.Anthropic) -> None:
    with client.messages.stream(**request("", "tell me")["params"]) as stream:
        assert stream.get_final_message().content[0].text == "Echo: tell me"  # type: ignore[union-attr]


def test_every_answer_carries_its_headers(simulator: Simulator) -> None:
    for path in (BATCHES, f"{BATCHES}/msgbatch_unknown"):
        headers = call(simulator, "GET", path).headers
        assert headers["request-id"].startswith("req_01")
        assert len(headers["anthropic-organization-id"]) == 36


@pytest.mark.parametrize("headers", [{"x-api-key": "key-a"}, {"authorization": "Bearer key-a"}])
def test_both_ways_to_show_a_key(simulator: Simulator, headers: dict[str, str]) -> None:
    headers = {**headers, "anthropic-version": "2026-10-21"}
    assert call(simulator, "GET", BATCHES, headers=headers).status == 200


def test_a_call_without_key_or_version_is_refused(simulator: Simulator) -> None:
    version = {"anthropic-version": "2023-06-01"}
    assert call(simulator, "GET", BATCHES, headers=version).error[:2] == (401, "authentication_error")
    error = call(simulator, "GET", BATCHES, headers={"x-api-key": "k"}).error
    assert error == (400, "invalid_request_error", "anthropic-version: header is required")


def test_unknown_paths_and_ids_answer_404(simulator: Simulator) -> None:
    for path in (f"{BATCHES}/msgbatch_x", f"{BATCHES}/msgbatch_x/results", "/v1/nothing"):
        assert call(simulator, "GET", path).error[:2] == (404, "not_found_error")


def test_unfriendly_results_say_the_same(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.reset("unfriendly")
    texts = {f"r-{n}": f"line\u2028para\u2029next\u0085 {n} 😀" for n in range(5)}
    batch = client.messages.batches.create(requests=[request(*item) for item in texts.items()])
    simulator.end()
    headers = {"x-api-key": "key-a", "anthropic-version": "2023-06-01"}
    body = call(simulator, "GET", f"{BATCHES}/{batch.id}/results", headers=headers).body
    assert body.count(b"\r\n\r\n") == 4
    assert not body.endswith(b"\n")
    rows = [json.loads(line) for line in body.split(b"\r\n\r\n")]
    answers = {row["custom_id"]: row["result"]["message"]["content"][1]["text"] for row in rows}
    assert answers == {custom_id: f"Echo: {text}" for custom_id, text in texts.items()}
    packed = call(simulator, "GET", f"{BATCHES}/{batch.id}/results", headers={**headers, "accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.body[:2] == b"\x1f\x8b"


def test_duplicate_and_foreign_lines_on_demand(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(results={"duplicates": 1, "foreign": 2, "url": "http://elsewhere.invalid/{id}"})
    batch = client.messages.batches.create(requests=requests(3))
    simulator.end()
    shown = client.messages.batches.retrieve(batch.id)
    assert shown.results_url == f"http://elsewhere.invalid/{batch.id}"
    ids = [line.custom_id for line in lines(call(simulator, "GET", f"{BATCHES}/{batch.id}/results"))]
    assert sorted(ids) == ["foreign-1", "foreign-2", "r-0", "r-0", "r-1", "r-2"]


def test_answers_can_be_made_long(simulator: Simulator) -> None:
    simulator.behave(answer_chars=2000, echo_chars=4)
    for max_tokens, length, reason in ((500, 2000, "end_turn"), (100, 400, "max_tokens")):
        params = request("", "abcdefgh", max_tokens=max_tokens)["params"]
        message = strictly(Message, call(simulator, "POST", "/v1/messages", params).body)
        text = message.content[0].text
        assert (text[:11], len(text)) == ("Echo: abcd.", length)
        assert (message.stop_reason, message.usage.output_tokens) == (reason, max_tokens)


def test_scripts_survive_json() -> None:
    import msgspec

    from claude_batch_tasks.simulator import SCENARIOS, Scenario

    for scenario in SCENARIOS.values():
        assert msgspec.json.decode(msgspec.json.encode(scenario), type=Scenario) == scenario
    assert Behaviour(outcomes=(Outcome("expired"),)) == Behaviour(outcomes=(Outcome("expired"),))
