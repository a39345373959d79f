"""The search for requests by their custom_ids: in which batch of a job each is, and at which position."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress

from claude_batch_tasks.errors import ResultsMissing
from claude_batch_tasks.records import BatchRecord, JobRecord
from claude_batch_tasks.results.stored.batch_reader import Reader
from claude_batch_tasks.results.stored.sent_ids import load_custom_ids
from claude_batch_tasks.store import ReadableStore, lost_records
from claude_batch_tasks.wire import custom_ids

Places = dict[int, dict[int, str]]
"""Requests by batch, and in it by their positions, with the custom_id of each."""


class RequestSearch:
    """A search through the requests of one job, by its index of custom_ids or, if that is gone, by reading all ids.

    Args:
        job: the record of the job.
        records: those of its batches.

    Raises:
        ResultsMissing: records of batches are gone.
    """

    def __init__(
        self, store: ReadableStore, job_id: str, job: JobRecord, records: Sequence[BatchRecord | None]
    ) -> None:
        self._store, self._job_id, self._job = store, job_id, job
        if None in records and (error := lost_records.of_records(store, job_id, job, records)):
            raise error
        #: The records of the job's batches.
        self.batches = [record for record in records if record is not None]

    def find_places(self, ids: Iterable[str]) -> Places:
        """Return the places of those ids that the job has."""
        found, absent = self._look_up(ids)
        if absent and self._index_is_gone():
            return self._read_all(absent.union(*(places.values() for places in found.values())))
        if self._job.adopted:
            return found
        confirmed = {number: self._confirm_places(number, places) for number, places in found.items()}
        return {number: places for number, places in confirmed.items() if places}

    def _look_up(self, ids: Iterable[str]) -> tuple[Places, set[str]]:
        """Return the places that the index has, and the ids that it does not have."""
        # The index of an adopted job came with its results.
        with_results = {"batch": 0, "attempt": self.batches[0].published} if self._job.adopted else {}
        firsts = [batch.first for batch in self.batches]
        parts: dict[int, bytes] = {}
        found: Places = {}
        absent: set[str] = set()
        for custom_id in ids:
            if (part := custom_ids.part_number(custom_id)) not in parts:
                parts[part] = self._store.payloads.read_index(self._job_id, part, **with_results)
            if (where := custom_ids.find_index(parts[part], custom_id)) is not None:
                number = bisect_right(firsts, where) - 1
                found.setdefault(number, {})[where - firsts[number]] = custom_id
            else:
                absent.add(custom_id)
        return found, absent

    def _index_is_gone(self) -> bool:
        if self._job.adopted:
            attempt = self.batches[0].published
            return attempt is not None and bool(self._store.storage.missing_keys(self._job_id, 0, [f"index:{attempt}"]))
        return bool(self._store.storage.missing_keys(self._job_id, None, ["index"]))

    def _read_all(self, ids: Collection[str]) -> Places:
        """Return the places of the ids without the index."""
        found: Places = {}
        for number, batch in enumerate(self.batches):
            if self._job.adopted:
                outcomes = Reader(self._store, self._job_id, self._job, number, batch).read_outcomes()
                named: Iterable[tuple[int, str]] = ((outcome.place, outcome.own_id) for outcome in outcomes)
            else:
                named = enumerate(load_custom_ids(self._store, self._job_id, self._job, number, batch))
            if places := {place: custom_id for place, custom_id in named if custom_id in ids}:
                found[number] = places
        return found

    def _confirm_places(self, number: int, places: dict[int, str]) -> dict[int, str]:
        """Return the places at which the ids really are: the index has only digests of ids."""
        if len(places) == 1:
            with suppress(ResultsMissing, IndexError):
                [(place, custom_id)] = places.items()
                return places if self._store.payloads.find_custom_id(self._job_id, number, place) == custom_id else {}
        sent = load_custom_ids(self._store, self._job_id, self._job, number, self.batches[number])
        return {place: custom_id for place, custom_id in places.items() if custom_id == sent[place]}
