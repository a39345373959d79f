"""How a worker holds a step's message: the end of an attempt is not the end of the job, and countdowns are our own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from billiard.exceptions import TimeLimitExceeded
from celery.signals import task_revoked
from celery.worker import state
from celery.worker.request import Request

from claude_batch_tasks import errors
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import Unit
from claude_batch_tasks.steps.message_chain import COUNTDOWN, NAME, request_of
from claude_batch_tasks.store import history

log = get_logger(__name__)


class StepRequest(Request):
    """A step's message, as a worker holds it.

    Celery would store a failure for every task in the rest of its chain. The last of these has the job's own id, so
    the caller would see that the job has failed.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        """Compute the due time by this worker's clock; Celery uses the sender's, which may be an hour ahead."""
        super().__init__(*args, **options)
        countdown = self.request_dict.get(COUNTDOWN)
        if self.eta is not None and countdown is not None:
            assert self.app is not None
            self._eta = self.app.now() + timedelta(seconds=countdown)

    def revoked(self) -> bool:
        """Return whether the message must not run; a revoked job ends at the latest after the step that is running.

        A revoke names the job's id, which only the job's first and last messages have.
        """
        request: Any = self
        job_id = self.args[0] if self.args else None
        if not isinstance(job_id, str) or job_id == self.id or job_id not in state.revoked or request._already_revoked:
            return bool(super().revoked())
        try:
            self._end_job(job_id)
        except errors.BatchTasksError as exc:
            extra = history.fields(Unit(job_id), "waiting")
            log.warning("job %s: revoked, and ends at its next step: %s", job_id, exc, extra=extra)
            return False
        state.task_ready(self)
        self.acknowledge()
        request._already_revoked = True
        return True

    def _end_job(self, job_id: str) -> None:
        """Report once that a running job was revoked, as Celery does."""
        assert self.app is not None
        task: Any = self.app.tasks[NAME + "run_batch"]
        store, _, job = task.open_job(job_id)
        if job is None or not store.jobs.update_job(job_id, only="running", state="revoked", ended_at=store.now()):
            return
        text = "job %s: revoked. Its batches at Anthropic continue there, and nothing more is sent"
        log.warning(text, job_id, extra=history.fields(Unit(job_id), "finished", state="revoked"))
        request, how = request_of(job, job_id), {"terminated": False, "signum": None, "expired": False}
        events: Any = getattr(self, "_eventer", None)
        if events and events.enabled and task.send_events:
            events.send("task-revoked", uuid=job_id, **how)
        task.backend.mark_as_revoked(job_id, "revoked", request=request, store_result=not request.ignore_result)
        task_revoked.send(sender=task, request=request, **how)

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> None:
        """Handle a lack of memory like a lost process; ``on_timeout`` handles a time limit."""
        exception = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps it
        if isinstance(exception, MemoryError):
            # Celery would end the whole worker.
            state.task_ready(self)
            self.reject(requeue=True)
        elif not isinstance(exception, TimeLimitExceeded):
            super().on_failure(exc_info, *args, **kwargs)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Return the message to the broker; its next receiver takes over when the killed process's lease ends."""
        if soft:
            super().on_timeout(soft, timeout)
            return
        state.task_ready(self)
        job_id = str(self.args[0] if self.args else self.id)
        text = "job %s: hard time limit (%g s) exceeded for %s[%s]; the step is retried"
        extra = history.fields(Unit(job_id), "interrupted")
        log.warning(text, job_id, timeout, self.name, self.id, extra=extra)
        self.reject(requeue=True)


class EndRequest(StepRequest):
    """The message that ends a job, run as ``run_batch``: signals and trackers know it by the name of that task."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Run the message as one of ``run_batch``; its name on the wire stays, for older workers."""
        super().__init__(*args, **options)
        assert self.app is not None
        self._type: str = NAME + "run_batch"
        self._task = self.app.tasks[self._type]
