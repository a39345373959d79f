"""The rows of smaller batches as they are stored: with every attempt so far, and with answers that were put together.

A row of a later batch stands for its request alone. So a continued answer is stored with what came before it, and a
repair that failed leaves the answer that was to be repaired.
"""

from __future__ import annotations

import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from claude_batch_tasks import rules
from claude_batch_tasks.formatting import shorten_text
from claude_batch_tasks.pricing import spending
from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.records import Attempt, RepairOptions
from claude_batch_tasks.wire import lenient_json, result_rows

#: Returns the turns with which a model is asked again, for the content of its answer and what is wrong with that.
MakeTurns = Callable[[list[dict[str, Any]], str], list[dict[str, Any]]]

_NO_TURNS = b"[]"

#: The most bytes of what a repair adds to a request beside parts of its answer: names, numbers, texts of ours.
_GROWTH = 4000


class Origin(NamedTuple):
    """The batch, or the calls, from which rows came, and at which prices."""

    batch_id: str | None
    prices: Prices
    at: float | None = None
    """When it was created, epoch seconds."""
    batch: bool = True


class StoredRow(NamedTuple):
    """The row of a request in the last round that has one."""

    row: result_rows.Row
    line: bytes
    round: int
    origin: Origin

    @property
    def attempts(self) -> list[Attempt]:
        """Every time that the request was sent, as far as it is known; the last of them is this round's."""
        if self.row.attempts:
            with suppress(msgspec.MsgspecError):  # 0.2.0 stored lines as they came, whatever their members were
                return msgspec.json.decode(self.row.attempts, type=list[Attempt])
        return [make_attempt(self.row, "resubmission" if self.round else "first", self.origin)]

    def count_attempts(self) -> int:
        """Return how many attempts there are; what each has cost takes far longer to find out."""
        return len(self.attempts) if self.row.attempts else 1

    @property
    def most_growth(self) -> int:
        """The most bytes by which its request grows when it is sent again; 0: it has no answer that is repaired."""
        if self.row.type != "succeeded":
            return 0
        # Written anew, a character may take three times its bytes: turns of a repair are ASCII.
        return _GROWTH + len(self.turns) + 3 * len(self.row.content) + 6 * len(self.row.invalid or "")

    @property
    def turns(self) -> bytes:
        """The turns with which the model was asked again for this answer, as JSON."""
        return bytes(self.row.turns) or _NO_TURNS


class Sending:
    """How a request is sent again, and why.

    Args:
        earlier: its row so far.
        options: those by which it was chosen.
        make_turns: makes the turns with which it is asked again.
    """

    def __init__(self, earlier: StoredRow, options: RepairOptions, make_turns: MakeTurns | None = None) -> None:
        self.earlier, self._make_turns = earlier, make_turns
        self.attempts = earlier.attempts
        self._options = _leave_out_model(options, next((each.model for each in self.attempts if each.model), None))

    @cached_property
    def kind(self) -> rules.SentAs | None:
        """As what it is sent again; None: it is not."""
        row, last = self.earlier.row, self.attempts[-1]
        # In each round before it was sent too; 0.2.0 did not write that down, and sent again only what had failed.
        failed = self.earlier.round + 1 - len(self.attempts) + sum(each.type != "succeeded" for each in self.attempts)
        return rules.choose_repair(
            last.type, last.error_type, row.incomplete, repairs=self._past, failed=failed, options=self._options
        )

    @cached_property
    def _past(self) -> Counter[str]:
        return Counter(each.kind for each in self.attempts)

    @property
    def repair(self) -> str:
        """The kind of repair that it is sent for, or repeats; ``first``: it is sent as it was submitted."""
        kinds = [self.kind or "resubmission", *(each.kind for each in reversed(self.attempts))]
        return next((kind for kind in kinds if kind != "resubmission"), "first")

    def count_kind(self, kind: rules.Repair) -> int:
        """Return how many times it was sent for a kind of repair, this time included."""
        return self._past[kind] + (self.kind == kind)

    @property
    def moved_to(self) -> str | None:
        """The model that it is sent to in place of its own."""
        models, moved = self._options.refusal_models, self.count_kind("refusal_model")
        return models[min(moved, len(models)) - 1] if moved and models else None

    @cached_property
    def turns(self) -> bytes:
        """The turns after its own, as JSON, with which the model is asked again."""
        if self.repair == "refusal_model":
            return _NO_TURNS
        row = self.earlier.row
        if self.repair == "reask" and self._make_turns is not None and row.invalid is not None:
            before, _ = lenient_json.read_json(self.earlier.turns)
            content, _ = lenient_json.read_json(row.content)
            return lenient_json.encode_json([*before, *self._make_turns(content, row.invalid)])
        return self.earlier.turns

    def add_row(self, row: result_rows.Row, line: bytes, origin: Origin) -> bytes:
        """Return the line to store for the row that came back."""
        earlier = self.earlier
        keeps_answer = earlier.row.type == "succeeded" and (row.unreadable or row.type != "succeeded")
        if row.unreadable and not keeps_answer:
            return line
        members: dict[str, Any] = {
            "attempts": [*self.attempts, make_attempt(row, self.kind or "resubmission", origin)],
        }
        turns = self.turns
        if keeps_answer:
            result, turns = result_rows.read_member(earlier.line, "result")[0], earlier.turns
            line = _make_line(row.custom_id, result)
            if earlier.row.invalid is not None:
                members["invalid"] = earlier.row.invalid
        elif row.type == "succeeded" and self.repair == "continue":
            message = join_messages(*(_read_message(each) for each in (earlier.line, line)))
            line = _make_line(row.custom_id, b'{"type":"succeeded","message":%s}' % message)
        if turns != _NO_TURNS:
            members["turns"] = msgspec.Raw(turns)
        return add_members(line, members)


def _leave_out_model(options: RepairOptions, own: str | None) -> RepairOptions:
    """Return the options of a request: what its own model refused is not sent to that model again."""
    models = [model for model in options.refusal_models if own is None or not rules.is_same_model(model, own)]
    same = len(models) == len(options.refusal_models)
    return options if same else msgspec.structs.replace(options, refusal_models=models)


def _make_line(custom_id: str, result: bytes) -> bytes:
    return b'{"custom_id":%s,"result":%s}' % (msgspec.json.encode(custom_id), result)


def drop_members(row: result_rows.Row, line: bytes) -> bytes:
    """Return a line that came from the API without members that have the names of ours: only we may write these."""
    return _make_line(row.custom_id, result_rows.read_member(line, "result")[0])


def add_members(line: bytes, members: Mapping[str, Any]) -> bytes:
    """Return a line with more members at its end."""
    return b"%s,%s" % (line.rstrip()[:-1], msgspec.json.encode(members)[1:])


def make_attempt(row: result_rows.Row, kind: str, origin: Origin) -> Attempt:
    """Return what a row says of the time that its request was sent."""
    message = row.result.message
    outcome, error_type = ("errored", result_rows.UNREADABLE) if row.unreadable else (row.type, row.error_type)
    succeeded = outcome == "succeeded"
    usage = None if message is None or not succeeded else msgspec.to_builtins(message.usage)
    return Attempt(
        kind=kind,  # type: ignore[arg-type]
        type=outcome,  # type: ignore[arg-type]
        model=shorten_text(message.model, result_rows.LONGEST_NAME) if message and message.model else None,
        stop_reason=shorten_text(row.stop_reason, result_rows.LONGEST_NAME) if row.stop_reason else None,
        usage={name: count for name, count in usage.items() if count is not None} if usage else None,
        cost=_cost_of(row, origin),
        batch_id=origin.batch_id,
        error_type=shorten_text(error_type, result_rows.LONGEST_NAME) if error_type else None,
    )


def _cost_of(row: result_rows.Row, origin: Origin) -> float | None:
    if row.type != "succeeded":
        return None if row.error_type in result_rows.MAY_BE_BILLED else 0.0
    meter = spending.Meter(origin.prices, batch=origin.batch, at=origin.at)
    result_rows.count_answers(meter, [row.result.message])
    cost = spending.total_cost(meter.sum_costs())
    return None if cost is None else float(cost)


def _read_message(line: bytes) -> bytes:
    return result_rows.read_member(result_rows.read_member(line, "result")[0], "message")[0]


_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def join_messages(before: bytes, after: bytes) -> bytes:
    """Return a message and the one that continues it as one: their contents joined, their usages added up."""
    first, last = _decode_members(before), _decode_members(after)
    contents = [msgspec.json.decode(each.get("content", b"[]"), type=list[msgspec.Raw]) for each in (first, last)]
    usages = [msgspec.json.decode(each.get("usage", b"null")) for each in (first, last)]
    return msgspec.json.encode(
        {**last, "content": contents[0] + contents[1], "usage": _add_up(*usages)},
    )


def _add_up(before: Any, after: Any) -> Any:
    """Return the sum of two usages: of their numbers, and of lists one after the other; else what came last."""
    if isinstance(before, dict) and isinstance(after, dict):
        return {name: _add_up(before.get(name), after.get(name)) for name in dict.fromkeys([*before, *after])}
    if type(before) is int and type(after) is int:
        return before + after
    if isinstance(before, list) and isinstance(after, list):
        return before + after
    return before if after is None else after


class EarlierRows:
    """The rows of some requests of a batch in a temporary file, for random access; 16 bytes of memory per request.

    Args:
        count: requests of the batch.
        origins: the batches of the rounds before.
    """

    def __init__(self, count: int, origins: list[Origin]) -> None:
        self._file = tempfile.TemporaryFile(prefix="claude-batch-")  # noqa: SIM115 - it ends with this
        self._starts, self._ends, self._rounds = (
            array("Q", bytes(8 * count)),
            array("Q", bytes(8 * count)),
            bytearray(count),
        )
        self._origins, self._at = origins, 0
        #: How many there are.
        self.found = 0

    def __del__(self) -> None:
        self._file.close()

    def add_row(self, place: int, line: bytes, round_: int) -> None:
        """Add the row of the request at a position."""
        self._starts[place], self._rounds[place] = self._at, round_
        self._at += self._file.write(line)
        self._ends[place] = self._at
        self.found += 1

    def __getitem__(self, place: int) -> StoredRow:
        self._file.seek(self._starts[place])
        line = self._file.read(self._ends[place] - self._starts[place])
        round_ = self._rounds[place]
        return StoredRow(result_rows.any_row(line), line, round_, self._origins[round_])
