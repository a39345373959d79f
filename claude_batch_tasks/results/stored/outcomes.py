"""Outcomes of requests as they are stored, and as lines of strict JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

import msgspec

from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.wire import lenient_json, result_rows, stored_rows
from claude_batch_tasks.wire.stored_rows import Origin

Type = result_rows.OutcomeType
Source = Literal["batch", "resubmitted", "messages"]
Order = Literal["stored", "request"]

#: Stands for the origin of an outcome of which nothing is known.
UNKNOWN = Origin(None, Prices())


class Outcome(msgspec.Struct, gc=False):
    """The stored outcome of one request. Its line is decoded when more is asked for than its type."""

    place: int
    """The request's position in its batch."""
    source: Source
    type: Type
    line: bytes
    """A line as in Anthropic's result files; only the part under ``result`` counts."""
    note: str | None = None
    """Why it was not sent again."""
    round: int = 0
    origin: Origin = UNKNOWN
    """The round, and the batch, that its row comes from."""
    known_id: str | None = None
    """The custom_id in its line, if it was read already."""
    decoded: result_rows.Row | None = None
    """What its line says, if that was asked for already."""

    @property
    def row(self) -> result_rows.Row:
        """What its line says."""
        if self.decoded is None:
            self.decoded = result_rows.any_row(self.line)
        return self.decoded

    @property
    def own_id(self) -> str:
        """The custom_id in its line: a wire id, except in an adopted job."""
        return self.row.custom_id if self.known_id is None else self.known_id


def make_outcome(
    place: int, source: Source, row: result_rows.Row, line: bytes, *, round_: int = 0, origin: Origin = UNKNOWN
) -> Outcome:
    """Return the outcome that is in a line of which the row is known.

    The row is not part of it: a row may refer to the whole chunk that it was decoded from.
    """
    return Outcome(place, source, cast("Type", row.type), line, None, round_, origin, row.custom_id)


def count_attempts(outcome: Outcome) -> int:
    """Return the number of attempts that the result of an outcome has."""
    if outcome.origin is UNKNOWN and not (outcome.source == "messages" and not outcome.row.attempts):
        return 0
    return stored_rows.StoredRow(outcome.row, outcome.line, outcome.round, outcome.origin).count_attempts()


def parse_result(line: bytes) -> tuple[dict[str, Any], str | None]:
    """Return the object under ``result``, and what of it differs from the line; empty if the line is not JSON."""
    try:
        values, odd = lenient_json.read_json(line)
        result: dict[str, Any] = values["result"]
        if result["type"]:
            return result, odd
        reason = "it has no type"
    except (LookupError, TypeError):
        reason = "it has no type"
    except ValueError as exc:
        reason = str(exc)
    return {}, f"the result cannot be read: {reason}"


def as_line(custom_id: str, outcome: Outcome) -> bytes:
    """Return an outcome as a line of strict JSON: Anthropic's own, under the caller's custom_id, and its source.

    An answer that is not complete has ``incomplete``, one that is not valid also ``parse_error``, and a request that
    was sent more than once has ``attempts``. If a part of Anthropic's line is not JSON, it is written as text, and a
    ``note`` says so.
    """
    source = outcome.source.encode()
    if outcome.row.unreadable:
        _, odd = parse_result(outcome.line)
        result = lenient_json.encode_json({"type": outcome.type, "raw": outcome.line.decode(errors="replace")})
    else:
        result, odd = result_rows.read_member(outcome.line, "result")
    note = b',"note":%s' % lenient_json.encode_json(odd) if odd else b""
    more = note + b"".join(_own_members(outcome.row))
    return b'{"custom_id":%s,"source":"%s","result":%s%s}' % (_encode_text(custom_id), source, result, more)


def _own_members(row: result_rows.Row) -> Iterator[bytes]:
    """Yield the members beside ``result`` with what a line of Anthropic's does not say."""
    if row.incomplete is not None:
        yield b',"incomplete":"%s"' % row.incomplete.encode()
    if row.invalid is not None:
        yield b',"parse_error":%s' % _encode_text(row.invalid)
    if row.attempts:
        yield b',"attempts":%s' % bytes(row.attempts)


def message_json(outcome: Outcome) -> bytes:
    """Return an outcome's message as strict JSON in one line.

    Raises:
        ValueError: the outcome has no message that can be read.
    """
    return result_rows.read_member(result_rows.read_member(outcome.line, "result")[0], "message")[0]


def _encode_text(text: str) -> bytes:
    """Encode a text as JSON."""
    try:
        return msgspec.json.encode(text)
    except UnicodeEncodeError:
        return lenient_json.encode_json(text)
