"""What an application may do to a job: cancel, delete and resume it, retry what failed, redeliver its answers."""

from __future__ import annotations

from celery import Celery

from claude_batch_tasks.jobs.ending import cancel_job as cancel_job, delete_job as delete_job
from claude_batch_tasks.jobs.resuming import resume_job as resume_job
from claude_batch_tasks.jobs.retries import retry_job as retry_job
from claude_batch_tasks.lifecycle import delivery
from claude_batch_tasks.records import JobRecord
from claude_batch_tasks.store import Store


def redeliver_job(app: Celery, store: Store, job_id: str, job: JobRecord, *, everything: bool) -> int:
    """Have a job's answers handed over again; see ``BatchJob.redeliver``."""
    return delivery.redeliver_results(app, store, job_id, job, everything=everything)
