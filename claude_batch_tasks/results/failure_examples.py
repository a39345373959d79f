"""One example of each way in which requests of a job failed, or answers are not complete: its custom_id, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from msgspec.structs import replace

from claude_batch_tasks.errors import BatchTasksError
from claude_batch_tasks.records import BatchRecord, JobRecord
from claude_batch_tasks.results.failures import Example, FailureCount, explain_result, sum_incomplete, sum_tallies
from claude_batch_tasks.results.reader import as_result
from claude_batch_tasks.results.stored.batch_reader import Reader
from claude_batch_tasks.results.stored.outcomes import Outcome, make_outcome
from claude_batch_tasks.store import ReadableStore
from claude_batch_tasks.wire import failure_types, result_rows

#: The most failure types of a job that have an example, so that a status is read fast.
MAX_EXAMPLES = 20


def show_failures(
    store: ReadableStore, job_id: str, job: JobRecord, records: Sequence[BatchRecord | None]
) -> list[FailureCount]:
    """Return the number of final outcomes that did not succeed, by type, then of answers that are not complete.

    The largest of each come first, and each has an example. For it, one chunk of custom_ids and one of results is read.
    What cannot be read now has no example.
    """
    batches = [(number, batch) for number, batch in enumerate(records) if batch is not None]
    found = [*sum_tallies(batches), *sum_incomplete(batches)]
    shown: list[FailureCount] = []
    for count, where in found:
        batch = records[where[0]] if where is not None and len(shown) < MAX_EXAMPLES else None
        if where is not None and batch is not None:
            with suppress(BatchTasksError, LookupError):
                count = _add_example(store, job_id, job, batch, count, where)
        shown.append(count)
    return shown


def _add_example(
    store: ReadableStore, job_id: str, job: JobRecord, batch: BatchRecord, count: FailureCount, where: Example
) -> FailureCount:
    if job.adopted:
        found = _read_neighbors(store, job_id, batch, where)
    else:
        found = _read_outcome(store, job_id, job, batch, where)
    for custom_id, outcome in found:
        # Results that were fetched again may be in another order.
        row = outcome.row
        found_type = row.type, failure_types.shorten_type(row.error_type), row.incomplete
        if found_type == (count.outcome, count.error_type, count.incomplete):
            return replace(count, example=custom_id, message=explain_result(as_result(custom_id, outcome)))
    return count


def _read_outcome(
    store: ReadableStore, job_id: str, job: JobRecord, batch: BatchRecord, where: Example
) -> Iterator[tuple[str, Outcome]]:
    number, place = where
    custom_id = store.payloads.find_custom_id(job_id, number, place)
    for outcome in Reader(store, job_id, job, number, batch).read_chosen({place: custom_id}):
        yield custom_id, outcome


def _read_neighbors(
    store: ReadableStore, job_id: str, batch: BatchRecord, where: Example
) -> Iterator[tuple[str, Outcome]]:
    """Yield the outcomes of the chunk with the example of an adopted job: only the rows have their custom_ids."""
    number, place = where
    for attempt, _ in batch.layers:
        for chunk in store.results.find_chunks(job_id, number, attempt, [place]).values():
            rows = store.results.read_chunk(job_id, number, attempt, chunk)
            for row, line in result_rows.read_rows(rows, skip_others=True):
                yield row.custom_id, make_outcome(place, "batch", row, line)
