"""The resuming of jobs: it only writes to the store, where workers find what is due."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Celery
from celery.result import AsyncResult

from claude_batch_tasks.errors import JobNotResumable
from claude_batch_tasks.jobs import restoring, resume_plan
from claude_batch_tasks.jobs.eager_run import run_job_eagerly
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import JobRecord, Summary, Unit
from claude_batch_tasks.results.async_result import JobResult
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import job_summary, message_chain
from claude_batch_tasks.store import HasRecords, history, open_store

log = get_logger(__name__)


def resume_job(app: Celery, job_id: str, job: JobRecord, options: Mapping[str, Any]) -> AsyncResult[Summary]:
    """Resume a failed job where it stands: the batches that it has created are polled, and never created again.

    A job that ended otherwise is resumed too if some of its requests have no outcome.

    Args:
        options: the job's settings from now on; they override those it had.

    Raises:
        JobNotResumable: the job runs, is revoked or has all its outcomes, or what it needs is gone.
        InvalidSettings: an option is unknown or is not valid.
        StoreUnavailable: the store does not answer.
    """
    settings = Settings.of(app)
    store = open_store(settings)
    if job.ended_at is None:
        raise _make_refusal(job_id, "it has not ended")
    if job.state == "revoked":
        raise _make_refusal(job_id, "it is revoked")
    succeeded = job.state != "failed"
    if succeeded:
        if (fetching := restoring.fetch_lost_rows(app, store, job_id, job)) is not None:
            return fetching
        job = restoring.fail_incomplete_job(store, job_id, job)
    restoring.replace_lost_batches(store, job_id, job)
    batches = store.records.read_batches(job_id)
    unfinished = resume_plan.find_unfinished(batches)
    if job.state != "failed" and not unfinished:
        raise _make_refusal(job_id, f"it is {job.state}")
    job.options = resume_plan.choose_options(job, options)
    settings = settings.of_job(job)
    eager = app.conf.task_always_eager
    plan = resume_plan.plan_resume(job, batches, unfinished, settings, now=store.now(), eager=eager)
    if not store.jobs.resume_job(job_id, plan.job, plan.batches):
        raise _make_refusal(job_id, "it has been already")
    text = f"resumed, {len(unfinished):,} of {job.batches:,} batches"
    history.note(store, Unit(job_id), "resumed", text, job=job, batches=len(unfinished))
    job = store.jobs.read_job(job_id) or job
    if eager:
        return run_job_eagerly(app, store, job_id, job, plan.due)
    show_as_running(app, store, job_id, job, forget=succeeded)
    return JobResult(job_id, app=app, expected=True)


def _make_refusal(job_id: str, why: str) -> JobNotResumable:
    return JobNotResumable(f"job {job_id} cannot be resumed: {why}. Nothing was changed or sent")


def show_as_running(app: Celery, store: HasRecords, job_id: str, job: JobRecord, *, forget: bool) -> None:
    """Replace how the job ended in the result back end: ``get()`` would return that."""
    try:
        if forget:  # back ends do not overwrite a success
            app.backend.remove_pending_result(app.AsyncResult(job_id))  # type: ignore[attr-defined]
            app.backend.forget(job_id)
        if not message_chain.ignores_result(job):
            app.backend.store_result(
                job_id, job_summary.make_progress(job, store.records.read_batches(job_id)), "PROGRESS"
            )
    except Exception as exc:  # noqa: BLE001 - any back end
        extra = history.fields(Unit(job_id), "progress")
        log.warning("job %s: its AsyncResult still shows the failure: %s", job_id, exc, extra=extra)
