"""What becomes of the parts of a job that its store has lost, when the job is resumed."""

from __future__ import annotations

from celery import Celery
from celery.result import AsyncResult
from celery.utils import uuid

from claude_batch_tasks.errors import JobNotResumable
from claude_batch_tasks.records import JobRecord, Summary
from claude_batch_tasks.steps import message_chain
from claude_batch_tasks.store import Ledger, lost_records


def fetch_lost_rows(app: Celery, store: Ledger, job_id: str, job: JobRecord) -> AsyncResult[Summary] | None:
    """Have a worker download the rows of an ended job that the store has lost.

    The job stays as it has ended, since what follows it has already run.

    Returns:
        The result of the worker's task; None if there is nothing that can be restored this way.
    """
    records = store.records.find_batches(job_id)
    if None in records or not lost_records.batches_to_restore(store, job_id, records):
        return None
    import claude_batch_tasks.tasks  # noqa: F401 - registers them

    task_id = uuid()
    message_chain.make_recovery_message(app, job, job_id).apply_async(task_id=task_id)
    return app.tasks[message_chain.NAME + "recover_jobs"].AsyncResult(task_id)  # apply_async() may return None


def fail_incomplete_job(store: lost_records.Replaceable, job_id: str, job: JobRecord) -> JobRecord:
    """Mark an ended job as failed if records of its batches are gone, so that it can be resumed, and return it.

    What follows the job has already run, and does not run again.
    """
    if lost_records.replace_lost_batches(store, job_id, job):
        store.jobs.update_job(job_id, only=job.state, state="failed", canvas="{}")
        return store.jobs.read_job(job_id) or job
    return job


def replace_lost_batches(store: lost_records.Replaceable, job_id: str, job: JobRecord) -> None:
    """Put a record in the place of each batch's that is gone.

    Raises:
        JobNotResumable: the requests of such a batch are gone as well.
    """
    gone = [number for number, record in enumerate(store.records.find_batches(job_id)) if record is None]
    if not job.adopted and any(
        len(store.storage.missing_keys(job_id, number, ("body", "ids"))) == 2 for number in gone
    ):
        raise JobNotResumable(
            f"job {job_id} cannot be resumed: some of what it needs has expired. "
            "Nothing was changed; .results() has the outcomes that are left"
        )
    lost_records.replace_lost_batches(store, job_id, job)
