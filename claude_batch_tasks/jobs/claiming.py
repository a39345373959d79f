"""How a job becomes the owner of a batch that was created elsewhere."""

from __future__ import annotations

from typing import Protocol

from celery.utils import uuid

from claude_batch_tasks import errors
from claude_batch_tasks.records import BatchRecord, JobRecord, Unit
from claude_batch_tasks.steps import message_chain
from claude_batch_tasks.store import HasBatchIds, HasJobs, HasLeases, HasSchedule, HasStorage

#: Seconds that the lease lasts while a batch's owner is recorded.
_MOMENT = 60.0


class _Owners(HasBatchIds, HasJobs, HasStorage, Protocol):
    """Who owns which batch id."""


class _Adopting(_Owners, HasLeases, HasSchedule, Protocol):
    """What it takes to store a job that is made of a batch at Anthropic."""


def claim_batch(store: _Adopting, job_id: str, job: JobRecord, batch_id: str, ttl: float) -> None:
    """Make the job exist, as the owner of its batch; if another job owns the batch, nothing is left behind."""
    now, batch = job.submitted_at, BatchRecord(first=0, count=0, body_bytes=0, state="in_progress", batch_id=batch_id)
    unit, owner, position = Unit(job_id, 0), f"adopt/{uuid()}", message_chain.position_of(0, 1)
    # The job expires unless its first poll keeps it. If this process dies here, a worker finds it without an owner.
    store.jobs.create_job(job_id, job, [batch], ttl, staged=False)
    try:
        store.schedule.add_units([unit], now)
        store.leases.acquire_lease(unit, position, owner, _MOMENT)
        holder = store.batch_ids.claim_id(unit, owner, batch_id, instead_of=_find_gone_holder(store, batch_id))
        if holder != unit:
            other = holder.job_id if holder else "another"
            raise errors.BatchTasksError(
                f"batch {batch_id} belongs to job {other}: see BatchJob({other!r}). Nothing was stored or paid"
            )
        store.leases.park_unit(unit, owner, position, now)
    except BaseException:
        store.storage.delete_job(job_id)
        raise


def _find_gone_holder(store: _Owners, batch_id: str) -> Unit | None:
    """Return the recorded owner of the batch if its job is gone from the store, else None."""
    holder = store.batch_ids.find_owner(batch_id)
    return holder if holder is not None and store.jobs.read_job(holder.job_id) is None else None
