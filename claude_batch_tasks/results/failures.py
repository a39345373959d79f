"""Which requests of a job failed, or have answers that are not complete, and why.

That is: counts by type with an example each, and the outcomes themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.records import BatchRecord, JobRecord, PublicStruct
from claude_batch_tasks.results.export import NamedOutcome
from claude_batch_tasks.results.reader import RequestResult
from claude_batch_tasks.results.stored.batch_reader import Reader
from claude_batch_tasks.store import ReadableStore
from claude_batch_tasks.wire import answer_texts, answers, failure_types

#: The type that stands for all answers that are not complete.
ALL_INCOMPLETE = "incomplete"


class FailureCount(PublicStruct, frozen=True, kw_only=True):
    """How many requests of a job failed in one way, or have answers that are not complete, with an example."""

    outcome: str
    """``errored``, ``expired`` or ``canceled``; ``succeeded``: these are answers that are not complete."""
    error_type: str | None
    """The error's type, such as ``invalid_request_error``; None if they did not error, or the type is not known."""
    count: int
    example: str | None = None
    """The custom_id of one of them; None: not requested, or not available."""
    message: str | None = None
    """The example's error message, or what its answer lacks."""
    incomplete: str | None = None
    """Why the answers are not complete, as ``RequestResult.incomplete``; None: these requests failed."""

    @property
    def type(self) -> str:
        """The type, as ``failures()`` takes it: the error's type, else the outcome, or why answers are not complete."""
        return self.incomplete or failure_types.name_type(self.outcome, self.error_type)


class FailureFilter(NamedTuple):
    """Which failures, and which answers that are not complete, are wanted."""

    types: frozenset[str] | None
    """Failure types, and reasons; None: all."""

    def accepts(self, outcome: str, error_type: str | None, incomplete: str | None = None) -> bool:
        """Return whether an outcome is wanted.

        Args:
            incomplete: why the answer is not complete; None: it is, or there is none.
        """
        if outcome == "succeeded":
            return incomplete is not None and (
                self.types is None or not self.types.isdisjoint((incomplete, ALL_INCOMPLETE))
            )
        if self.types is None or outcome in self.types:
            return True
        return failure_types.name_type(outcome, failure_types.shorten_type(error_type)) in self.types

    def may_be_in(self, batch: BatchRecord) -> bool:
        """Return whether a finished batch may have such outcomes, by its counts."""
        tallies = failure_types.read_tallies(batch)
        return any(
            self.accepts(tally.outcome, tally.error_type) or (tally.outcome == "errored" and tally.error_type is None)
            for tally in tallies
        ) or any(self.accepts("succeeded", None, reason) for reason in batch.incomplete if reason in answers.INCOMPLETE)


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


def make_retry_filter(types: Any) -> FailureFilter:
    """Return a filter for the types of failures that are to be sent again, which no answer passes.

    Raises:
        ValueError: these are no failure types.
    """
    wanted = make_filter(types)
    for each in sorted((wanted.types or frozenset()) & {*answers.INCOMPLETE, ALL_INCOMPLETE}):
        option = _OPTIONS.get(each)
        advice = f": submit with the option {option} to have them repaired" if option else ""
        raise ValueError(
            f"types must be of failures, and {each!r} is none: these requests have answers that are paid for, and are "
            f"not sent again here{advice}. See failures([{each!r}])"
        )
    return wanted


#: The options with which answers are repaired, by why they are not complete.
_OPTIONS = {
    "refusal": "refusal_model",
    "max_tokens": "max_tokens_limit",
    "pause_turn": "continue_paused",
    "invalid": "reask",
    ALL_INCOMPLETE: "refusal_model, max_tokens_limit, continue_paused or reask",
}


def read_failures(
    store: ReadableStore,
    job_id: str,
    job: JobRecord,
    records: Sequence[BatchRecord | None],
    wanted: FailureFilter,
    prices: Prices,
) -> Iterator[NamedOutcome]:
    """Yield the wanted outcomes of the finished batches, as they are stored, each with its custom_id."""
    for number, batch in enumerate(records):
        if batch is not None and batch.done and wanted.may_be_in(batch):
            reader = Reader(store, job_id, job, number, batch, prices)
            for outcome in reader.read_outcomes():
                if wanted.accepts(outcome.type, outcome.row.error_type, outcome.row.incomplete):
                    yield reader.custom_id(outcome), outcome


def name_result(result: RequestResult) -> str:
    """Return the type of a result, as ``failures()`` takes it."""
    return result.incomplete or failure_types.name_type(result.type, result.error_type)


def explain_result(result: RequestResult) -> str | None:
    """Return what the error of a request says, or what its answer lacks and why it was not repaired; None: nothing."""
    if result.incomplete is None:
        return result.error_message
    lacks = result.parse_error or answer_texts.MEANINGS[result.incomplete]
    failed = [attempt for attempt in result.attempts[-1:] if attempt.type != "succeeded"]
    repair = [f"its repair failed ({attempt.error_type or attempt.type})" for attempt in failed]
    return "; ".join([lacks, *repair, *([result.note] if result.note else [])])


def count_failures(batches: Sequence[BatchRecord]) -> list[FailureCount]:
    """Return the number of final outcomes that did not succeed, by type, and of answers that are not complete.

    The largest first, without examples.
    """
    counted = list(enumerate(batches))
    return [count for count, _ in (*sum_tallies(counted), *sum_incomplete(counted))]


def only_failed(counts: Iterable[FailureCount]) -> list[FailureCount]:
    """Return the counts of requests that did not succeed."""
    return [count for count in counts if count.incomplete is None]


def count_by_type(counts: Iterable[FailureCount]) -> dict[str, int]:
    """Return the counts of requests that did not succeed in the form of a summary."""
    return {count.type: count.count for count in only_failed(counts)}


def counts_of_summary(summary: Mapping[str, Any]) -> list[FailureCount]:
    """Return the counts by type that the summary of a job has; one of an earlier release has those by outcome."""
    counted = summary.get("failures")
    if counted is None:
        counted = {outcome: summary[outcome] for outcome in failure_types.FAILED_OUTCOMES}
    failed = [_count_of_type(name, count) for name, count in counted.items() if count]
    return [*failed, *_count_reasons(summary.get("incomplete") or {})]


def _count_reasons(incomplete: Mapping[str, int]) -> list[FailureCount]:
    known = [(reason, count) for reason, count in incomplete.items() if reason in answers.INCOMPLETE and count]
    return [
        FailureCount(outcome="succeeded", error_type=None, count=count, incomplete=reason)
        for reason, count in sorted(known, key=lambda item: -item[1])
    ]


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


def sum_incomplete(batches: Iterable[tuple[int, BatchRecord]]) -> list[tuple[FailureCount, Example | None]]:
    """Return how many answers are not complete over all batches, by reason, each with where an example may be."""
    counts, examples = [], dict[str, Example]()
    for number, batch in batches:
        counts.append(answer_texts.count_reasons(batch))
        for reason in batch.incomplete.keys() & batch.incomplete_examples.keys():
            examples.setdefault(reason, (number, batch.incomplete_examples[reason]))
    return [(count, examples.get(count.type)) for count in _count_reasons(answers.merge_reasons(*counts))]
