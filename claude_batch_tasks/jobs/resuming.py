"""Jobs that do not begin with requests: a job that is resumed, and a job made of a batch that was created elsewhere.

Both only write to the store, where workers find what is due.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any, Protocol

from celery import Celery
from celery.result import AsyncResult, EagerResult
from celery.states import FAILURE, SUCCESS
from celery.utils import uuid

from claude_batch_tasks import errors, rules
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import BatchRecord, JobRecord, Summary, Unit, reset_fields
from claude_batch_tasks.results.async_result import JobResult
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import job_summary, message_chain, routing
from claude_batch_tasks.store import history, lost_records, open_store
from claude_batch_tasks.store.interface import HasBatchIds, HasJobs, HasRecords, Ledger

log = get_logger(__name__)

#: The form of Anthropic's batch ids; any other text could make the URL that of something else.
_BATCH_ID = re.compile(r"msgbatch_[A-Za-z0-9_-]{1,200}")

#: Seconds that the lease lasts while a batch's owner is recorded.
_MOMENT = 60.0


def resume(app: Celery, job_id: str, job: JobRecord, options: Mapping[str, Any]) -> AsyncResult[Summary]:
    """Resume a failed job where it stands: the batches that it has created are polled, and never created again.

    A job that ended otherwise is resumed too if some of its requests have no outcome.

    Args:
        options: the job's settings from now on; they override those it had.

    Raises:
        JobNotResumable: the job runs, is revoked or has all its outcomes, or what it needs is gone.
        InvalidSettings: an option is unknown or makes no sense.
        StoreUnavailable: the store does not answer.
    """
    settings = Settings.of(app)
    store = open_store(settings)
    if job.ended_at is None or job.state == "revoked":
        why = "it has not ended" if job.ended_at is None else f"it is {job.state}"
        raise errors.JobNotResumable(f"job {job_id} cannot be resumed: {why}")
    succeeded = job.state != "failed"
    if succeeded:
        if (fetching := _fetch_again(app, store, job_id, job)) is not None:
            return fetching
        job = _with_lost_batches(store, job_id, job)
    gone = [number for number, record in enumerate(store.records.find_batches(job_id)) if record is None]
    if not job.adopted and any(
        len(store.records.missing_keys(job_id, number, ("body", "ids"))) == 2 for number in gone
    ):
        raise errors.JobNotResumable(f"job {job_id} cannot be resumed: some of what it needs has expired")
    lost_records.replace_lost_batches(store, job_id, job)
    batches = store.records.read_batches(job_id)
    failed = [
        number
        for number, batch in enumerate(batches)
        if batch.error or not batch.done or job_summary.count_unaccounted(batch)
    ]
    if job.state != "failed" and not failed:
        raise errors.JobNotResumable(f"job {job_id} cannot be resumed: it is {job.state}")
    if options.get("deadline") is not None:
        options = {**options, "deadline": submission.seconds_until(options["deadline"], lambda: job.submitted_at)}
    job.options = {**job.options, **options}
    settings = settings.override(job.options)
    if job.adopted:
        _check_no_fallback(options)
    # No batch from this number on was ever started, and each waits for its quota.
    unbegun = job.batches
    while unbegun and unbegun - 1 in failed and not _begun(batches[unbegun - 1]):
        unbegun -= 1
    now_due = [number for number in failed if number < unbegun]
    room = max(settings.max_batches_in_flight - len(now_due), 0 if now_due else 1)
    if app.conf.task_always_eager:
        room = job.batches
    admitted = min(unbegun + room, job.batches)
    now_due += range(unbegun, admitted)
    changes = {
        "state": "running",
        "resumed_at": store.now(),
        "ended_at": None,
        "summary": None,
        "error": None,
        "options": job.options,
        "admitted": admitted,
        "stopped": None,
        "not_sent": None,
        "on_result_error": None,
    }
    again = {number: _again(batches[number]) for number in failed}
    if not store.jobs.resume_job(job_id, changes, {number: (number in now_due, *again[number]) for number in failed}):
        raise errors.JobNotResumable(f"job {job_id} cannot be resumed: it has been already")
    text = f"resumed, {len(failed):,} of {job.batches:,} batches"
    history.note(store, Unit(job_id), "resumed", text, batches=len(failed))
    job = store.jobs.read_job(job_id) or job
    if app.conf.task_always_eager:
        return _run_eagerly(app, store, job_id, job, now_due)
    try:
        # The result back end has how the job ended, and get() would return that.
        if succeeded:  # back ends do not overwrite a success
            app.backend.remove_pending_result(app.AsyncResult(job_id))  # type: ignore[attr-defined]
            app.backend.forget(job_id)
        if not message_chain.ignores_result(job):
            app.backend.store_result(
                job_id, job_summary.make_progress(job, store.records.read_batches(job_id)), "PROGRESS"
            )
    except Exception as exc:  # noqa: BLE001 - any back end
        extra = history.fields(Unit(job_id), "progress")
        log.warning("job %s: its AsyncResult still shows how it failed: %s", job_id, exc, extra=extra)
    return JobResult(job_id, app=app, expected=True)


def _fetch_again(app: Celery, store: Ledger, job_id: str, job: JobRecord) -> AsyncResult[Summary] | None:
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


def _with_lost_batches(store: lost_records.Replaceable, job_id: str, job: JobRecord) -> JobRecord:
    """Mark an ended job as failed if records of its batches are gone, so that it can be resumed, and return it.

    What follows the job has already run, and does not run again.
    """
    if lost_records.replace_lost_batches(store, job_id, job):
        store.jobs.update_job(job_id, only=job.state, state="failed", canvas="{}")
        return store.jobs.read_job(job_id) or job
    return job


def _begun(batch: BatchRecord) -> bool:
    return batch.batch_id is not None or batch.intent_at is not None


def _again(batch: BatchRecord) -> tuple[int, dict[str, Any]]:
    """Return the position from which a failed batch goes on, and the changes in its record."""
    turn = batch.turn + 1
    state, rank = ("in_progress", 1) if batch.batch_id else ("creating" if batch.intent_at else "staged", 0)
    # The totals from before this round stay.
    past: Any = batch.rounds[-1] if batch.rounds else BatchRecord(first=0, count=0, body_bytes=0)
    totals = {name: getattr(past, name) for name in ("counts", "usage", "costs", "unpriced", "eligible", "open")}
    return message_chain.position_of(turn, rank), {
        "state": state,
        "turn": turn,
        "attempts_before": batch.attempt,
        "first_lane": batch.first_lane + rules.SENDERS,
        # Counters that lead to giving up begin anew; what is known about the batch stays.
        **reset_fields("resume"),
        **totals,
    }


def adopt(
    app: Celery, batch_id: str, client: str, queue: str | None, options: Mapping[str, Any]
) -> AsyncResult[Summary]:
    """Make a job of a batch that was created elsewhere.

    Raises:
        ValueError: ``batch_id`` is not the id of a batch.
        BatchTasksError: the batch belongs to another job.
        InvalidSettings: an option is unknown or makes no sense.
        StoreUnavailable: the store does not answer.
    """
    if not _BATCH_ID.fullmatch(str(batch_id)):
        raise ValueError(f"batch_id must be Anthropic's id of a batch, msgbatch_..., not {batch_id!r}")
    _check_no_fallback(options)
    options = {**options, "fallback": "off"}
    settings = Settings.of(app).override(options)
    settings.check_client(client)
    store, job_id = open_store(settings), uuid()
    now, route = store.now(), routing.find_route(app, {"queue": queue})
    job = JobRecord(
        nonce=secrets.token_hex(8),
        requests=0,
        batches=1,
        client=client,
        queue=routing.queue_name(route),
        route=routing.encode_route(route),
        options=options,
        adopted=True,
        state="running",
        submitted_at=now,
        started_at=now,
        admitted=1,
    )
    batch = BatchRecord(first=0, count=0, body_bytes=0, state="in_progress", batch_id=batch_id)
    unit, owner, position = Unit(job_id, 0), f"adopt/{uuid()}", message_chain.position_of(0, 1)
    # The job expires unless its first poll keeps it. If this process dies here, a worker finds it without an owner.
    store.jobs.create_job(job_id, job, [batch], settings.result_ttl, staged=False)
    try:
        store.schedule.add_units([unit], now)
        store.leases.acquire_lease(unit, position, owner, _MOMENT)
        holder = store.batch_ids.claim_id(unit, owner, batch_id, instead_of=_nobody(store, batch_id))
        if holder != unit:
            other = holder.job_id if holder else "another"
            raise errors.BatchTasksError(f"batch {batch_id} is that of job {other}: see BatchJob({other!r})")
        store.leases.park_unit(unit, owner, position, now)
    except BaseException:
        store.jobs.delete_job(job_id)
        raise
    history.note(store, Unit(job_id), "adopted", f"adopted {batch_id}", batch_id=batch_id, client=client)
    if app.conf.task_always_eager:
        return _run_eagerly(app, store, job_id, job, [0])
    return JobResult(job_id, app=app, expected=True)


def _check_no_fallback(options: Mapping[str, Any]) -> None:
    if options.get("fallback", "off") != "off":
        raise errors.InvalidSettings("fallback: an adopted batch's requests are not known, and cannot be sent again")


class _Owners(HasBatchIds, HasJobs, Protocol):
    """Who owns which batch id."""


def _nobody(store: _Owners, batch_id: str) -> Unit | None:
    """Return the recorded owner of the batch if its job is gone from the store, else None."""
    holder = store.batch_ids.find_owner(batch_id)
    return holder if holder is not None and store.jobs.read_job(holder.job_id) is None else None


def _run_eagerly(
    app: Celery, store: HasRecords, job_id: str, job: JobRecord, batches: list[int]
) -> AsyncResult[Summary]:
    """Run the batches of a job in this process, and return how the job ended."""
    import claude_batch_tasks.tasks  # noqa: F401 - registers them

    since = {number: store.records.read_position(Unit(job_id, number)) for number in sorted(batches)}
    lines = [message_chain.make_steps(app, job_id, job, number, since=position) for number, position in since.items()]
    value: Any
    state: str
    try:
        value, state = message_chain.run_eagerly(job, lines), SUCCESS
    except errors.BatchTasksError as exc:
        value, state = exc, FAILURE
    return EagerResult(job_id, value, state)
