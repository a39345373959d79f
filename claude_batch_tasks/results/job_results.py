"""The results of a whole job: those of its finished batches, or those of some requests."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

from claude_batch_tasks.errors import RequestNotFound
from claude_batch_tasks.outputs import OutputReader
from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.records import BatchRecord, JobRecord
from claude_batch_tasks.results import export, failures, flat_rows
from claude_batch_tasks.results.combined import CombinableStore, Combined
from claude_batch_tasks.results.reader import Order, RequestResult, Type, as_result, open_answers
from claude_batch_tasks.results.request_search import Places, RequestSearch
from claude_batch_tasks.results.stored.batch_reader import Reader
from claude_batch_tasks.store import lost_records

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


class JobResults:
    """The results of one job in the store; the methods of ``BatchJob`` describe what theirs are.

    Args:
        prices: what models cost.
    """

    def __init__(self, store: CombinableStore, job_id: str, prices: Prices) -> None:
        self._store, self._job_id, self._prices = store, job_id, prices

    @cached_property
    def _answers(self) -> OutputReader | None:
        return open_answers(self._store.jobs.read_job(self._job_id))

    def read_results(self, type: Type | None, order: Order, ids: Iterable[str] | None) -> Iterator[RequestResult]:
        """Return the outcomes of finished batches or, if there are ``ids``, those of these requests."""
        if ids is not None:
            _check_choices(type, order)
            return (result for result in self._read_some(*self._search_all_ids(ids)) if type in (None, result.type))
        readers = self._open_readers(type, order)
        return (
            as_result(reader.custom_id(outcome), outcome, self._answers)
            for reader in readers
            for outcome in reader.read_outcomes(type, order)
        )

    def read_combined(self, type: Type | None, order: Order, ids: Iterable[str] | None) -> Iterator[RequestResult]:
        """Return what ``read_results`` does, with the newest outcome of each request, of the job or of a retry."""
        _check_choices(type, order)
        combined = self._combine()
        if ids is None:
            found: Iterator[export.NamedOutcome] = combined.read_outcomes(type, order)
        else:
            chosen = combined.read_chosen(ids)
            found = (named for named in chosen if type in (None, named[1].type))
        return (as_result(custom_id, outcome, self._answers) for custom_id, outcome in found)

    def find_combined(self, custom_id: str) -> RequestResult:
        """Return the newest outcome of one request."""
        for name, outcome in self._combine().read_chosen([custom_id]):
            return as_result(name, outcome, self._answers)
        return self.find_result(custom_id)  # which says why there is none

    def _combine(self) -> Combined:
        return Combined(self._store, self._job_id, read_job(self._store, self._job_id), self._prices)

    def read_outcomes(self, type: Type | None, order: Order) -> Iterator[export.NamedOutcome]:
        """Return the outcomes of finished batches as they are stored, each with its custom_id."""
        readers = self._open_readers(type, order)
        return ((reader.custom_id(found), found) for reader in readers for found in reader.read_outcomes(type, order))

    def read_failures(self, types: Collection[str] | None) -> Iterator[RequestResult]:
        """Return the outcomes of finished batches that did not succeed, or whose answers are not complete."""
        return (as_result(custom_id, outcome) for custom_id, outcome in self.find_failures(types))

    def find_failures(self, types: Collection[str] | None) -> Iterator[export.NamedOutcome]:
        """Return what ``read_failures`` does as it is stored, each with its custom_id."""
        wanted = failures.make_filter(types)
        job, records = read_job(self._store, self._job_id), self._store.records.find_batches(self._job_id)
        return self._read_failures(job, records, wanted)

    def _read_failures(
        self, job: JobRecord, records: list[BatchRecord | None], wanted: failures.FailureFilter
    ) -> Iterator[export.NamedOutcome]:
        yield from failures.read_failures(self._store, self._job_id, job, records, wanted, self._prices)
        if error := lost_records.of_records(self._store, self._job_id, job, records):
            raise error

    def find_result(self, custom_id: str) -> RequestResult:
        """Return the outcome of one request."""
        job, batches, places = self._search_all_ids([custom_id])
        if not places:
            raise RequestNotFound(f"job {self._job_id} has no request {custom_id!r}: check the custom_id")
        for result in self._read_some(job, batches, places):
            return result
        raise RequestNotFound(
            f"request {custom_id!r} of job {self._job_id} has no outcome yet: try again when "
            "its batch has ended (.status())"
        )

    def export_results(
        self, file: Any, format: str | None, type: Type | None, order: Order, *, with_retries: bool = False
    ) -> int:
        """Write the outcomes of finished batches to a file, and return how many there are."""
        if not with_retries:
            return _write_outcomes(file, format, self.read_outcomes(type, order))
        _check_choices(type, order)
        return _write_outcomes(file, format, self._combine().read_outcomes(type, order))

    def export_failures(self, file: Any, format: str | None, types: Collection[str] | None) -> int:
        """Write what ``read_failures`` returns to a file, and return how many there are."""
        return _write_outcomes(file, format, self.find_failures(types))

    def to_pandas(self, type: Type | None, order: Order) -> pandas.DataFrame:
        """Return the outcomes of finished batches as a pandas DataFrame."""
        return flat_rows.to_pandas(self.read_outcomes(type, order))

    def to_polars(self, type: Type | None, order: Order) -> polars.DataFrame:
        """Return the outcomes of finished batches as a Polars DataFrame."""
        return flat_rows.to_polars(self.read_outcomes(type, order))

    def to_arrow(self, type: Type | None, order: Order) -> pyarrow.Table:
        """Return the outcomes of finished batches as an Arrow table."""
        return flat_rows.to_arrow(self.read_outcomes(type, order))

    def _search_all_ids(self, ids: Iterable[str]) -> tuple[JobRecord, list[BatchRecord], Places]:
        """Return the places of those ids that the job has, after the records of the job and of its batches."""
        job, records = self._store.records.read_job_and_batches(self._job_id)
        if job is None:
            raise lost_records.of_job(self._store, self._job_id)
        search = RequestSearch(self._store, self._job_id, job, records)
        return job, search.batches, search.find_places(ids)

    def _read_some(self, job: JobRecord, batches: list[BatchRecord], places: Places) -> Iterator[RequestResult]:
        """Yield the outcomes of the requests at these places that have a final one."""
        answers = self._answers if job.output is not None else None
        for number, wanted in places.items():
            reader = Reader(self._store, self._job_id, job, number, batches[number], self._prices)
            for outcome in reader.read_chosen(wanted):
                yield as_result(wanted[outcome.place], outcome, answers)

    def _open_readers(self, only: Type | None, order: Order) -> Iterator[Reader]:
        """Return the readers of the batches that are finished by now."""
        _check_choices(only, order)
        return self._make_readers(
            read_job(self._store, self._job_id), self._store.records.find_batches(self._job_id), only
        )

    def _make_readers(self, job: JobRecord, records: list[BatchRecord | None], only: Type | None) -> Iterator[Reader]:
        for number, batch in enumerate(records):
            if batch is not None and batch.done and (only is None or batch.counts.get(only)):
                yield Reader(self._store, self._job_id, job, number, batch, self._prices)
        if error := lost_records.of_records(self._store, self._job_id, job, records):
            raise error


def read_job(store: lost_records.JobsAndPools, job_id: str) -> JobRecord:
    """Return the record of a job.

    Raises:
        JobNotFound: the store has no such job, or it is still a pool of asks.
    """
    if (job := store.jobs.read_job(job_id)) is None:
        raise lost_records.of_job(store, job_id)
    return job


def check_choice(name: str, value: Any, known: tuple[Any, ...]) -> Any:
    """Return the value of an argument if it is a known one.

    Raises:
        ValueError: it is not.
    """
    if value not in known:
        raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")
    return value


def _write_outcomes(file: Any, format: str | None, outcomes: Iterable[export.NamedOutcome]) -> int:
    write = export.FORMATS[export.choose_format(file, format)]
    with export.open_output(file) as out:
        return write(outcomes, out)


def _check_choices(type: Any, order: Any) -> None:
    check_choice("type", type, (*get_args(Type), None))
    check_choice("order", order, get_args(Order))
