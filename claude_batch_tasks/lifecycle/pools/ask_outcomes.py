"""The outcomes of asks: read from what a job has stored, and what each means for its ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.records import BatchRecord, JobRecord
from claude_batch_tasks.results.answers_by_reference import Answer
from claude_batch_tasks.results.ask_failures import explain_result, make_error as make_error
from claude_batch_tasks.results.reader import as_result
from claude_batch_tasks.results.stored import sent_ids
from claude_batch_tasks.results.stored.batch_reader import Reader
from claude_batch_tasks.results.stored.outcomes import Outcome
from claude_batch_tasks.store import ReadableStore
from claude_batch_tasks.wire import result_rows

#: The most asks, and bytes of outcomes, that are held at a time.
CHUNK = 500
_CHUNK_BYTES = 4_000_000

#: So many outcomes, or more, are not read one by one.
_FEW = 1000


class AskOutcome(NamedTuple):
    """The outcome of an ask."""

    ask_id: str
    outcome: Outcome

    def choose_end(self, job_id: str) -> Any:
        """Return the ask's answer, or the error that it fails with."""
        kind = self.outcome.type
        if kind == "succeeded":
            return Answer(job_id, self.ask_id)
        return explain_result(job_id, as_result(self.ask_id, self.outcome))

    def sum_cost(self) -> int | None:
        """Return what the ask has cost, in nano-dollars; None: it may have been billed for more than is known."""
        outcome = self.outcome
        attempts = as_result("", outcome).attempts
        unknown = any(attempt.type == "succeeded" and attempt.cost is None for attempt in attempts)
        if unknown or outcome.row.error_type in result_rows.MAY_BE_BILLED:
            return None
        return round(sum(attempt.cost or 0.0 for attempt in attempts) * 1_000_000_000)


def load_ids(store: ReadableStore, job_id: str, job: JobRecord, number: int, batch: BatchRecord) -> Any:
    """Return the ids of a batch's asks by the position of their requests.

    Raises:
        ResultsMissing: they are gone.
    """
    return sent_ids.load_custom_ids(store, job_id, job, number, batch)


def read_chunks(
    store: ReadableStore,
    job_id: str,
    job: JobRecord,
    number: int,
    batch: BatchRecord,
    wanted: bytearray,
    prices: Prices,
    only: str | None = None,
) -> Iterator[dict[int, AskOutcome]]:
    """Yield outcomes of a batch by the position of their requests in it, as many at a time as may be held.

    Args:
        wanted: whether each is wanted, by position.
        only: the type of outcome; None: all types.

    Raises:
        ResultsMissing: some of them are gone, or the custom_ids are.
    """
    names = load_ids(store, job_id, job, number, batch)
    rows = Reader(store, job_id, job, number, batch, prices)
    if (count := wanted.count(1)) <= _FEW and 2 * count < batch.count:
        found = rows.read_chosen({place: names[place] for place in range(batch.count) if wanted[place]})
    else:
        found = (outcome for outcome in rows.read_outcomes() if wanted[outcome.place])
    for chunk in _cut_chunks(outcome for outcome in found if only in (None, outcome.type)):
        yield {outcome.place: AskOutcome(names[outcome.place], outcome) for outcome in chunk}


def _cut_chunks(outcomes: Iterable[Outcome]) -> Iterator[list[Outcome]]:
    chunk: list[Outcome] = []
    size = 0
    for outcome in outcomes:
        chunk.append(outcome)
        size += len(outcome.line)
        if len(chunk) >= CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
