"""How applications end a job: a job that runs is canceled, a job that has ended is deleted."""

from __future__ import annotations

from typing import Protocol

from celery import Celery
from kombu.exceptions import OperationalError

from claude_batch_tasks.errors import JobRunning
from claude_batch_tasks.jobs.job_status import ENDED
from claude_batch_tasks.records import JobRecord, Unit
from claude_batch_tasks.results.job_results import read_job
from claude_batch_tasks.steps import message_headers, routing
from claude_batch_tasks.store import HasPools, HasSchedule, HasTransactions, Ledger, history


class _Cancelable(history.JournalOfJobs, HasSchedule, HasTransactions, Protocol):
    """What it takes to cancel a job."""


def cancel_job(app: Celery, store: _Cancelable, job_id: str, job: JobRecord) -> None:
    """Record that a job is to be canceled, and send a message for each of its batches; see ``BatchJob.cancel``.

    In a transaction of the caller's, workers cancel it after the commit.

    Raises:
        kombu.exceptions.OperationalError: the broker does not answer; the job is canceled later.
    """
    from claude_batch_tasks.tasks import cancel_batch

    if job.state in ENDED:
        return
    store.jobs.update_job(job_id, cancel_requested=True)
    history.note(store, Unit(job_id), "cancel", "cancel requested", job=job)
    # If the messages get lost, the next poll cancels.
    store.schedule.wake_units(Unit(job_id, number) for number in range(job.batches))
    if store.transactions.current() is not None:
        return  # a message would cancel before the commit, and after a rollback
    task = app.tasks[cancel_batch.name]
    try:
        for number in range(job.batches):
            task.apply_async(
                (job_id, number),
                **message_headers.headers_option(job),
                **routing.follow_route(app, job, task.name),
            )
    except OperationalError as exc:
        raise OperationalError(
            f"the broker does not answer ({exc}). The store has that job {job_id} is to be canceled, and a worker "
            "cancels it later: nothing needs to be repeated"
        ) from exc


class _Deletable(Ledger, HasPools, Protocol):
    """What it takes to delete a job."""


def delete_job(store: _Deletable, job_id: str) -> None:
    """Remove all of a job from the store, if it has ended or has not begun; see ``BatchJob.delete``."""
    # A job that has not begun is revoked first: a worker that takes its message now must not pay for it.
    if not store.jobs.update_job(job_id, only="staged", state="revoked", ended_at=store.now()):
        state = read_job(store, job_id).state
        if state not in ENDED:
            raise JobRunning(
                f"job {job_id} is {state}, and answers that are paid for would be lost; "
                "cancel() it, and delete it when it has ended"
            )
    store.storage.delete_job(job_id, remember=True)
