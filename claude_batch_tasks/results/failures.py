"""Which requests of a job failed, and why: counts by failure type with an example each, and the outcomes themselves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from claude_batch_tasks.records import BatchRecord, JobRecord, PublicStruct
from claude_batch_tasks.results.export import NamedOutcome
from claude_batch_tasks.results.reader import Reader
from claude_batch_tasks.store import ReadableStore
from claude_batch_tasks.wire import failure_types


class FailureCount(PublicStruct, frozen=True, kw_only=True):
    """How many requests of a job failed in one way, with an example."""

    outcome: str
    """``errored``, ``expired`` or ``canceled``."""
    error_type: str | None
    """The error's type, such as ``invalid_request_error``; None if they did not error, or the type is not known."""
    count: int
    example: str | None = None
    """The custom_id of one of them; None: not requested, or not available."""
    message: str | None = None
    """The example's error message."""

    @property
    def type(self) -> str:
        """The failure type, as ``failures()`` and ``retry_failed()`` take it: the error's type, else the outcome."""
        return failure_types.name_type(self.outcome, self.error_type)


class FailureFilter(NamedTuple):
    """Which failures are wanted."""

    types: frozenset[str] | None
    """Failure types; None: all."""

    def accepts(self, outcome: str, error_type: str | None) -> bool:
        """Return whether an outcome is wanted."""
        if outcome == "succeeded":
            return False
        if self.types is None or outcome in self.types:
            return True
        return failure_types.name_type(outcome, failure_types.shorten_type(error_type)) in self.types

    def may_be_in(self, batch: BatchRecord) -> bool:
        """Return whether a finished batch may have such outcomes, by its counts."""
        tallies = failure_types.read_tallies(batch)
        return any(
            self.accepts(tally.outcome, tally.error_type) or (tally.outcome == "errored" and tally.error_type is None)
            for tally in tallies
        )


def make_filter(types: Any) -> FailureFilter:
    """Return a filter for failure types.

    Raises:
        ValueError: these are no failure types.
    """
    if types is None:
        return FailureFilter(None)
    if isinstance(types, (str, bytes)) or not isinstance(types, Collection):
        raise ValueError(f"types must be a collection of failure types, such as ['expired'], not {types!r}")
    for each in types:
        if not isinstance(each, str) or not each:
            raise ValueError(f"types must have texts, such as 'expired' or 'overloaded_error', not {each!r}")
        if each == "succeeded":
            raise ValueError("types must be of failures, and 'succeeded' is none: see results(type='succeeded')")
    return FailureFilter(frozenset(str(failure_types.shorten_type(each)) for each in types))


def read_failures(
    store: ReadableStore,
    job_id: str,
    job: JobRecord,
    records: Sequence[BatchRecord | None],
    wanted: FailureFilter,
) -> Iterator[NamedOutcome]:
    """Yield the wanted outcomes of the finished batches, as they are stored, each with its custom_id."""
    for number, batch in enumerate(records):
        if batch is not None and batch.done and wanted.may_be_in(batch):
            reader = Reader(store, job_id, job, number, batch)
            for outcome in reader.read_outcomes():
                if wanted.accepts(outcome.row.type, outcome.row.error_type):
                    yield reader.custom_id(outcome), outcome


def count_failures(batches: Sequence[BatchRecord]) -> list[FailureCount]:
    """Return the number of final outcomes that did not succeed, by type, the largest first, without examples."""
    return [count for count, _ in sum_tallies(enumerate(batches))]


def count_by_type(counts: Iterable[FailureCount]) -> dict[str, int]:
    """Return counts in the form of a summary."""
    return {count.type: count.count for count in counts}


def counts_of_summary(summary: Mapping[str, Any]) -> list[FailureCount]:
    """Return the counts by type that the summary of a job has; one of an earlier release has those by outcome."""
    counted = summary.get("failures")
    if counted is None:
        counted = {outcome: summary[outcome] for outcome in failure_types.FAILED_OUTCOMES}
    return [_count_of_type(name, count) for name, count in counted.items() if count]


def _count_of_type(name: str, count: int) -> FailureCount:
    if name in failure_types.FAILED_OUTCOMES:
        return FailureCount(outcome=name, error_type=None, count=count)
    return FailureCount(outcome="errored", error_type=None if name == failure_types.UNKNOWN else name, count=count)


#: A batch's number, and a position in it.
Example = tuple[int, int]


def sum_tallies(batches: Iterable[tuple[int, BatchRecord]]) -> list[tuple[FailureCount, Example | None]]:
    """Return the counts over all batches, each with where an example is."""
    sums: dict[tuple[str, str | None], int] = {}
    examples: dict[tuple[str, str | None], Example] = {}
    for number, batch in batches:
        for tally in failure_types.read_tallies(batch):
            key = tally.outcome, tally.error_type
            sums[key] = sums.get(key, 0) + tally.count
            if tally.example is not None:
                examples.setdefault(key, (number, tally.example))
    return [
        (FailureCount(outcome=key[0], error_type=key[1], count=count), examples.get(key))
        for key, count in sorted(sums.items(), key=lambda item: -item[1])
    ]
