"""The notes of outcomes: why a request was not sent again although it was eligible."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from claude_batch_tasks.records import BatchRecord
from claude_batch_tasks.results.stored.batch_rows import BatchRows
from claude_batch_tasks.results.stored.outcomes import Outcome

#: Why a request was not sent again whose repair would have made the next batch too large.
_NO_ROOM = "the next batch had no room for it (max_bytes_per_batch)"


class OutcomeNotes:
    """What says why requests of a batch were not sent again.

    Args:
        rows: those of the batch.
    """

    def __init__(self, batch: BatchRecord, rows: BatchRows) -> None:
        self._batch, self._rows = batch, rows

    def may_exist(self, notes: Mapping[int, str]) -> bool:
        """Return whether there is a note that may be that of an outcome."""
        return bool(notes) or self._batch.note is not None or any(self._left_places)

    def add_note(self, outcome: Outcome, notes: Mapping[int, str]) -> Outcome:
        """Add the note why a request was not sent again, if it was eligible for that."""
        batch, note = self._batch, None
        if not batch.layers or self._rows.is_open(outcome):
            note = notes.get(outcome.place, batch.note)
        if note is None:
            note = self._left_notes[self._left_places[outcome.place]]
        outcome.note = note
        return outcome

    @property
    def _left_notes(self) -> tuple[str | None, str | None, str]:
        """Why requests were not sent again, as ``_left_places`` has it."""
        return None, self._batch.not_sent_again, _NO_ROOM

    @cached_property
    def _left_places(self) -> bytearray:
        """Which requests were to be in another batch, by position: 1 if there is none, 2 if it had no room."""
        found, layers = bytearray(self._batch.count), self._batch.layers
        for place in self._rows.read_again(*layers[0])[0] if layers and self._batch.not_sent_again is not None else ():
            found[place] = 1
        again = [*(past.again for past in self._batch.rounds), self._batch.again]
        for round_, each in enumerate(again):
            for place in self._rows.read_again(each.attempt, round_)[1] if each is not None and each.left else ():
                found[place] = 2
        return found
