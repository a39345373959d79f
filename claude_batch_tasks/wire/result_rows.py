"""The rows of a batch's result file: splitting the bytes into lines, and decoding as little of them as needed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal

import msgspec

from claude_batch_tasks import rules
from claude_batch_tasks.formatting import shorten_text
from claude_batch_tasks.pricing.spending import Meter
from claude_batch_tasks.records import IncompleteReason
from claude_batch_tasks.wire import answers, lenient_json
from claude_batch_tasks.wire.token_usage import USAGE, Usage, read_usage

OutcomeType = Literal["succeeded", "errored", "expired", "canceled"]

#: The outcomes of a request, under Anthropic's names.
OUTCOMES: tuple[OutcomeType, ...] = (
    "succeeded",
    "errored",
    "expired",
    "canceled",
)

#: The ``error.type`` that we give to a result that is not JSON, so that not even its type is known.
UNREADABLE = "unreadable_result"

#: That of a result whose type this version does not know.
UNKNOWN_TYPE = "unknown_result_type"

#: That of a request of which the store has lost whether the Messages API answered it.
ANSWER_LOST = "answer_lost"

#: Those of requests that may have been answered, and so may have been billed.
MAY_BE_BILLED = frozenset({UNREADABLE, UNKNOWN_TYPE, ANSWER_LOST})

#: The most characters of a model's name or an error's type, and of an error's message, in records and logs.
LONGEST_NAME, LONGEST_MESSAGE = 200, 500


def count_answers(meter: Meter, messages: Iterable[_Message | None]) -> None:
    """Add the usage of answers to a meter."""
    by_model: dict[str | None, list[Usage | None]] = {}
    for answer in messages:
        if answer is not None and answer.is_free:
            continue
        model, usage = (answer.model or None, answer.usage) if answer is not None else (None, None)
        by_model.setdefault(model, []).append(usage)
    for model, usages in by_model.items():
        if model is None:
            meter.add_answers(None, usages)
        else:
            _count_usages(meter, shorten_text(model, LONGEST_NAME), usages)


def _count_usages(meter: Meter, model: str, usages: list[Usage | None]) -> None:
    odd = [usage for usage in usages if usage is not None and not usage.is_plain]
    meter.add_answers(model, [usage for usage in usages if usage is None or usage.is_plain] if odd else usages)
    for usage in odd:
        for charge in usage.list_charges(model, meter.context_window(model)):
            meter.add_charge(charge)


_NOTHING = msgspec.Raw()


class _Message(msgspec.Struct, gc=False):
    usage: Usage | None = None
    model: str | None = None
    stop_reason: str | None = None
    content: msgspec.Raw = _NOTHING

    @property
    def is_free(self) -> bool:
        """Whether it is a refusal before any output, which is not billed."""
        return self.stop_reason == "refusal" and not answers.has_output(self.content)


class _Error(msgspec.Struct, gc=False):
    type: str | None = None
    message: str | None = None


class _ErrorResponse(msgspec.Struct, gc=False):
    error: _Error | None = None
    type: str | None = None


class _Result(msgspec.Struct, gc=False):
    type: str
    message: _Message | None = None
    error: _ErrorResponse | None = None


class Row(msgspec.Struct, gc=False):
    """One line of a result file, decoded only as far as its fields are used."""

    custom_id: str
    result: _Result
    invalid: str | None = None
    """What of the answer does not fit the job's ``output``; this and the following we write beside the result."""
    attempts: msgspec.Raw = _NOTHING
    """Every time that the request was sent, as JSON; empty: it is not in a smaller batch of this release."""
    turns: msgspec.Raw = _NOTHING
    """The turns, as JSON, with which the model was asked again for this answer."""

    @property
    def has_own_members(self) -> bool:
        """Whether it has members that only we write: a line that comes from the API must have none."""
        return self.invalid is not None or bool(self.attempts) or bool(self.turns)

    @property
    def stop_reason(self) -> str | None:
        """The stop reason of its message."""
        return self.result.message.stop_reason if self.result.message is not None else None

    @property
    def content(self) -> bytes:
        """The blocks of its message, as JSON; empty if it has none."""
        return bytes(self.result.message.content) if self.result.message is not None else b""

    @property
    def incomplete(self) -> IncompleteReason | None:
        """Why its answer is not complete; None: it is, or there is none."""
        message = self.result.message
        if self.result.type != "succeeded" or message is None:
            return None
        found = answers.judge_answer(message.stop_reason, message.content)
        return found if found is not None or self.invalid is None else "invalid"

    @property
    def counted_reason(self) -> str | None:
        """Why its answer is not complete, or the name of its stop reason if that is not known; None: neither."""
        return self.incomplete or answers.find_unknown(self.stop_reason)

    @property
    def paid_messages(self) -> list[_Message | None]:
        """The message that is paid for, as ``count_answers`` takes it; empty: it did not succeed."""
        return [self.result.message] if self.result.type == "succeeded" else []

    @property
    def known(self) -> bool:
        """Whether this version knows its type."""
        return self.result.type in OUTCOMES

    @property
    def type(self) -> str:
        """One of OUTCOMES; ``errored_row`` for a type that this version does not know."""
        return found if (found := self.result.type) in OUTCOMES else "errored"

    @property
    def error_type(self) -> str | None:
        """Anthropic's ``error.type``, if the request errored."""
        if not self.known:
            return UNKNOWN_TYPE
        error = self.result.error
        if self.result.type != "errored" or error is None:
            return None
        found = (error.error.type if error.error else None) or error.type
        return None if found == "error" else found  # that is the type of the envelope

    @property
    def unreadable(self) -> bool:
        """Whether the row was salvaged from a line that is not JSON."""
        error = self.result.error
        return error is not None and error.error is not None and error.error.type == UNREADABLE

    @property
    def error_message(self) -> str | None:
        """Anthropic's ``error.message``, if the request errored and has one."""
        error = self.result.error
        return error.error.message if error is not None and error.error is not None else None

    @property
    def usage(self) -> dict[str, int]:
        """Those counters of USAGE that the row has."""
        usage = self.result.message.usage if self.result.message else None
        return {name: count for name in USAGE if (count := getattr(usage, name, None)) is not None}


_decoder = msgspec.json.Decoder(Row)


def find_odd(rows: Sequence[Row]) -> list[int]:
    """Return which rows are judged in full: all but answers that ended by themselves, and say something."""
    return [
        at
        for at, row in enumerate(rows)
        if row.result.type != "succeeded"
        or (message := row.result.message) is None
        or message.stop_reason != "end_turn"
        or row.has_own_members
        or not answers.begins_with_text(message.content)
    ]


class EndlessLine(ValueError):
    """A line is longer than any line of a result file may be."""


def read_blocks(chunks: Iterable[bytes], least: int = 1, longest: int = rules.ANSWER_BYTES) -> Iterator[bytes]:
    """Yield a byte stream in blocks of whole lines, each as soon as at least ``least`` bytes have come.

    Raises:
        EndlessLine: a line has more than ``longest`` bytes; the lines before it were yielded.
    """
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size >= least and (end := chunk.rfind(b"\n") + 1):
            held[-1] = chunk[:end]
            yield b"".join(held)
            held = [chunk[end:]]
            size = len(held[0])
        elif size > longest + least:
            before, _, _ = b"".join(held).rpartition(b"\n")
            if before:
                yield before
            raise EndlessLine(f"a line of a result file has more than {longest:,} bytes")
    if size:
        yield b"".join(held)


def read_rows(block: bytes, *, skip_others: bool = False) -> Iterator[tuple[Row, bytes]]:
    """Yield the lines of a block, each decoded and as it is.

    Args:
        skip_others: leave out lines that are not results.

    Raises:
        ValueError: a line is not a result line; the lines before it were yielded.
    """
    raw = block.rstrip(b"\n").split(b"\n")
    decoded = decode_rows(block, raw)
    if decoded is not None:
        yield from zip(decoded, raw, strict=True)
        return
    for line in not_blank(raw):
        try:
            found = any_row(line)
        except ValueError:
            if not skip_others:
                raise
        else:
            yield found, line


def not_blank(lines: list[bytes]) -> list[bytes]:
    return [line for line in lines if line.strip()]


def decode_rows(block: bytes, raw: list[bytes]) -> list[Row] | None:
    """Decode all lines of a block at once; return None if one is blank or broken, so that each is decoded by itself."""
    try:
        decoded = _decoder.decode_lines(block)
    except lenient_json.REFUSED:
        return None
    if len(decoded) != len(raw):
        return None
    # The decoder looks for values, not for lines: two values in one line would make up for one that is broken over two.
    if not all(row.custom_id.encode() in line for row, line in zip(decoded, raw, strict=True)):
        return None
    return decoded


def read_line(line: bytes) -> tuple[dict[str, Any], str | None]:
    """Return a line as plain Python values, and a note about values that differ from what the line says.

    Raises:
        ValueError: the line is not a JSON object.
    """
    value, note = lenient_json.read_json(line)
    if not isinstance(value, dict):
        raise ValueError("a result line is not a JSON object")
    return value, note


def decode_row(line: bytes) -> Row:
    """Decode one line.

    Raises:
        ValueError: the line is not a result line.
    """
    with suppress(*lenient_json.REFUSED):
        return _decoder.decode(line)
    value, _ = read_line(line)
    custom_id, result = value.get("custom_id"), value.get("result")
    if not isinstance(custom_id, str) or not isinstance(result, dict) or not result.get("type"):
        raise ValueError("a result line lacks custom_id or result.type")
    if "\ufffd" in custom_id:
        raise ValueError("the custom_id of a result line is not UTF-8")
    message = result.get("message")
    message = message if isinstance(message, dict) else {}
    usage, model = read_usage(message.get("usage")), message.get("model")
    kind, said = (error_of(result).get(name) for name in ("type", "message"))
    error = _ErrorResponse(_Error(*(text if isinstance(text, str) else None for text in (kind, said))))
    model = model if isinstance(model, str) else None
    stop, invalid = message.get("stop_reason"), value.get("invalid")
    content, *ours = (
        msgspec.Raw(lenient_json.encode_json(found)) if found is not None else _NOTHING
        for found in (message.get("content"), value.get("attempts"), value.get("turns"))
    )
    answer = _Message(usage, model, stop if isinstance(stop, str) else None, content)
    return Row(
        custom_id,
        _Result(str(result["type"]), answer, error),
        invalid if isinstance(invalid, str) else None,
        *ours,
    )


def any_row(line: bytes) -> Row:
    """Decode one line, or its beginning if the rest cannot be read.

    Raises:
        ValueError: the line is not a result line, and not even the beginning of one.
    """
    try:
        return decode_row(line)
    except ValueError:
        if (found := salvage_row(line)) is not None:
            return found
        raise


_CUSTOM_ID = re.compile(rb'\s*\{\s*"custom_id"\s*:\s*"([^"\\]*)"')
_TYPE = re.compile(rb'"result"\s*:\s*\{\s*"type"\s*:\s*"(%s)"' % "|".join(OUTCOMES).encode())


def salvage_row(line: bytes) -> Row | None:
    """Decode the beginning of a broken result line: whose result it is, and its type; None: that is unknown."""
    begins, kind = _CUSTOM_ID.match(line), _TYPE.search(line)
    if begins is None:
        return None
    custom_id = begins[1].decode(errors="replace")
    if "\ufffd" in custom_id:
        return None
    error = _ErrorResponse(_Error(UNREADABLE))
    return Row(custom_id, _Result(kind[1].decode() if kind else "errored", None, error))


class _Line(msgspec.Struct):
    result: msgspec.Raw


class _Succeeded(msgspec.Struct):
    message: msgspec.Raw


_MEMBERS: dict[str, msgspec.json.Decoder[Any]] = {
    "result": msgspec.json.Decoder(_Line),
    "message": msgspec.json.Decoder(_Succeeded),
}


def read_member(data: bytes, name: Literal["result", "message"]) -> tuple[bytes, str | None]:
    """Return a member of an object as strict JSON in one line, with a note if it had to be changed."""
    with suppress(*lenient_json.REFUSED):
        found = bytes(getattr(_MEMBERS[name].decode(data), name))
        found.decode()
        # In JSON these characters stand only between values.
        return found.replace(b"\n", b" ").replace(b"\r", b" "), None
    return lenient_json.strict_member(data, name)


def error_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return the inner ``{"type", "message"}`` of a result's (or an error answer's) ``error``, with its request id."""
    outer = result.get("error")
    if not isinstance(outer, dict) or not outer:
        return {"type": None, "message": str(outer or "the result does not say why")}
    inner = outer["error"] if isinstance(outer.get("error"), dict) else outer
    request_id = outer.get("request_id") or result.get("request_id")
    return {**inner, "request_id": request_id} if request_id else dict(inner)


def errored_row(error_type: str, message: str, request_id: str | None) -> dict[str, Any]:
    """Return a result that errored, in the form of Anthropic's result file."""
    error = {"type": "error", "error": {"type": error_type, "message": message}, "request_id": request_id}
    return {"type": "errored", "error": error}
