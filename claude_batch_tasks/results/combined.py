"""The results of a job and of its retries, read as one: each request once, with its newest outcome.

Each request of a retry comes from one place of one other job, so the jobs are read side by side, by positions. That
takes four bytes for each request of a retry, and no custom_id is looked up.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple, Protocol

from claude_batch_tasks.errors import ResultsMissing
from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.records import BatchRecord, JobRecord
from claude_batch_tasks.results.export import NamedOutcome
from claude_batch_tasks.results.request_search import RequestSearch
from claude_batch_tasks.results.stored.batch_reader import Reader
from claude_batch_tasks.results.stored.outcomes import Order, Type
from claude_batch_tasks.results.taken_requests import read_taken
from claude_batch_tasks.store import HasRetries, ReadableStore, lost_records
from claude_batch_tasks.wire import failure_types
from claude_batch_tasks.wire.positions import Positions

_Indexed = tuple[int, NamedOutcome]
"""An outcome with the index of its request in a job."""


class CombinableStore(ReadableStore, HasRetries, Protocol):
    """What it takes to read a job and its retries."""


class _Part(NamedTuple):
    """Requests of a retry that follow each other, and where they were in the job that they come from."""

    start: int
    """Index in the retry of the first of them."""
    batch: int
    places: array[int]
    """Their positions in the batch that they come from."""


class Combined:
    """A job with its retries, as they are now.

    Args:
        job: the record of the job.
        prices: what models cost.
    """

    def __init__(self, store: CombinableStore, job_id: str, job: JobRecord, prices: Prices) -> None:
        self._store, self._job_id, self._job, self._prices = store, job_id, job, prices
        self._records = store.records.find_batches(job_id)

    def read_outcomes(self, only: Type | None, order: Order) -> Iterator[NamedOutcome]:
        """Yield the newest outcome of each request that has one, of finished batches.

        Raises:
            ResultsMissing: some are gone from the store; raised at the end.
        """
        for _, found in self._read_indexed(only, order):
            yield found
        self._check_records()

    def read_chosen(self, ids: Iterable[str]) -> Iterator[NamedOutcome]:
        """Yield the newest final outcomes of the requests with these custom_ids."""
        for number, places in (
            RequestSearch(self._store, self._job_id, self._job, self._records).find_places(ids).items()
        ):
            batch, left = self._records[number], dict(places)
            if batch is None:
                continue
            for at, retry in self._retries:
                taken = self._taken(number)[at]
                names = {left[place]: place for place in left if place in taken}
                for custom_id, outcome in retry.read_chosen(names) if names else ():
                    del left[names[custom_id]]
                    yield custom_id, outcome
            if left:
                for outcome in self._reader(number, batch).read_chosen(left):
                    yield left[outcome.place], outcome

    def _read_indexed(self, only: Type | None, order: Order) -> Iterator[_Indexed]:
        streams = [self._read_own(only, order), *(self._read_retry(at, only, order) for at, _ in self._retries)]
        if order == "request":
            yield from heapq.merge(*streams, key=itemgetter(0))
        else:
            for stream in streams:
                yield from stream

    def _read_own(self, only: Type | None, order: Order) -> Iterator[_Indexed]:
        """Yield the outcomes of the job's own batches but for those that a retry replaces."""
        for number, batch in enumerate(self._records):
            if batch is None or not batch.done or (only is not None and not batch.counts.get(only)):
                continue
            reader, replaced = self._reader(number, batch), self._find_replaced(number)
            for outcome in reader.read_outcomes(only, order):
                if outcome.place not in replaced:
                    yield batch.first + outcome.place, (reader.custom_id(outcome), outcome)

    def _read_retry(self, at: int, only: Type | None, order: Order) -> Iterator[_Indexed]:
        """Yield the outcomes that a retry has for requests of this job, with their indices in this job."""
        parts, retry = self._parts[at], dict(self._retries)[at]
        if not parts:
            return
        starts = [part.start for part in parts]
        for index, found in retry._read_indexed(only, order):
            if (number := bisect_right(starts, index) - 1) < 0:
                continue
            part = parts[number]
            if index - part.start < len(part.places) and (batch := self._records[part.batch]) is not None:
                yield batch.first + part.places[index - part.start], found

    def _find_replaced(self, number: int) -> Positions:
        """Return the requests of a batch for which a retry has an outcome."""
        replaced = Positions()
        for at, retry in self._retries:
            for part in self._parts[at]:
                if part.batch == number:
                    replaced.add_all(
                        place for offset, place in enumerate(part.places) if retry._has_outcome(part.start + offset)
                    )
        return replaced

    def _has_outcome(self, index: int) -> bool:
        number = bisect_right(self._firsts, index) - 1
        batch = self._records[number]
        return batch is not None and index - batch.first in self._available[number]

    @cached_property
    def _firsts(self) -> list[int]:
        """The index of the first request of each batch; of one whose record is gone, that of the batch before it."""
        firsts: list[int] = []
        for batch in self._records:
            firsts.append(batch.first if batch is not None else (firsts[-1] if firsts else 0))
        return firsts

    @cached_property
    def _available(self) -> list[Positions]:
        """The requests of each batch that have an outcome which is read."""
        return [self._find_available(number, batch) for number, batch in enumerate(self._records)]

    def _find_available(self, number: int, batch: BatchRecord | None) -> Positions:
        if batch is None or not batch.done:
            return Positions()
        if batch.error is None and failure_types.is_accounted(batch):
            return Positions.first(batch.count)
        found = Positions()
        with suppress(ResultsMissing):  # of a batch that failed; whoever reads its outcomes gets the error
            found.add_all(outcome.place for outcome in self._reader(number, batch).read_outcomes())
        return found

    @cached_property
    def _retries(self) -> list[tuple[int, Combined]]:
        """The retries that the store has, each with its number; one that is gone has no outcomes."""
        found = []
        for at, link in enumerate(self._job.retries):
            job = self._store.jobs.read_job(link.job_id) if link.taken else None
            if job is not None:
                found.append((at, Combined(self._store, link.job_id, job, self._prices)))
        return found

    @cached_property
    def _parts(self) -> dict[int, list[_Part]]:
        """The parts of each retry, by its number, that come from this job."""
        return {at: list(self._list_parts(at, retry)) for at, retry in self._retries}

    def _list_parts(self, at: int, retry: Combined) -> Iterator[_Part]:
        start = 0
        for source in retry._job.sources:
            if source.job_id == self._job_id:
                yield _Part(start, source.batch, self._taken(source.batch)[at].to_array())
            start += source.count

    def _taken(self, number: int) -> list[Positions]:
        return read_taken(self._store, self._job_id, self._job, number)

    def _reader(self, number: int, batch: BatchRecord) -> Reader:
        return Reader(self._store, self._job_id, self._job, number, batch, self._prices)

    def _check_records(self) -> None:
        """Raise an error if records are gone, here or in a retry, or if a job has ended without outcomes.

        Raises:
            ResultsMissing: that is so.
        """
        if error := lost_records.of_records(self._store, self._job_id, self._job, self._records):
            raise error
        for _, retry in self._retries:
            retry._check_records()
