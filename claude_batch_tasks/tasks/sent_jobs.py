"""What follows when a job's message was sent, or when the broker did not take it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from claude_batch_tasks import errors
from claude_batch_tasks.checks import broker_address, presence
from claude_batch_tasks.checks.connections import mask_passwords
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import JobRecord, Unit
from claude_batch_tasks.steps import message_chain, message_headers, publishing
from claude_batch_tasks.store import Clock, HasJobs, HasPresence, HasSchedule, HasStorage, Ledger, history

log = get_logger(__name__)

#: What a refusal says if the job may exist, so that a second call may pay twice.
UNKNOWN = "it is not known whether the job exists"


class _Sendable(HasJobs, HasStorage, HasSchedule, HasPresence, Clock, Protocol):
    """What it takes to record that a job's message is on its way."""


class _Deferrable(Ledger, HasSchedule, Protocol):
    """What it takes to let a job wait for its first message."""


def record_sent(
    app: Celery, store: _Sendable, job_id: str, record: JobRecord, delay: float, seen: list[Mapping[str, Any]]
) -> None:
    """Record when the job's message is due, and the headers that signal handlers added; warn if no worker listens.

    The message was sent, so nothing is raised here: a caller that gets an error submits, and pays for, a second job.
    """
    try:
        store.schedule.add_units([Unit(job_id)], store.now() + delay)
        if seen and (carried := message_headers.add_headers(job_id, record, seen[-1])) != record.headers:
            store.jobs.update_job(job_id, only="staged", headers=carried)
        presence.warn_unserved(app, store, job_id, record)
    except errors.StoreUnavailable:
        pass
    except SoftTimeLimitExceeded:
        raise
    except Exception as exc:  # noqa: BLE001 - the type alone: the text of a broker's address may be in it
        what = type(exc).__name__
        extra = history.fields(Unit(job_id), "sent")
        log.warning("job %s: was sent, but not all of that could be recorded: %s", job_id, what, extra=extra)


def leave_to_workers(
    store: _Deferrable, job_id: str, record: JobRecord, delay: float, headers: Mapping[str, Any]
) -> None:
    """Let a job wait in the store for its first message, as a part of the caller's transaction.

    Args:
        delay: seconds until it is due.
        headers: those of the message that was made of it, and not sent.

    Raises:
        StoreUnavailable: the job was removed again, as far as the transaction allows that.
    """
    carried = message_headers.add_headers(job_id, record, headers)
    canvas = message_chain.add_parent(record, headers)
    try:
        if (carried, canvas) != (record.headers, record.canvas):
            store.jobs.update_job(job_id, only="staged", headers=carried, canvas=canvas)
        store.schedule.add_units([Unit(job_id)], store.now() + delay)
        store.schedule.wait_again([Unit(job_id)], delay)
        if delay <= 0:
            store.schedule.wake_units([Unit(job_id)])  # the commit wakes workers, too
    except errors.StoreUnavailable:
        remove_refused_job(store, job_id)
        raise


def end_refused_job(app: Celery, store: Ledger, job_id: str, exc: Exception) -> None:
    """Remove a job whose message the broker did not take; return only if a worker has begun the job nevertheless.

    Raises:
        BrokerUnavailable: the broker or the result back end does not answer, or the message did not get there in time;
            the text says whether the job exists.
        Exception: the message cannot be made; the job does not exist.
    """
    what = remove_refused_job(store, job_id)
    if what == "begun":
        extra = history.fields(Unit(job_id), "sent")
        log.warning("job %s: the broker took it, although it did not say so", job_id, extra=extra)
    elif publishing.is_backend_error(exc) or publishing.is_outage(app, exc):
        raise errors.BrokerUnavailable(_describe_refusal(app, job_id, exc, what)) from exc
    else:
        raise exc


def remove_refused_job(store: Ledger, job_id: str) -> Literal["begun", "removed", "unknown"]:
    """Remove a job whose message seemed to be refused, and return what has become of it.

    ``begun``: a worker has begun it, so it continues. ``removed``: no worker will. ``unknown``: the store does not
    answer.
    """
    try:
        if not store.jobs.update_job(job_id, only="staged", state="revoked", ended_at=store.now()):
            return "begun" if store.jobs.read_job(job_id) is not None else "removed"
        store.storage.delete_job(job_id)
    except errors.StoreUnavailable:
        extra = history.fields(Unit(job_id), "left_behind")
        log.warning("job %s: its requests could not be removed from the store, and will expire", job_id, extra=extra)
        return "unknown"
    return "removed"


def _describe_refusal(app: Celery, job_id: str, exc: Exception, what: str) -> str:
    if publishing.is_backend_error(exc):
        reason = mask_passwords(str(exc)).partition("\n")[0].rstrip(".")
        text = f"the result back end cannot be used ({reason}), so the message of job {job_id} was not sent"
    else:
        reason = mask_passwords(str(exc)).rstrip(".") or type(exc).__name__
        broker = broker_address.describe_broker(app)
        text = f"the broker at {broker} did not take the message of job {job_id} ({reason})"
    if what == "removed":
        text += (
            ". The job does not exist: its requests were removed from the store, and nothing was sent or paid. Call "
            "run_batch again when it answers: that makes one job"
        )
    else:
        text += (
            f". The store does not answer either, so {UNKNOWN}: its requests may be stored, and a worker may run it. "
            "A second call now may make a second job, and both are paid. When the store answers, call "
            f"BatchJob({job_id!r}).cancel(), which stops the job if it exists; then call again"
        )
    hint = broker_address.explain_default(app)
    return f"{text}. {hint}" if hint else text
