"""The reader of outcomes: from the rows of a result file, from the Messages API, or by default."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import count

import msgspec

from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.records import BatchRecord, JobRecord
from claude_batch_tasks.results.stored.batch_rows import BatchRows
from claude_batch_tasks.results.stored.messages_outcomes import as_line, as_row, decode_unchanged
from claude_batch_tasks.results.stored.outcome_notes import OutcomeNotes
from claude_batch_tasks.results.stored.outcomes import UNKNOWN, Order, Outcome, Type, make_outcome
from claude_batch_tasks.results.stored.request_order import in_order
from claude_batch_tasks.results.stored.sent_ids import Ids, load_custom_ids
from claude_batch_tasks.store import ReadableStore, lost_records


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
        prices: Prices = UNKNOWN.prices,
    ) -> None:
        self._store, self._job_id, self._job, self._number, self._batch = store, job_id, job, number, batch
        self._rows = BatchRows(store, job_id, job, number, batch, prices)
        self._notes = OutcomeNotes(batch, self._rows)

    def custom_id(self, outcome: Outcome) -> str:
        """Return the custom_id of an outcome as the caller knows it."""
        return outcome.own_id if self._job.adopted else self._custom_ids[outcome.place]

    def read_outcomes(self, only: Type | None = None, order: Order = "stored") -> Iterator[Outcome]:
        """Return every outcome, or those of one type, as they are stored or in the order of the requests.

        Raises:
            ResultsMissing: some outcomes that the batch's record counts are gone.
        """
        found = self._read_stored()
        if only is not None:
            found = (outcome for outcome in found if outcome.type == only)
        return in_order(found, self._batch.count) if order == "request" else found

    def read_chosen(self, places: Mapping[int, str]) -> Iterator[Outcome]:
        """Yield the outcomes of some requests, without those that may still be sent again.

        Args:
            places: the requests' positions, each with its custom_id.

        Raises:
            ResultsMissing: an outcome that the batch's record counts is gone.
        """
        batch = self._batch
        # If a key is gone, the rows of an earlier download must not be taken for those of the last.
        if len(batch.layers) > 1 and self._rows.are_missing():
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
            if wanted and len(batch.layers) == 1 and self._rows.are_missing():
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

    def _chosen_defaults(self, wanted: Mapping[int, str], notes: Mapping[int, str], lost: int) -> Iterator[Outcome]:
        """Yield the outcomes of requests of a batch without rows."""
        self._rows.check_job()
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
            for outcome in self._rows.wanted_rows(attempt, round_, wanted, chunk):
                place = outcome.place
                del wanted[place]
                settled = place in notes or not (self._rows.is_open(outcome) or pending[place])
                if lost and not settled:
                    raise self._missing_error(lost, lost)
                if settled or self._batch.final:
                    yield self._notes.add_note(outcome, notes)

    def _pending_places(self) -> bytearray:
        """Return, by position, which requests are, or may be, in the next smaller batch."""
        batch = self._batch
        return bytearray(batch.count) if batch.final else self._rows.sent_places(*batch.layers[0])

    def _among_all(self, places: Mapping[int, str]) -> Iterator[Outcome]:
        """Find some outcomes by reading all."""
        settled, batch = self._store.results.find_outcomes(self._job_id, self._number, list(places)), self._batch
        pending = self._pending_places() if batch.layers else bytearray(batch.count)
        for outcome in self._read_stored():
            place = outcome.place
            is_open = self._rows.is_open(outcome) or pending[place]
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
        self._rows.check_job()
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
            repaired = self._rows.sent_places(attempt, round_) if short else None
            # What hardly any row needs is not asked for each of them: all of a job's rows go through here.
            whole, noted = not lost and repaired is None, self._notes.may_exist(notes)
            for outcome in self._rows.placed_rows(attempt, round_, arrival):
                found, place = found + 1, outcome.place
                if replaced[place]:
                    continue
                replaced[place] = True
                if not whole and self._is_out_of_date(outcome, repaired, lost=bool(lost) and place not in notes):
                    withheld += 1
                    continue
                yield self._notes.add_note(outcome, notes) if noted else outcome
            short += max(self._rows.count_expected(attempt, round_) - found, 0)
        absent = replaced.count(0) if batch.error is None else short
        if missing := max(absent + withheld, lost, short):
            raise self._missing_error(missing, lost)

    def _is_out_of_date(self, outcome: Outcome, sent: bytearray | None, *, lost: bool) -> bool:
        """Return whether a later outcome of the request may be missing.

        Args:
            sent: which requests were sent again in a round of which rows are missing; None: no row of a later round is.
            lost: outcomes of the Messages API are missing, and its own may be one of them.
        """
        return ((lost or sent is not None) and self._rows.is_open(outcome)) or (
            sent is not None and bool(sent[outcome.place])
        )

    def _from_messages(self, place: int, stored: bytes) -> Outcome | None:
        """Decode an outcome of the Messages API; return None if the request's outcome stays unchanged."""
        if decode_unchanged(stored) is not None:
            return None
        return make_outcome(place, "messages", as_row(stored), as_line(stored), origin=self._rows.messages_origin)

    def _default_outcomes(self, places: Iterable[int], notes: Mapping[int, str]) -> Iterator[Outcome]:
        """Yield the outcome that every request has of a batch without rows."""
        if self._batch.outcome is None:
            return
        stored = msgspec.json.encode(self._batch.outcome)
        row, line = as_row(stored), as_line(stored)
        for place in places:
            yield self._notes.add_note(make_outcome(place, "batch", row, line), notes)


def _note_of(stored: bytes) -> str:
    found = decode_unchanged(stored)
    return sys.intern(found.kept) if found else ""  # mostly the same text for thousands of requests
