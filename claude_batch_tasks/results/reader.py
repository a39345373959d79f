"""The reader of outcomes: from the rows of a result file, from the Messages API, or by default."""

from __future__ import annotations

import sys
import tempfile
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from claude_batch_tasks import rules
from claude_batch_tasks.errors import JobNotFound, ResultsMissing
from claude_batch_tasks.formatting import describe_missing_job, shorten_text
from claude_batch_tasks.outputs import OutputReader, dump_object
from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.records import Attempt, BatchRecord, JobRecord, PublicValue
from claude_batch_tasks.store import ReadableStore, lost_records
from claude_batch_tasks.wire import batch_requests, lenient_json, result_rows, stored_rows
from claude_batch_tasks.wire.stored_rows import Origin

Type = result_rows.OutcomeType
Source = Literal["batch", "resubmitted", "messages"]
Order = Literal["stored", "request"]


class _Stored(NamedTuple):
    """What the values of a result are read from."""

    line: bytes
    note: str | None
    round: int
    origin: Origin
    answers: OutputReader | None


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
            for each, value in read(self.type, self.source, self._stored).items():
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

#: Why a request was not sent again whose repair would have made the next batch too large.
_NO_ROOM = "the next batch had no room for it (max_bytes_per_batch)"

_UNKNOWN = Origin(None, Prices())


class Outcome(NamedTuple):
    """The stored outcome of one request."""

    place: int
    """The request's position in its batch."""
    source: Source
    row: result_rows.Row
    line: bytes
    """A line as in Anthropic's result files; only the part under ``result`` counts."""
    note: str | None = None
    """Why it was not sent again."""
    round: int = 0
    origin: Origin = _UNKNOWN
    """The round, and the batch, that its row comes from."""


#: A row with the position of its request in the batch, and the line that it is in.
_PlacedRow = tuple[int, result_rows.Row, bytes]


class Reader:
    """A reader of one batch's outcomes, in constant memory except for the batch's custom_ids.

    It counts: if it finds fewer outcomes than the batch's record says, it raises ``ResultsMissing`` after the outcomes
    it found. An outcome that may be out of date, because a later one is missing, is not among these.
    """

    def __init__(
        self,
        store: ReadableStore,
        job_id: str,
        job: JobRecord,
        number: int,
        batch: BatchRecord,
        prices: Prices = _UNKNOWN.prices,
    ) -> None:
        self._store, self._job_id, self._job, self._number, self._batch = store, job_id, job, number, batch
        own = Origin(batch.batch_id, prices, batch.created_at)
        self._origins = [*(Origin(past.batch_id, prices, past.created_at) for past in batch.rounds), own]
        self._messages = Origin(None, prices, batch=False)

    def read_results(
        self, only: Type | None = None, order: Order = "stored", answers: OutputReader | None = None
    ) -> Iterator[RequestResult]:
        """Yield every outcome, or those of one type, in the form that applications see.

        Args:
            answers: as for ``as_result``.
        """
        for outcome in self.read_outcomes(only, order):
            custom_id = outcome.row.custom_id if self._job.adopted else self._custom_ids[outcome.place]
            yield as_result(custom_id, outcome, answers)

    def custom_id(self, outcome: Outcome) -> str:
        """Return the custom_id of an outcome as the caller knows it."""
        return outcome.row.custom_id if self._job.adopted else self._custom_ids[outcome.place]

    def read_outcomes(self, only: Type | None = None, order: Order = "stored") -> Iterator[Outcome]:
        """Return every outcome, or those of one type, as they are stored or in the order of the requests.

        Raises:
            ResultsMissing: some outcomes that the batch's record counts are gone.
        """
        found = self._read_stored()
        if only is not None:
            found = (outcome for outcome in found if outcome.row.type == only)
        return _in_order(found, self._batch.count) if order == "request" else found

    def read_chosen(self, places: Mapping[int, str]) -> Iterator[Outcome]:
        """Yield the outcomes of some requests, without those that may still be sent again.

        Args:
            places: the requests' positions, each with its custom_id.

        Raises:
            ResultsMissing: an outcome that the batch's record counts is gone.
        """
        batch = self._batch
        # If a key is gone, the rows of an earlier download must not be taken for those of the last.
        if len(batch.layers) > 1 and self._are_rows_missing():
            yield from self._among_all(places)
            return
        wanted, notes = dict(places), dict[int, str]()
        outcomes, chunk = self._find_outcomes(list(places))
        for place, stored in outcomes.items():
            if found := self._from_messages(place, stored):
                del wanted[place]
                yield found
            else:
                notes[place] = _note_of(stored)
        lost = self._answers_lost()
        if batch.layers:
            yield from self._chosen_rows(wanted, notes, lost, chunk)
            if wanted and len(batch.layers) == 1 and self._are_rows_missing():
                yield from self._among_all(wanted)
            elif wanted and batch.error is None:
                raise self._missing_error(len(wanted))
        elif wanted:
            yield from self._chosen_defaults(wanted, notes, lost)

    def _find_outcomes(self, places: list[int]) -> tuple[dict[int, bytes], bytes | None]:
        """Return the outcomes of the Messages API of some requests; of a single one also the chunk with its row."""
        results, layers = self._store.results, self._batch.layers
        if len(places) > 1 or len(layers) != 1:
            return results.find_outcomes(self._job_id, self._number, places), None
        outcome, chunk = results.find_request(self._job_id, self._number, layers[0][0], places[0])
        return {places[0]: outcome} if outcome is not None else {}, chunk

    def _are_rows_missing(self) -> bool:
        """Return whether rows of the batch are gone, or where they are."""
        names = lost_records.layer_names(self._batch, "rows", "pieces")
        return bool(self._store.storage.missing_keys(self._job_id, self._number, names))

    def _chosen_defaults(self, wanted: Mapping[int, str], notes: Mapping[int, str], lost: int) -> Iterator[Outcome]:
        """Yield the outcomes of requests of a batch without rows."""
        self._check_that_it_is_there()
        if lost and not notes.keys() >= wanted.keys():
            raise self._missing_error(lost, lost)
        yield from self._default_outcomes(wanted if self._batch.final else notes, notes)

    def _chosen_rows(
        self, wanted: dict[int, str], notes: Mapping[int, str], lost: int, chunk: bytes | None = None
    ) -> Iterator[Outcome]:
        """Yield the last row of each wanted request, if it is final, and take what has a row out of ``wanted``.

        Args:
            chunk: the chunk with the row, if it was read before.
        """
        pending = self._pending_places()
        for attempt, round_ in self._batch.layers:
            for place, row, line in self._wanted_rows(attempt, round_, wanted, chunk):
                del wanted[place]
                settled = place in notes or not (self._is_open(row) or pending[place])
                if lost and not settled:
                    raise self._missing_error(lost, lost)
                if settled or self._batch.final:
                    yield self._add_note(self._row_outcome(place, round_, row, line), notes)

    def find_attempts(self, place: int) -> list[Attempt]:
        """Return each time that a request was sent in a batch, as far as its rows are there."""
        for attempt, round_ in self._batch.layers:
            for _, row, line in self._wanted_rows(attempt, round_, {place: ""}):
                return stored_rows.StoredRow(row, line, round_, self._origins[round_]).attempts
        return []

    def _pending_places(self) -> bytearray:
        """Return, by position, which requests are, or may be, in the next smaller batch."""
        batch = self._batch
        return bytearray(batch.count) if batch.final else self._sent_places(*batch.layers[0])

    def _sent_places(self, attempt: int, round_: int) -> bytearray:
        """Return, by position, which requests are in the batch after a round; none if 0.2.0 made it."""
        sent = bytearray(self._batch.count)
        for place in self._read_again(attempt, round_)[0]:
            sent[place] = True
        return sent

    def _read_again(self, attempt: int, round_: int) -> tuple[array[int], array[int]]:
        """Return the positions of the requests in the batch after a round, and of those for which it had no room."""
        rounds = self._batch.rounds
        again = (rounds[round_] if round_ < len(rounds) else self._batch).again
        if again is None:
            return array("I"), array("I")
        packed = self._store.results.read_again(self._job_id, self._number, attempt)
        found = array("I", packed[: len(packed) // 4 * 4])
        return found[: again.count], found[again.count :]

    def _row_outcome(self, place: int, round_: int, row: result_rows.Row, line: bytes) -> Outcome:
        return Outcome(place, _source_of(round_), row, line, round=round_, origin=self._origins[round_])

    def _wanted_rows(
        self, attempt: int, round_: int, wanted: Mapping[int, str], chunk: bytes | None = None
    ) -> Iterator[_PlacedRow]:
        """Yield the rows of wanted requests in one attempt; only the chunks that have any are read."""
        for piece, places in self._chunks_of(attempt, wanted) if chunk is None else [(chunk, list(wanted))]:
            ids = {self._wire_id(place, round_, wanted[place]): place for place in places}
            for row, line in _rows_of(piece, ids):
                yield ids[row.custom_id], row, line

    def _chunks_of(self, attempt: int, places: Iterable[int]) -> Iterator[tuple[bytes, list[int]]]:
        """Yield the chunks that have rows of requests, each with the positions of these."""
        by_chunk: dict[int, list[int]] = {}
        for place, number in self._store.results.find_chunks(self._job_id, self._number, attempt, places).items():
            by_chunk.setdefault(number, []).append(place)
        for number in sorted(by_chunk):
            yield self._store.results.read_chunk(self._job_id, self._number, attempt, number), by_chunk[number]

    def _among_all(self, places: Mapping[int, str]) -> Iterator[Outcome]:
        """Find some outcomes by reading all."""
        settled, batch = self._store.results.find_outcomes(self._job_id, self._number, list(places)), self._batch
        pending = self._pending_places() if batch.layers else bytearray(batch.count)
        for outcome in self._read_stored():
            place = outcome.place
            is_open = self._is_open(outcome.row) or pending[place]
            if place in places and (self._batch.final or place in settled or not is_open):
                yield outcome

    def _answers_lost(self) -> int:
        """Return how many outcomes of the Messages API are missing."""
        if not (self._batch.stored or self._batch.answered):
            return 0
        stored = self._store.results.count_outcomes(self._job_id, self._number)
        return lost_records.answers_lost(self._batch, stored=stored, answers=stored)

    def _missing_error(self, count: int, answers: int = 0) -> Exception:
        return lost_records.of_outcomes(self._store, self._job_id, self._job, self._number, self._batch, count, answers)

    def _wire_id(self, place: int, round_: int, custom_id: str) -> str:
        if self._job.adopted:
            return custom_id
        return batch_requests.wire_id(batch_requests.round_nonce(self._job.nonce, round_), self._batch.first + place)

    @cached_property
    def _custom_ids(self) -> Ids:
        """The batch's custom_ids by position."""
        return load_custom_ids(self._store, self._job_id, self._job, self._number, self._batch)

    def _read_stored(self) -> Iterator[Outcome]:
        """Yield the outcomes of the Messages API, then the rows that these do not replace, the last round's first."""
        batch = self._batch
        replaced, notes = bytearray(batch.count), {}
        for place, stored in self._store.results.read_outcomes(self._job_id, self._number):
            if replaced[place]:
                continue
            if found := self._from_messages(place, stored):
                replaced[place] = True
                yield found
            else:
                notes[place] = _note_of(stored)
        answers = sum(replaced)
        lost = lost_records.answers_lost(batch, stored=answers + len(notes), answers=answers)
        if batch.layers:
            yield from self._read_rows(replaced, notes, lost)
            return
        self._check_that_it_is_there()
        known = (place for place in range(batch.count) if not replaced[place] and (place in notes or not lost))
        yield from self._default_outcomes(known, notes)
        if lost:
            raise self._missing_error(lost, lost)

    def _read_rows(self, replaced: bytearray, notes: Mapping[int, str], lost: int) -> Iterator[Outcome]:
        """Yield the rows that no later outcome replaces.

        Args:
            replaced: which requests have a later outcome, by position.
            notes: why a request was not sent again, by position.
            lost: the number of missing outcomes of the Messages API, all of eligible requests.
        """
        batch, arrival, short, withheld = self._batch, count(), 0, 0
        for attempt, round_ in batch.layers:
            found = 0
            repaired = self._sent_places(attempt, round_) if short else None
            source, origin = _source_of(round_), self._origins[round_]
            # What hardly any row needs is not asked for each of them: all of a job's rows go through here.
            whole, noted = not lost and repaired is None, self._may_have_notes(notes)
            for place, row, line in self._placed_rows(attempt, round_, arrival):
                found += 1
                if replaced[place]:
                    continue
                replaced[place] = True
                if not whole and self._is_out_of_date(row, place, repaired, lost=bool(lost) and place not in notes):
                    withheld += 1
                    continue
                outcome = Outcome(place, source, row, line, None, round_, origin)
                yield self._add_note(outcome, notes) if noted else outcome
            short += max(self._rows_expected(attempt, round_) - found, 0)
        absent = replaced.count(0) if batch.error is None else short
        if missing := max(absent + withheld, lost, short):
            raise self._missing_error(missing, lost)

    def _is_open(self, row: result_rows.Row) -> bool:
        """Return whether a request with such a row is eligible for resubmission or fallback."""
        return row.result.type != "succeeded" and rules.may_fall_back(
            row.type, row.error_type, cut_short=self._batch.cut_short
        )

    def _is_out_of_date(self, row: result_rows.Row, place: int, sent: bytearray | None, *, lost: bool) -> bool:
        """Return whether a later outcome of a request may be missing.

        Args:
            sent: which requests were sent again in a round of which rows are missing; None: no row of a later round is.
            lost: outcomes of the Messages API are missing, and its own may be one of them.
        """
        return ((lost or sent is not None) and self._is_open(row)) or (sent is not None and bool(sent[place]))

    def read_last_rows(self, wanted: bytearray) -> Iterator[tuple[int, bytes, int]]:
        """Yield the rows of wanted requests in the last round that has one: their positions, lines and rounds.

        Args:
            wanted: whether each request is wanted, by position.
        """
        left = bytearray(wanted)
        for attempt, round_ in self._batch.layers:
            if not any(left):
                return
            for place, _, line in self._placed_rows(attempt, round_, count()):
                if left[place]:
                    left[place] = False
                    yield place, line, round_

    def _placed_rows(self, attempt: int, round_: int, arrival: Iterator[int]) -> Iterator[_PlacedRow]:
        """Yield the rows of an attempt that belong to the batch; what is there instead of one counts as missing.

        Args:
            arrival: numbers the requests of an adopted batch, which are in the order of their rows.
        """
        first, nonce = self._batch.first, batch_requests.round_nonce(self._job.nonce, round_)
        for piece in self._store.results.read_rows(self._job_id, self._number, attempt):
            for row, line in result_rows.read_rows(piece, skip_others=True):
                index = next(arrival) if self._job.adopted else batch_requests.index_of(nonce, row.custom_id)
                if index is not None and 0 <= index - first < self._batch.count:
                    yield index - first, row, line

    def _rows_expected(self, attempt: int, round_: int) -> int:
        """Return how many rows an attempt has by the record, else by the map of its chunks; 0 if that is gone."""
        expected = lost_records.rows_expected(self._batch, attempt, round_)
        if expected is not None:
            return expected
        return len(self._store.results.find_chunks(self._job_id, self._number, attempt, range(self._batch.count)))

    def _may_have_notes(self, notes: Mapping[int, str]) -> bool:
        """Return whether there is a note that may be that of an outcome."""
        return bool(notes) or self._batch.note is not None or any(self._left_places)

    def _add_note(self, outcome: Outcome, notes: Mapping[int, str]) -> Outcome:
        """Add the note why a request was not sent again, if it was eligible for that."""
        batch, note = self._batch, None
        if not batch.layers or self._is_open(outcome.row):
            note = notes.get(outcome.place, batch.note)
        if note is None:
            note = self._left_notes[self._left_places[outcome.place]]
        return outcome if note is None else outcome._replace(note=note)

    @property
    def _left_notes(self) -> tuple[str | None, str | None, str]:
        """Why requests were not sent again, as ``_left_places`` has it."""
        return None, self._batch.not_sent_again, _NO_ROOM

    @cached_property
    def _left_places(self) -> bytearray:
        """Which requests were to be in another batch, by position: 1 if there is none, 2 if it had no room."""
        found, layers = bytearray(self._batch.count), self._batch.layers
        for place in self._read_again(*layers[0])[0] if layers and self._batch.not_sent_again is not None else ():
            found[place] = 1
        again = [*(past.again for past in self._batch.rounds), self._batch.again]
        for round_, each in enumerate(again):
            for place in self._read_again(each.attempt, round_)[1] if each is not None and each.left else ():
                found[place] = 2
        return found

    def _check_that_it_is_there(self) -> None:
        """Raise an error if the job is gone.

        A job that is deleted meanwhile looks like one without outcomes of the Messages API.
        """
        if self._store.jobs.read_job(self._job_id) is None:
            raise JobNotFound(describe_missing_job(self._job_id))

    def _from_messages(self, place: int, stored: bytes) -> Outcome | None:
        """Decode an outcome of the Messages API; return None if the request's outcome stays unchanged."""
        if stored.startswith(_KEPT):
            return None
        return Outcome(place, "messages", as_row(stored), _as_line(stored), origin=self._messages)

    def _default_outcomes(self, places: Iterable[int], notes: Mapping[int, str]) -> Iterator[Outcome]:
        """Yield the outcome that every request has of a batch without rows."""
        if self._batch.outcome is None:
            return
        line = _as_line(msgspec.json.encode(self._batch.outcome))
        for place in places:
            yield self._add_note(Outcome(place, "batch", result_rows.decode_row(line), line), notes)


def open_answers(job: JobRecord | None) -> OutputReader | None:
    """Return what reads the answers of a job as its ``output``; None: it has none."""
    return OutputReader.load(job.output) if job is not None and job.output is not None else None


def as_result(custom_id: str, outcome: Outcome, answers: OutputReader | None = None) -> RequestResult:
    """Return an outcome in the form that applications see.

    Args:
        answers: reads answers as the job's ``output``; default: they are not read.
    """
    result = object.__new__(RequestResult)
    _set_custom_id(result, custom_id)
    _set_type(result, outcome.row.type)
    _set_source(result, outcome.source)
    _set_stored(result, _Stored(outcome.line, outcome.note, outcome.round, outcome.origin, answers))
    return result


_set_custom_id, _set_type, _set_source, _set_stored = (
    _SLOTS[name] for name in ("custom_id", "type", "source", "_stored")
)


def _read_result(kind: Type, source: Source, stored: _Stored) -> dict[str, Any]:
    """Return what is under ``result`` of a row, and what of it differs."""
    values, odd = _parse_result(stored.line)
    message = values.get("message")
    return {
        "message": message if kind == "succeeded" and isinstance(message, dict) else None,
        "error": _read_error(result_rows.any_row(stored.line), values, odd) if kind == "errored" else None,
        "note": "; ".join(filter(None, (stored.note, odd))) if odd else stored.note,
        "raw": stored.line if odd else None,
    }


def _judge_row(kind: Type, source: Source, stored: _Stored) -> dict[str, Any]:
    """Return how an answer ended, and its object."""
    row = result_rows.any_row(stored.line)
    parsed, parse_error = _read_answer(row, stored.answers)
    return {
        "stop_reason": row.stop_reason if kind == "succeeded" else None,
        "incomplete": row.incomplete,
        "parsed": parsed,
        "parse_error": parse_error,
    }


def _list_attempts(kind: Type, source: Source, stored: _Stored) -> dict[str, Any]:
    """Return each time that a request was sent, as its row says it; none if it was not sent."""
    row, found = result_rows.any_row(stored.line), tuple[Attempt, ...]()
    if source == "messages" and not row.attempts:
        found = (stored_rows.make_attempt(row, "messages", stored.origin),)
    elif stored.origin is not _UNKNOWN:
        found = tuple(stored_rows.StoredRow(row, stored.line, stored.round, stored.origin).attempts)
    return {"attempts": found}


#: What reads a field, and those beside it, when it is first asked for. Which request's a result is, its type and its
#: source are known before.
_READ_ON_ACCESS: dict[str, Callable[[Type, Source, _Stored], dict[str, Any]]] = {
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


def count_attempts(outcome: Outcome) -> int:
    """Return the number of attempts that the result of an outcome has."""
    if outcome.origin is _UNKNOWN and not (outcome.source == "messages" and not outcome.row.attempts):
        return 0
    return stored_rows.StoredRow(outcome.row, outcome.line, outcome.round, outcome.origin).count_attempts()


def _parse_result(line: bytes) -> tuple[dict[str, Any], str | None]:
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
        _, odd = _parse_result(outcome.line)
        result = lenient_json.encode_json({"type": outcome.row.type, "raw": outcome.line.decode(errors="replace")})
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
    return result_rows.any_row(_as_line(stored))


def _note_of(stored: bytes) -> str:
    found = decode_unchanged(stored)
    return sys.intern(found.kept) if found else ""  # mostly the same text for thousands of requests


def _source_of(round_: int) -> Source:
    return "resubmitted" if round_ else "batch"


def _rows_of(piece: bytes, wanted: Collection[str]) -> Iterator[tuple[result_rows.Row, bytes]]:
    """Yield the wanted rows of a chunk."""
    if len(wanted) == 1:
        # Almost nobody writes an id with escapes, so most lines need not be decoded.
        needle = f'"{next(iter(wanted))}"'.encode(errors="surrogatepass")
        for line in piece.split(b"\n"):
            for found in result_rows.read_rows(line, skip_others=True) if needle in line else ():
                if found[0].custom_id in wanted:
                    yield found
                    return
    if piece:
        yield from (found for found in result_rows.read_rows(piece, skip_others=True) if found[0].custom_id in wanted)


def _as_line(stored: bytes) -> bytes:
    own, result = _split_own(stored)
    line = b'{"custom_id":"","result":%s}' % result
    return stored_rows.add_members(line, own) if own else line


def _in_order(outcomes: Iterable[Outcome], count: int) -> Iterator[Outcome]:
    """Order outcomes like the requests, by means of a temporary file; this needs 17 bytes of memory per request."""
    ends, sources = array("Q", bytes(8 * count)), bytearray(count)
    starts = array("Q", ends)
    notes: dict[int, str] = {}
    kinds: list[tuple[Source, int, Origin]] = []
    with tempfile.TemporaryFile(prefix="claude-batch-") as file:
        at = 0
        for outcome in outcomes:
            if (kind := (outcome.source, outcome.round, outcome.origin)) not in kinds:
                kinds.append(kind)
            starts[outcome.place], sources[outcome.place] = at, kinds.index(kind)
            at += file.write(outcome.line)
            ends[outcome.place] = at
            if outcome.note is not None:
                notes[outcome.place] = outcome.note
        for place in range(count):
            if ends[place]:
                file.seek(starts[place])
                line = file.read(ends[place] - starts[place])
                source, round_, origin = kinds[sources[place]]
                yield Outcome(place, source, result_rows.any_row(line), line, notes.get(place), round_, origin)


def load_custom_ids(store: ReadableStore, job_id: str, job: JobRecord, number: int, batch: BatchRecord) -> Ids:
    """Return a batch's custom_ids by position.

    Raises:
        ResultsMissing: some custom_ids are gone.
    """
    try:
        found = Ids(store.payloads.read_custom_ids(job_id, number))
    except ResultsMissing:
        found = Ids([])
    if len(found) != batch.count:
        raise lost_records.of_names(store, job_id, job, number, batch)
    return found


class Ids:
    """A batch's custom_ids by position: the bytes of all of them and where each ends, not one object for each."""

    def __init__(self, pieces: Iterable[list[str]]) -> None:
        self._text = bytearray()
        self._ends = array("Q", [0])
        for ids in pieces:
            for custom_id in ids:
                self._text += custom_id.encode()
                self._ends.append(len(self._text))

    def __iter__(self) -> Iterator[str]:
        return (self[place] for place in range(len(self)))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> str:
        return self._text[self._ends[place] : self._ends[place + 1]].decode()
