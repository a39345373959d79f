"""A result reads its row when its values are asked for, and is a value like any other all the same."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from claude_batch_tasks import RequestResult
from claude_batch_tasks.results import reader
from claude_batch_tasks.results.reader import as_result
from claude_batch_tasks.results.stored.outcomes import Outcome
from claude_batch_tasks.wire import result_rows

MESSAGE = {"content": [{"type": "text", "text": "Yes."}], "stop_reason": "max_tokens", "usage": {"output_tokens": 3}}
ROW = msgspec.json.encode({"custom_id": "cbt-n-0", "result": {"type": "succeeded", "message": MESSAGE}})
WHOLE = RequestResult(
    custom_id="a", type="succeeded", source="batch", message=MESSAGE, note="why", stop_reason="max_tokens",
    incomplete="max_tokens",
)  # fmt: skip


def unread(line: bytes = ROW) -> RequestResult:
    return as_result("a", Outcome(0, "batch", result_rows.any_row(line).type, line, "why"))  # type: ignore[arg-type]


#: Everything that may be the first that is done with a result.
FIRST: dict[str, Callable[[RequestResult], Any]] = {
    "repr": repr,
    "asdict": RequestResult.asdict,
    "as a dict": dict,
    "of dataclasses": dataclasses.asdict,
    "JSON": msgspec.json.encode,
    "MessagePack": msgspec.msgpack.encode,
    "builtins": msgspec.to_builtins,
    "pickle": lambda result: pickle.loads(pickle.dumps(result)),
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "replace": lambda result: dataclasses.replace(result, custom_id="b"),
    "text": lambda result: (result.text, result.usage, result.complete),
    **{field: lambda result, field=field: getattr(result, field) for field in dict(WHOLE)},
}


@pytest.mark.parametrize("name", FIRST)
def test_whatever_is_done_first_sees_all_values(name: str) -> None:
    assert FIRST[name](unread()) == FIRST[name](WHOLE)


def test_is_equal_before_it_is_read_and_cannot_be_changed() -> None:
    assert unread() == WHOLE
    assert unread() == WHOLE
    assert unread() != unread(ROW.replace(b"Yes", b"No!"))
    with pytest.raises(AttributeError):
        unread().message = None  # type: ignore[misc]
    with pytest.raises(AttributeError, match="massage"):
        unread().massage  # type: ignore[attr-defined]  # noqa: B018


def test_only_what_is_asked_for_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    result = unread()
    for name in ("parse_result", "_read_answer"):
        monkeypatch.setattr(reader, name, None)
    monkeypatch.setattr(reader.result_rows, "any_row", None)
    assert (result.custom_id, result.type, result.source) == ("a", "succeeded", "batch")
    with pytest.raises(TypeError):
        result.message  # noqa: B018


def test_a_value_is_read_once() -> None:
    result = unread()
    assert result.message is result.message
    assert result.attempts is result.attempts


def test_a_row_that_is_damaged_says_so_in_its_type_and_when_it_is_read() -> None:
    result = unread(ROW[:-20])
    assert (result.custom_id, result.type) == ("a", "succeeded")
    assert result.message is None
    assert "the result cannot be read" in (result.note or "")
    assert result.raw == ROW[:-20]


def test_what_0_2_0_pickled_is_read() -> None:
    """It was a struct there, whose pickles call its type with its values; so do these."""
    made = msgspec._utils.rebuild(RequestResult, dict(WHOLE))  # type: ignore[attr-defined]
    assert made == WHOLE
    assert b"claude_batch_tasks.results.reader" in pickle.dumps(WHOLE)  # where 0.2.0 has it
    call, arguments = WHOLE.__reduce__()
    assert call(*arguments) == WHOLE
