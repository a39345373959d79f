"""What a worker does when one of our tasks has run, or was revoked."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from celery.states import IGNORED, RETRY

from claude_batch_tasks import errors, metrics
from claude_batch_tasks.lifecycle import pools
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import Unit
from claude_batch_tasks.steps.message_chain import NAME
from claude_batch_tasks.store import history

log = get_logger(__name__)

#: The tasks that carry a job's own id.
_OF_THE_JOB = (NAME + "run_batch", NAME + "finish_job")


def release_frames(sender: Any = None, retval: Any = None, state: Any = None, **_: Any) -> None:
    """Release the frames of a task that was retried, or that ended as a duplicate.

    The task's exception refers to a frame of Celery in which it is a variable. Both, and what Celery copied of the
    frames (350 KB for one poll), would stay in memory until Python's full garbage collection: processes grew by 200 MB
    (measured with Celery 5.7.0 on Python 3.11).
    """
    if (
        state in (RETRY, IGNORED)
        and isinstance(retval, Exception)
        and str(getattr(sender, "name", "")).startswith(NAME)
    ):
        retval.__traceback__ = retval.__context__ = retval.__cause__ = None


def end_revoked_job(sender: Any = None, request: Any = None, signum: Any = None, **_: Any) -> None:
    """Mark a revoked job as ended: its stored data expires; its batches continue at Anthropic and are no longer
    polled."""
    if getattr(sender, "name", None) not in _OF_THE_JOB:
        return
    if isinstance(signum, str):
        # This job was not revoked. Celery (5.7) sends this signal for a step that it killed when the broker connection
        # was lost, if the result back end did not answer either: then signum is the text of an exception, not a number.
        extra = history.fields(Unit(request.id), "interrupted")
        log.warning(
            "job %s: a lost connection ended its step; the job continues when the message is found lost",
            request.id,
            extra=extra,
        )
        return
    with suppress(errors.BatchTasksError):
        store, settings, record = sender.open_job(request.id)
        if record is not None and record.pool is not None:  # first: if it fails, the job's message is found lost
            ending = pools.AskEnding(sender.app, store, settings, request.id, record)
            pools.fail_asks_of_job(ending, errors.StepFailed("its job was revoked"), final=True)
        store.jobs.update_job(request.id, state="revoked", ended_at=store.now())
        metrics.count("jobs_ended", job=record, state="revoked")
        store.schedule.remove_unit(Unit(request.id))
        store.jobs.expire_job(request.id, settings.result_ttl)
