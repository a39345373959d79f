"""The start of a retry: its requests are copied, then it is made and takes them in one step of the store.

Before that step nothing exists but staged requests, which expire. After it, the retry is due, and workers find it in
the store: a process that dies here leaves either nothing or a job that runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from celery import Celery
from celery.result import AsyncResult
from celery.utils import uuid

from claude_batch_tasks import errors
from claude_batch_tasks.jobs import eager_run, resuming
from claude_batch_tasks.jobs.retries import reading, recording
from claude_batch_tasks.jobs.retries.choosing import Choice
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.records import JobRecord, Summary, Unit
from claude_batch_tasks.results.async_result import JobResult
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import Store, open_store

#: Choices that are made if other retries of the same job are begun meanwhile.
_TRIES = 5


def retry_job(
    app: Celery, job_id: str, job: JobRecord, types: Collection[str] | None, options: Mapping[str, Any]
) -> AsyncResult[Summary]:
    """Start a job of those requests that failed; see ``BatchJob.retry_failed``."""
    check_parent(job_id, job)
    store = open_store(Settings.of(app))
    for _ in range(_TRIES):
        if (parent := store.jobs.read_job(job_id)) is None:
            raise errors.JobNotFound(f"no job {job_id} in the store: its record has expired, or was deleted")
        check_parent(job_id, parent)
        choice = Choice(store, types)
        choice.choose_from(job_id, parent)
        if not choice.count:
            raise errors.NothingToRetry(choice.explain(job_id))
        if (started := _start_retry(app, store, job_id, parent, choice, options)) is not None:
            return started
    raise errors.BatchTasksError(
        f"other retries of job {job_id} were started at the same time, {_TRIES} times in a row. Nothing was sent; see "
        f"BatchJob({job_id!r}).status().retries, then call retry_failed() again"
    )


def check_parent(job_id: str, job: JobRecord) -> None:
    """Check that requests of a job may be sent again.

    Raises:
        RequestsUnknown: the job was adopted.
        JobRunning: the job has not ended.
        NothingToRetry: the job was revoked.
    """
    if job.adopted:
        raise errors.RequestsUnknown(
            f"job {job_id} was adopted: its requests were never here, so they cannot be sent again. "
            f"BatchJob({job_id!r}).failures() has their custom_ids: submit those requests with run_batch"
        )
    if job.ended_at is None:
        raise errors.JobRunning(
            f"job {job_id} is {job.state}: the job may still send again what has failed in it. Wait for its end, or "
            "cancel() it, then call retry_failed()"
        )
    if job.state == "revoked":
        raise errors.NothingToRetry(
            f"job {job_id} was revoked, so it is not known which of its requests were sent. See the Console before "
            "you submit any of them again"
        )


def _start_retry(
    app: Celery, store: Store, parent_id: str, parent: JobRecord, choice: Choice, options: Mapping[str, Any]
) -> AsyncResult[Summary] | None:
    """Make the retry of a choice and return its result; None: the choice is out of date, and nothing was made."""
    job_id, count = uuid(), choice.count
    job, settings = recording.make_record(app, parent_id, parent, options, store)
    staging = submission.Staging(store, settings, job_id)
    eager = app.conf.task_always_eager
    try:
        staging.stage_requests(reading.read_requests(store, choice.chosen))
        job.nonce, job.requests, job.batches = staging.nonce, staging.total, len(staging.batches)
        job.models, job.model, job.sources = staging.models, staging.model, choice.sources
        job.submitted_at = job.started_at = store.now()
        job.admitted = job.batches if eager else min(job.batches, settings.max_batches_in_flight)
        due = () if eager else range(job.admitted)
        if not _create_retry(store, job_id, job, staging, choice, parent_id, due):
            staging.discard_requests()
            return None
    except BaseException:
        staging.discard_requests()  # not the job: if it was made, it runs
        raise
    # Results are read as one through all jobs in between, also through a retry from which nothing is taken any more.
    with suppress(errors.StoreUnavailable):
        for each in choice.jobs:
            store.retries.extend_job(each, settings.result_ttl)
        if not eager:  # as run_batch does it; else the search for lost records warns that a unit is missing
            store.schedule.add_units([Unit(job_id)], job.started_at)
    recording.note_retry(store, parent_id, job_id, job, count)
    if eager:
        return eager_run.run_job_eagerly(app, store, job_id, job, range(job.batches))
    resuming.show_as_running(app, store, job_id, job, forget=False)
    return JobResult(job_id, app=app, expected=True)


def _create_retry(
    store: Store,
    job_id: str,
    job: JobRecord,
    staging: submission.Staging,
    choice: Choice,
    parent_id: str,
    due: Collection[int],
) -> bool:
    """Make the retry; return whether it is there.

    Raises:
        StoreUnavailable: that is not known.
    """
    try:
        made = store.retries.create_retry(job_id, job, staging.batches, choice.list_claims(parent_id), due)
        return made or staging.find_job() is not None  # the client may have asked twice
    except errors.StoreUnavailable as exc:
        with suppress(errors.StoreUnavailable):
            if staging.find_job() is not None:  # only the answer was lost
                return True
        raise errors.StoreUnavailable(
            f"{exc}. Whether retry {job_id} of job {parent_id} was started is not known yet: once the store answers, "
            f"BatchJob({parent_id!r}).status().retries has it if so. Calling retry_failed() again pays nothing twice"
        ) from None
