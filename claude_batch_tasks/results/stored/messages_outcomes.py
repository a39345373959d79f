"""Outcomes of the Messages API as they are stored: answers, refusals, and tries that left an outcome unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from claude_batch_tasks.outputs import OutputReader
from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.records import Attempt, JobRecord
from claude_batch_tasks.wire import result_rows, stored_rows
from claude_batch_tasks.wire.stored_rows import Origin

_KEPT = b'{"kept":'


class Kept(msgspec.Struct):
    """A request whose outcome stays unchanged."""

    kept: str
    """The reason."""
    tried: bool
    """Whether it was sent, and then refused or perhaps answered."""
    billed: bool | None = None
    """Whether it may have been billed; None: an earlier release did not say."""

    @property
    def may_be_billed(self) -> bool:
        """Whether the request may have been billed, as far as is known."""
        return self.tried if self.billed is None else self.billed


#: How an outcome begins that has members of our own; they are all of its first line.
_OWN = b'{"own":'

_decode_own = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_kept = msgspec.json.Decoder(Kept).decode


def kept_outcome(note: str, *, tried: bool, billed: bool | None = None) -> bytes:
    """Encode the result of a Messages API try that left the outcome unchanged.

    Args:
        note: the reason.
        tried: the request was sent nevertheless.
        billed: it may have been billed; None: if it was sent.
    """
    return msgspec.json.encode(Kept(note, tried, billed))


def decode_unchanged(stored: bytes) -> Kept | None:
    """Decode a stored outcome if it is one that left the outcome unchanged; return None otherwise."""
    return _decode_kept(stored) if stored.startswith(_KEPT) else None


def open_answers(job: JobRecord | None) -> OutputReader | None:
    """Return what reads the answers of a job as its ``output``; None: it has none."""
    return OutputReader.load(job.output) if job is not None and job.output is not None else None


def message_outcome(message: bytes, answers: OutputReader | None = None) -> bytes:
    """Encode an answer of the Messages API for the store.

    Args:
        answers: reads answers as the job's ``output``; default: they are not checked.
    """
    stored = b'{"type":"succeeded","message":%s}' % message
    if answers is None or (row := as_row(stored)).incomplete is not None:
        return stored
    problem = answers.check_paid(row.content)
    return stored if problem is None else _add_own(stored, {"invalid": problem})


def error_outcome(error_type: str, message: str, request_id: str | None) -> bytes:
    """Encode a refusal of the Messages API for the store."""
    return msgspec.json.encode(result_rows.errored_row(error_type, message, request_id))


def add_attempts(stored: bytes, earlier: Sequence[Attempt], prices: Prices) -> bytes:
    """Return an outcome for the store with each time that its request was sent.

    Args:
        earlier: the times before this one; empty: the outcome says enough by itself.
    """
    if not earlier:
        return stored
    own = stored_rows.make_attempt(as_row(stored), "messages", Origin(None, prices, batch=False))
    return _add_own(stored, {"attempts": [*earlier, own]})


def _add_own(stored: bytes, members: Mapping[str, Any]) -> bytes:
    own, result = _split_own(stored)
    return b"%s%s,\n%s" % (_OWN, msgspec.json.encode({**own, **members}), result[1:])


def _split_own(stored: bytes) -> tuple[dict[str, msgspec.Raw], bytes]:
    """Return our own members of an outcome, and the outcome without them."""
    if not stored.startswith(_OWN):
        return {}, stored
    own, _, rest = stored.partition(b"\n")
    return _decode_own(own[len(_OWN) : -1]), b"{" + rest


def as_row(stored: bytes) -> result_rows.Row:
    """Return an outcome of the Messages API as a row of a result file."""
    return result_rows.any_row(as_line(stored))


def as_line(stored: bytes) -> bytes:
    """Return an outcome of the Messages API as a line of a result file."""
    own, result = _split_own(stored)
    line = b'{"custom_id":"","result":%s}' % result
    return stored_rows.add_members(line, own) if own else line
