"""The params with which a request is sent again, and the rows that are stored of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.records import Attempt, RepairOptions
from claude_batch_tasks.wire import repairs, result_rows, stored_rows
from claude_batch_tasks.wire.stored_rows import Origin, Sending, StoredRow

OPTIONS = RepairOptions(
    retries=2, refusal_models=["claude-3-haiku-20240307"], max_tokens_limit=10_000, continue_paused=5, reask=2
)
ORIGIN = Origin("msgbatch_1", Prices(), 1.8e9)
PARAMS = {
    "model": "claude-opus-4-5",
    "max_tokens": 6000,
    "messages": [{"role": "user", "content": "é"}],
    "temperature": 0.10000000000000000001,
    "thinking": {"type": "enabled", "budget_tokens": 5000},
}
PARAMS_JSON = json.dumps(PARAMS).replace("0.1,", "0.10000000000000000001,").encode()
TEXT = [{"type": "text", "text": "so far"}]


def sending(stop_reason: str, *kinds: str, content: Any = TEXT, failed: str | None = None, **more: Any) -> Sending:
    message = {"model": "m", "stop_reason": stop_reason, "content": content, **more.pop("message", {})}
    attempts = [{"kind": kind, "type": "succeeded"} for kind in kinds]
    if failed is not None:
        attempts[-1] = {"kind": kinds[-1], "type": failed}
    line = json.dumps(
        {"custom_id": "x", "result": {"type": "succeeded", "message": message}, "attempts": attempts, **more}
    ).encode()
    stored = StoredRow(result_rows.decode_row(line), line, len(kinds) - 1, ORIGIN)
    return Sending(stored, OPTIONS, lambda content, why: [{"role": "user", "content": f"{content} {why}"}])


def repaired(found: Sending) -> dict[str, Any]:
    body = repairs.repair_params(PARAMS_JSON, found, OPTIONS)
    assert body == repairs.repair_params(PARAMS_JSON, found, OPTIONS)
    assert b"0.10000000000000000001" in body  # what is not changed stays as it was written
    return json.loads(body)


def test_a_plain_resubmission_is_as_submitted() -> None:
    line = b'{"custom_id":"x","result":{"type":"expired"}}'
    found = Sending(StoredRow(result_rows.decode_row(line), line, 0, ORIGIN), OPTIONS)
    assert (found.kind, found.repair) == ("resubmission", "first")
    assert repairs.repair_params(PARAMS_JSON, found, OPTIONS) == PARAMS_JSON


def test_rounds_of_0_2_0_count_as_failed_attempts() -> None:
    line = b'{"custom_id":"x","result":{"type":"expired"}}'
    kinds = [
        Sending(StoredRow(result_rows.decode_row(line), line, round_, ORIGIN), OPTIONS).kind for round_ in range(4)
    ]
    assert kinds == ["resubmission", "resubmission", None, None]


def test_a_continued_answer_is_the_last_turn_in_its_container() -> None:
    found = repaired(sending("pause_turn", "first", message={"container": {"id": "container_1", "expires_at": "x"}}))
    assert found.pop("container") == "container_1"
    assert found.pop("messages") == [*PARAMS["messages"], {"role": "assistant", "content": TEXT}]
    assert found == {name: value for name, value in PARAMS.items() if name != "messages"}


def test_another_model_gets_what_it_takes() -> None:
    found = repaired(sending("refusal", "first"))
    assert (found["model"], found["max_tokens"]) == ("claude-3-haiku-20240307", 4096)
    assert found["thinking"] == {"type": "enabled", "budget_tokens": 4095}


@pytest.mark.parametrize(
    ("found", "kind", "max_tokens", "turns"),
    [
        (sending("max_tokens", "first"), "max_tokens", 10_000, 0),
        (sending("max_tokens", "first", "continue"), "max_tokens", 10_000, 0),  # it begins anew
        (sending("pause_turn", "first", "max_tokens"), "continue", 10_000, 1),
        (sending("max_tokens", "first", "max_tokens", failed="expired"), "resubmission", 10_000, 0),
        (sending("pause_turn", "first", "continue", failed="expired"), "resubmission", 6000, 1),
        (sending("end_turn", "first", invalid="a: b"), "reask", 6000, 1),
        (sending("end_turn", "first", "reask", failed="expired", invalid="a: b"), "resubmission", 6000, 1),
        (sending("pause_turn", "first", "reask", turns=[{"role": "user", "content": "?"}]), "continue", 6000, 2),
    ],
)
def test_what_is_sent_follows_from_the_row(found: Sending, kind: str, max_tokens: int, turns: int) -> None:
    assert found.kind == kind
    params = repaired(found)
    assert params["max_tokens"] == max_tokens
    assert len(params["messages"]) == 1 + turns


class TestARowThatCameBack:
    def add(self, found: Sending, result: dict[str, Any]) -> dict[str, Any]:
        line = json.dumps({"custom_id": "y", "result": result}).encode()
        return json.loads(found.add_row(result_rows.decode_row(line), line, Origin("msgbatch_2", Prices(), 1.8e9)))

    def test_of_a_failed_repair_leaves_the_answer(self) -> None:
        stored = self.add(sending("refusal", "first", content=[]), {"type": "expired"})
        assert stored["custom_id"] == "y"
        assert stored["result"]["message"]["stop_reason"] == "refusal"
        assert [(each["kind"], each["type"]) for each in stored["attempts"]] == [
            ("first", "succeeded"),
            ("refusal_model", "expired"),
        ]

    def test_that_cannot_be_read_leaves_the_answer_and_is_not_sent_again(self) -> None:
        found = sending("refusal", "first", content=[])
        line = b'{"custom_id":"y","result":{"type":"succeeded","message":{broken'
        row = result_rows.salvage_row(line)
        assert row is not None
        stored = found.add_row(row, line, Origin("msgbatch_2", Prices(), 1.8e9))
        now = StoredRow(result_rows.decode_row(stored), stored, 1, Origin("msgbatch_2", Prices()))
        assert now.row.incomplete == "refusal"
        assert [(each.type, each.error_type, each.cost) for each in now.attempts[1:]] == [
            ("errored", "unreadable_result", None)
        ]
        assert Sending(now, OPTIONS).kind is None

    def test_of_a_continued_answer_is_joined(self) -> None:
        usage = {"input_tokens": 3, "output_tokens": 4, "cache_creation": {"ephemeral_5m_input_tokens": 1}}
        usage |= {"iterations": [{"n": 1}], "service_tier": "batch", "server_tool_use": None}
        message = {"model": "n", "stop_reason": "end_turn", "content": TEXT, "usage": usage}
        found = sending("pause_turn", "first", message={"usage": usage, "id": "a"})
        joined = self.add(found, {"type": "succeeded", "message": message})["result"]["message"]
        assert joined["content"] == TEXT + TEXT
        assert (joined["stop_reason"], joined["model"], joined["id" if "id" in joined else "model"]) == (
            "end_turn",
            "n",
            "n",
        )
        assert joined["usage"] == {
            "input_tokens": 6,
            "output_tokens": 8,
            "cache_creation": {"ephemeral_5m_input_tokens": 2},
            "iterations": [{"n": 1}, {"n": 1}],
            "service_tier": "batch",
            "server_tool_use": None,
        }

    def test_keeps_the_turns_with_which_it_was_asked(self) -> None:
        message = {"model": "n", "stop_reason": "pause_turn", "content": TEXT}
        stored = self.add(sending("end_turn", "first", invalid="a: b"), {"type": "succeeded", "message": message})
        assert stored["turns"][0]["role"] == "user"
        assert "invalid" not in stored


def test_an_attempt_that_was_refused_before_any_output_costs_nothing() -> None:
    message = {"model": "claude-opus-4-5", "usage": {"input_tokens": 9, "output_tokens": 1}}

    def attempt(stop_reason: str, content: list[Any]) -> Attempt:
        result = {"type": "succeeded", "message": {**message, "stop_reason": stop_reason, "content": content}}
        return stored_rows.make_attempt(
            result_rows.decode_row(json.dumps({"custom_id": "x", "result": result}).encode()), "first", ORIGIN
        )

    assert attempt("refusal", []).cost == 0
    assert attempt("refusal", TEXT).cost == attempt("end_turn", TEXT).cost
    assert attempt("end_turn", TEXT).cost


def test_a_model_is_not_asked_again_for_what_it_refused() -> None:
    options = RepairOptions(refusal_models=["claude-haiku-4-5", "claude-opus-4-5"])
    message = {"model": "claude-haiku-4-5-20251001", "stop_reason": "refusal", "content": []}
    line = json.dumps({"custom_id": "x", "result": {"type": "succeeded", "message": message}}).encode()
    found = Sending(StoredRow(result_rows.decode_row(line), line, 0, ORIGIN), options)
    assert (found.kind, found.moved_to) == ("refusal_model", "claude-opus-4-5")
    stored = found.add_row(result_rows.decode_row(line), line, ORIGIN)
    again = Sending(StoredRow(result_rows.decode_row(stored), stored, 1, ORIGIN), options)
    assert again.kind is None
