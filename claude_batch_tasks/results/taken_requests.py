"""Which requests of a job its retry jobs took."""

from __future__ import annotations

from claude_batch_tasks.errors import ResultsMissing
from claude_batch_tasks.formatting import format_count
from claude_batch_tasks.records import JobRecord, batch_number
from claude_batch_tasks.store import HasRetries
from claude_batch_tasks.wire.positions import Positions


def read_taken(store: HasRetries, job_id: str, job: JobRecord, batch: int) -> list[Positions]:
    """Return which requests of a batch each retry job of the job took, in the order of the retries.

    Raises:
        ResultsMissing: the store has lost it.
    """
    found = [Positions(bits) for bits in store.retries.read_taken(job_id, batch, len(job.retries))]
    for retry, places in zip(job.retries, found, strict=True):
        if len(places) != (expected := retry.taken.get(str(batch), 0)):
            raise ResultsMissing(
                f"job {job_id}, batch {batch_number(batch)} of {job.batches}: which "
                f"{format_count(expected, 'request')} its retry {retry.job_id} took is gone from the store, or was "
                "changed there. Nothing of this batch is sent again: it may be paid for already",
                expected,
            )
    return found
