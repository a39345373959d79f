"""Results as applications see them: most of their values are read when one of them is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from claude_batch_tasks.formatting import shorten_text
from claude_batch_tasks.outputs import OutputReader, dump_object
from claude_batch_tasks.records import Attempt, PublicValue
from claude_batch_tasks.results.stored.messages_outcomes import open_answers as open_answers
from claude_batch_tasks.results.stored.outcomes import (
    UNKNOWN,
    Order as Order,
    Outcome,
    Source,
    Type as Type,
    parse_result,
)
from claude_batch_tasks.wire import result_rows, stored_rows

#: What the values of a result are read from: its outcome, and what reads answers as the job's ``output``.
_Stored = tuple[Outcome, OutputReader | None]


class _ReadOnAccess:
    """Base of a result: most of its values are read when one of them is first asked for."""

    __slots__ = ("_stored",)
    _stored: _Stored


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestResult(_ReadOnAccess, PublicValue):
    """What became of one request."""

    custom_id: str
    """The id you gave it."""
    type: Type
    source: Source
    """Where the outcome comes from: the batch, a smaller one after it, or the Messages API."""
    message: dict[str, Any] | None = None
    """Anthropic's message, as its API spells it; only if it succeeded."""
    error: dict[str, Any] | None = None
    """``{"type", "message"}`` and, where known, ``"request_id"``; only if it errored."""
    note: str | None = None
    """Why it was not sent again, or not through every way, although it was eligible; and which of its values differ
    from what came, because Python cannot hold that."""
    raw: bytes | None = None
    """If some differ: the line as it came."""
    stop_reason: str | None = None
    """Why the model stopped, in Anthropic's words; only if it succeeded."""
    incomplete: str | None = None
    """Why the answer is not complete: ``refusal``, ``max_tokens``, ``pause_turn``, ``model_context_window_exceeded``,
    ``empty`` or ``invalid``; None: it is, or there is none, or its stop reason is not known."""
    attempts: tuple[Attempt, ...] = ()
    """Each time that the request was sent, in their order."""
    parsed: Any = None
    """The answer as an object of the job's ``output``, of a JSON schema as plain values; None: the job has no
    ``output``, or the answer is not complete or cannot be read as that."""
    parse_error: str | None = None
    """Why the answer cannot be read as the job's ``output``, or what its ``check`` says: ``path: reason``."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # A field without a value: the row was not read yet. Rows are not kept: each would keep its whole chunk.
            if (read := _READ_ON_ACCESS.get(name)) is None:
                raise AttributeError(name)
            for each, value in read(*self._stored).items():
                _SLOTS[each](self, value)
            return object.__getattribute__(self, name)

    def keys(self) -> tuple[str, ...]:
        """Return the names of the fields."""
        return _FIELDS

    def __reduce__(self) -> tuple[Any, ...]:
        # A call, as 0.2.0 has it, which reads this too.
        return partial(RequestResult, **dict(self)), ()

    @classmethod
    def _encode_value(cls, value: Any) -> Any:
        """Return what pydantic makes of its own models in ``parsed`` for JSON."""
        return dump_object(value)

    @property
    def complete(self) -> bool:
        """Whether it succeeded, and nothing of its answer is known to be missing."""
        return self.type == "succeeded" and self.incomplete is None

    @property
    def error_type(self) -> str | None:
        """The error's type, such as ``invalid_request_error``; None if it did not error, or the error has no type."""
        found = (self.error or {}).get("type")
        return found if isinstance(found, str) else None

    @property
    def error_message(self) -> str | None:
        """What the error says; None if it did not error, or the error says nothing."""
        found = (self.error or {}).get("message")
        return found if isinstance(found, str) else None

    @property
    def usage(self) -> dict[str, Any] | None:
        """The message's token counts."""
        return (self.message or {}).get("usage")

    @property
    def text(self) -> str:
        """The message's text blocks, joined; empty if there is no message."""
        blocks = (self.message or {}).get("content")
        texts = [
            block.get("text")
            for block in (blocks if isinstance(blocks, list) else ())
            if isinstance(block, dict) and block.get("type") == "text"
        ]
        return "".join(text for text in texts if isinstance(text, str))


_FIELDS = tuple(each.name for each in fields(RequestResult))

#: Sets a field of a result that is being made.
_SLOTS: dict[str, Callable[[RequestResult, Any], None]] = {
    name: getattr(RequestResult, name).__set__ for name in (*_FIELDS, "_stored")
}


def as_result(custom_id: str, outcome: Outcome, answers: OutputReader | None = None) -> RequestResult:
    """Return an outcome in the form that applications see.

    Args:
        answers: reads answers as the job's ``output``; default: they are not read.
    """
    result = object.__new__(RequestResult)
    _set_custom_id(result, custom_id)
    _set_type(result, outcome.type)
    _set_source(result, outcome.source)
    _set_stored(result, (outcome, answers))
    return result


_set_custom_id, _set_type, _set_source, _set_stored = (
    _SLOTS[name] for name in ("custom_id", "type", "source", "_stored")
)


def _read_result(outcome: Outcome, answers: OutputReader | None) -> dict[str, Any]:
    """Return what is under ``result`` of a row, and what of it differs."""
    values, odd = parse_result(outcome.line)
    message = values.get("message")
    return {
        "message": message if outcome.type == "succeeded" and isinstance(message, dict) else None,
        "error": _read_error(outcome.row, values, odd) if outcome.type == "errored" else None,
        "note": "; ".join(filter(None, (outcome.note, odd))) if odd else outcome.note,
        "raw": outcome.line if odd else None,
    }


def _judge_row(outcome: Outcome, answers: OutputReader | None) -> dict[str, Any]:
    """Return how an answer ended, and its object."""
    row = outcome.row
    parsed, parse_error = _read_answer(row, answers)
    return {
        "stop_reason": row.stop_reason if outcome.type == "succeeded" else None,
        "incomplete": row.incomplete,
        "parsed": parsed,
        "parse_error": parse_error,
    }


def _list_attempts(outcome: Outcome, answers: OutputReader | None) -> dict[str, Any]:
    """Return each time that a request was sent, as its row says it; none if it was not sent."""
    row, found = outcome.row, tuple[Attempt, ...]()
    if outcome.source == "messages" and not row.attempts:
        found = (stored_rows.make_attempt(row, "messages", outcome.origin),)
    elif outcome.origin is not UNKNOWN:
        found = tuple(stored_rows.StoredRow(row, outcome.line, outcome.round, outcome.origin).attempts)
    return {"attempts": found}


#: What reads a field, and those beside it, when it is first asked for. Which request's a result is, its type and its
#: source are known before.
_READ_ON_ACCESS: dict[str, Callable[[Outcome, OutputReader | None], dict[str, Any]]] = {
    **dict.fromkeys(("message", "error", "note", "raw"), _read_result),
    **dict.fromkeys(("stop_reason", "incomplete", "parsed", "parse_error"), _judge_row),
    "attempts": _list_attempts,
}


def _read_error(row: result_rows.Row, result: dict[str, Any], odd: str | None) -> dict[str, Any]:
    """Return the error of a result that errored.

    Args:
        odd: why the result is empty, or what of it differs from the row.
    """
    if not result:
        return {"type": row.error_type, "message": odd}
    if not row.known:
        name = shorten_text(str(result["type"]), result_rows.LONGEST_NAME)
        return {"type": row.error_type, "message": f"a result of type {name!r}", "result": result}
    error = result_rows.error_of(result)
    return {**error, "type": row.error_type} if error.get("type") is None and row.error_type is not None else error


def _read_answer(row: result_rows.Row, answers: OutputReader | None) -> tuple[Any, str | None]:
    """Return the object in an answer, or why there is none."""
    if row.type != "succeeded" or row.incomplete is not None or answers is None:
        return None, row.invalid
    return answers.parse(row.content)
