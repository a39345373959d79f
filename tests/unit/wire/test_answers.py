"""Which answers are complete, and how they are counted."""

from __future__ import annotations

import json
from collections import Counter

import msgspec
import pytest

from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.wire import answers, result_rows
from claude_batch_tasks.wire.completeness import Completeness

TEXT = [{"type": "text", "text": "yes"}]
THOUGHT = {"type": "thinking", "thinking": 'he said "text": "x"', "signature": "s"}
BLANK = {"type": "text", "text": " \n\t "}
TOOL = {"type": "tool_use", "id": "t", "name": "n", "input": {}}

JUDGED = [
    ("end_turn", TEXT, None),
    (None, TEXT, None),
    ("end_turn", [THOUGHT, *TEXT], None),
    ("end_turn", [{"type": "text", "text": '"'}], None),
    ("end_turn", [{"type": "text", "text": " \\"}], None),
    ("end_turn", [{"type": "text", "text": "\u00a0"}], "empty"),
    ("end_turn", [TOOL], None),
    ("end_turn", [{"type": "a_new_block"}], None),
    ("end_turn", [], "empty"),
    ("end_turn", [BLANK], "empty"),
    ("end_turn", [THOUGHT], "empty"),
    ("end_turn", [THOUGHT, BLANK, {"type": "redacted_thinking", "data": "x"}], "empty"),
    (None, [], "empty"),
    ("stop_sequence", [], None),
    ("tool_use", [], None),
    ("refusal", TEXT, "refusal"),
    ("refusal", [], "refusal"),
    ("max_tokens", TEXT, "max_tokens"),
    ("pause_turn", TEXT, "pause_turn"),
    ("model_context_window_exceeded", TEXT, "model_context_window_exceeded"),
    ("compaction", [], None),
]


@pytest.mark.parametrize(("stop_reason", "content", "reason"), JUDGED)
@pytest.mark.parametrize("encode", [msgspec.json.encode, lambda value: json.dumps(value, indent=1).encode()])
def test_an_answer_is_judged_by_stop_reason_and_content(stop_reason, content, reason, encode) -> None:
    assert answers.judge_answer(stop_reason, encode(content)) == reason


def test_content_in_another_form_is_not_judged() -> None:
    assert answers.judge_answer("end_turn", b'"a text"') is None
    assert answers.judge_answer("end_turn", b"null") == "empty"
    assert answers.judge_answer("end_turn", b"") == "empty"


def line(number: int, message: dict, **more: object) -> bytes:
    result = {"type": "succeeded", "message": message}
    return json.dumps({"custom_id": f"cbt-n-{number}", "result": result, **more}).encode()


def message(stop_reason: object, content: object = TEXT, **usage: int) -> dict:
    usage = {"input_tokens": 10, "output_tokens": 5, **usage}
    return {"model": "claude-sonnet-4-5", "stop_reason": stop_reason, "content": content, "usage": usage}


class TestARow:
    def test_says_why_its_answer_is_not_complete(self) -> None:
        row = result_rows.decode_row(line(0, message("max_tokens")))
        assert (row.stop_reason, row.incomplete) == ("max_tokens", "max_tokens")
        assert json.loads(row.content) == TEXT

    def test_says_so_too_if_it_is_odd(self) -> None:
        odd = line(0, message("refusal"), more=2**70)
        assert result_rows.any_row(odd).incomplete == "refusal"
        odd = line(0, message("end_turn", [BLANK]), invalid="x").replace(b'"input_tokens": 10', b'"input_tokens": "10"')
        assert result_rows.any_row(odd).incomplete == "empty"

    def test_is_invalid_only_if_its_answer_is_complete(self) -> None:
        assert result_rows.decode_row(line(0, message("end_turn"), invalid="a: b")).incomplete == "invalid"
        assert result_rows.decode_row(line(0, message("max_tokens"), invalid="a: b")).incomplete == "max_tokens"

    def test_that_did_not_succeed_has_no_answer(self) -> None:
        row = result_rows.decode_row(b'{"custom_id":"cbt-n-0","result":{"type":"expired"}}')
        assert (row.stop_reason, row.incomplete, row.content) == (None, None, b"")


def count(*messages: dict) -> Completeness:
    seen = Completeness("n", 0, len(messages), prices=Prices())
    assert list(seen.keep_rows([b"\n".join(line(number, each) for number, each in enumerate(messages)) + b"\n"]))
    return seen


def test_incomplete_answers_are_counted_while_they_are_fetched() -> None:
    seen = count(*(message(stop, content) for stop, content, _ in JUDGED), message("x" * 999))
    expected = Counter(reason for _, _, reason in JUDGED if reason is not None)
    assert seen.tallies == {"succeeded": len(JUDGED) + 1}
    long_name = next(name for name in seen.judged.incomplete if name.startswith("xx"))
    assert len(long_name) < 100
    assert seen.judged.incomplete == expected | Counter({"compaction": 1, long_name: 1})


def test_invented_stop_reasons_do_not_fill_a_record() -> None:
    seen = count(*(message(f"reason {number}") for number in range(100)), message("refusal"))
    assert len(seen.judged.incomplete) == answers.MAX_TYPES + 2
    assert seen.judged.incomplete.total() == 101
    assert seen.judged.incomplete["refusal"] == 1


def test_a_refusal_without_output_costs_nothing() -> None:
    assert count(message("refusal", [])).meter.sum_costs() == {}
    assert count(message("refusal")).meter.sum_costs() == count(message("end_turn")).meter.sum_costs() != {}


def test_counts_are_added_up_without_zeros() -> None:
    assert answers.merge_reasons({"refusal": 2, "empty": 1}, {"refusal": 1, "empty": -1}) == {"refusal": 3}


@pytest.mark.parametrize(
    ("content", "expected"),
    [([], False), ([BLANK], False), ([THOUGHT], True), (TEXT, True), ([TOOL], True), ([{"type": "new"}], True)],
)
def test_blank_text_is_no_output(content, expected) -> None:
    assert answers.has_output(msgspec.json.encode(content)) is expected


@pytest.mark.parametrize("stop_reason", ["end_turn", "max_tokens"])
@pytest.mark.parametrize("foreign", [{"attempts": 3}, {"invalid": "x"}, {"turns": [1]}, {"attempts": [{"kind": 1}]}])
def test_members_that_only_we_write_are_not_taken_from_the_api(stop_reason: str, foreign: dict) -> None:
    seen = Completeness("n", 0, 1, prices=Prices())
    (stored,) = seen.keep_rows(
        [line(0, {"model": "m", "stop_reason": stop_reason, "content": TEXT}, **foreign) + b"\n"]
    )
    assert json.loads(stored).keys() == {"custom_id", "result"}
    assert seen.judged.incomplete == ({} if stop_reason == "end_turn" else {"max_tokens": 1})
