"""The task ``finish_job``, which ends the job when all its batches have finished."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from celery.exceptions import Ignore, Reject
from celery.states import FAILURE, SUCCESS
from kombu.exceptions import OperationalError

from claude_batch_tasks import errors
from claude_batch_tasks.lifecycle import closing, job_failure, pools
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import JobRecord, Summary, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import (
    ENDED,
    NAME,
    BatchTask,
    Decision,
    Done,
    Drop,
    JobEnded,
    Step,
    StepTask,
    job_summary,
    job_task,
    message_headers,
    publishing,
)
from claude_batch_tasks.store import history

log = get_logger(__name__)

#: Seconds before a job's result is stored again that the result back end did not accept.
_RESULT_AGAIN = 5.0


class FinishJob(StepTask):
    """The task ``finish_job``: it ends the job when all its batches have finished.

    A worker runs it as ``run_batch``, which is the task that the caller knows.
    """

    abstract = True
    Request = "claude_batch_tasks.steps.time_limit:EndRequest"
    last = True
    waits = False
    ignore_result = False

    @property
    def send_events(self) -> bool:  # type: ignore[override]
        """The value of ``run_batch``, which is known by the job's id."""
        return bool(self.app.tasks[NAME + "run_batch"].send_events)

    @property
    def trail(self) -> bool:  # type: ignore[override]
        """The value of ``run_batch``, which is known by the job's id."""
        return bool(self.app.tasks[NAME + "run_batch"].trail)

    def unit(self, job_id: str, batch: int, turn: int) -> Unit:
        """Return the unit of the job."""
        return Unit(job_id)

    def position(self, turn: int, seq: int) -> int:
        """Return 0: the unit has no sequence, and a retry is no new position."""
        return 0

    def position_after(self, turn: int) -> int:
        """Return the position at the end of the job's life."""
        return ENDED

    def go_on(self, job_id: str, batch: int = 0, turn: int = 0, seq: int = 0) -> Any:
        """End the job: quietly if another message ends it, and with the job's headers on the tasks linked to it."""
        message_headers.hand_on_headers(self.request)
        with self.without_trace():
            return super().go_on(job_id, batch, turn, seq)

    def check_job(self, job: JobRecord) -> None:
        """Raise Ignore unless all batches have finished: each batch of an earlier release sends such a message."""
        super().check_job(job)
        if job.through < job.batches:
            raise Ignore("other batches of the job have not finished")

    def end_failed(self, error: errors.BatchTasksError) -> Any:
        """Fail the job as this task's own failure, for ``get()`` and ``link_error``; a job that has ended stays so."""
        job = self.step.job
        return self.end_job(None if job.ended_at is not None else error)

    def end_job(self, own: errors.BatchTasksError | None = None) -> Summary:
        """End the job; return its summary.

        Args:
            own: the job's own error, if no batch failed.

        Raises:
            JobEnded: the job has failed.
        """
        summary, error = closing.end_job(self.step, own)
        if error is not None:
            raise JobEnded(error)
        return summary

    def publish_next_step(self, value: Any) -> None:
        """Publish the tasks that follow the job in the caller's chain.

        The job has finished only when Celery has stored its result.
        """
        self.publish_next(value)

    def publish_next(self, value: Any, pause: float = 0) -> None:
        """Publish the tasks linked to the job, and the next task of the caller's chain, with the job's headers.

        Celery would do it after this task's end, where an outage of the broker ends the chain.

        Raises:
            JobEnded: they cannot be sent, however often it is tried: for the caller that is a failure, as of every
                task.
        """
        request, step = self.request, self.step
        if request.is_eager or not (request.callbacks or request.chain):
            return
        names = _names_of_following(request)
        try:
            publishing.send_what_follows(self.app, request, value, message_headers.headers_of(step.job))
        except Exception as exc:
            outage = publishing.is_outage(self.app, exc)
            if outage is None and not self._failed_too_often(step):
                raise  # this interrupts the step, and is counted
            if outage:
                self.retry_later(OperationalError(f"the tasks that follow the job were not sent: {type(exc).__name__}"))
            raise JobEnded(self._note_not_followed(step, value["state"], names, exc)) from None
        request.callbacks = request.chain = None

    def _note_not_followed(self, step: Step, state: str, names: list[str], exc: Exception) -> Exception:
        """Record that what follows the job cannot be sent; return the error for the caller."""
        setattr(self.request, "not_followed", True)  # noqa: B010 - an attribute of ours on Celery's request
        error = job_failure.of_what_follows(step, state, names, exc)
        with suppress(errors.StoreUnavailable):
            step.store.jobs.update_job(step.unit.job_id, not_sent=str(error))
        step.record_event("not_sent", f"not sent: {' or '.join(names)}: {exc}", error=type(exc).__name__)
        return error

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Finish the unit if the result is stored; otherwise the task comes back."""
        if not self._retry_unsaved():
            self.release_lease()

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Finish the unit if the job's error is stored; otherwise the task comes back, or its step was interrupted."""
        if not self.ends_job(exc):
            super().on_failure(exc, task_id, args, kwargs, einfo)
        elif not self._retry_unsaved():
            self.release_lease()

    def _retry_unsaved(self) -> bool:
        """Retry later if the result back end did not accept the job's end; return whether that is so."""
        step = getattr(self.request, "step", None)
        if not getattr(self.request, "unsaved", False) or step is None or self.request.is_eager:
            return False
        try:
            self.republish(_RESULT_AGAIN, "the result back end did not accept the job's result")
            step.store.leases.advance_unit(step.unit, step.owner, self.position(*step.args[2:]))
        except (Reject, errors.StoreUnavailable) as exc:  # then the message is found lost later
            log.warning("job %s: its result is stored later: %s", step.where, exc, extra=step.fields("waiting"))
        self.request.comes_back = True  # type: ignore[attr-defined]
        return True


def _names_of_following(request: Any) -> list[str]:
    """Return the names of the tasks that are linked to the job, and of the next one of the caller's chain."""
    return [str(task["task"]) for task in [*(request.callbacks or ()), *(request.chain or ())[-1:]]]


@job_task(base=FinishJob, name=NAME + "finish_job")
def finish_job(self: FinishJob, job_id: str, batch: int = 0, turn: int = 0, seq: int = 0) -> Decision:
    """Sum the job up, let its payloads expire in time, and end the caller's AsyncResult."""
    job = self.step.job
    # The state stored under its id may not be how it ended: REVOKED, or a failure that an earlier release took for its
    # own.
    if job.ended_at is not None and self.reported_state(job_id) == (FAILURE if job.error or job.not_sent else SUCCESS):
        return Drop("duplicate")
    return Done(self.end_job())


def fail_unbegun_job(task: BatchTask, unit: Unit, error: errors.StepFailed) -> errors.StepFailed | None:
    """End the job before it was begun; return None if it was begun meanwhile."""
    store = task.store
    job = store.jobs.read_job(unit.job_id)
    if job is None:
        return error
    text = (
        f"job {unit.job_id} failed before it was started: {error}. Its requests are in the store, nothing was "
        f"created or billed. When its cause is corrected: BatchJob({unit.job_id!r}).resume()."
    )
    summary = {**job_summary.summarize_job(unit.job_id, job, [], store.now()), "state": "failed"}
    ended = {"state": "failed", "ended_at": store.now(), "error": text, "summary": summary}
    if job.pool is not None:  # before the end is recorded: if this fails, it is done again
        ending = pools.AskEnding(task.app, store, Settings.of(task.app), unit.job_id, job)
        pools.fail_asks_of_job(ending, errors.StepFailed(text))
    if not store.jobs.update_job(unit.job_id, only="staged", **ended):
        return None
    store.schedule.remove_unit(unit)
    history.note(store, unit, "failed", text, level=logging.WARNING, job=job)
    return errors.StepFailed(text)
