"""The result back end as our tasks use it: one that does not answer, or refuses, ends no step."""

from __future__ import annotations

import time
from typing import Any

from kombu.exceptions import EncodeError

from claude_batch_tasks import errors
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.steps import publishing

log = get_logger(__name__)

#: Seconds without reports of single steps to a back end that failed: each try may take minutes.
_PAUSE = 30.0

_RUN_BATCH, _FINISH_JOB = "claude_batch_tasks.run_batch", "claude_batch_tasks.finish_job"

#: The end of the pause, by ``time.monotonic``.
_paused_until = 0.0


class Forgiving:
    """A result back end whose failures are only logged.

    Celery would end the task, and mark the tasks that follow it as failed. The result of a job is stored again later:
    its request then has ``unsaved`` set.

    Args:
        backend: Celery's back end.
        courtesy: nobody waits for the stored value.
    """

    def __init__(self, backend: Any, *, courtesy: bool) -> None:
        self._backend = backend
        self._courtesy = courtesy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def __reduce__(self) -> Any:
        return self._backend.__reduce__()

    def mark_as_done(self, task_id: str, *args: Any, **kwargs: Any) -> Any:
        """Store a success as Celery's back end does."""
        return self._try_storing("mark_as_done", task_id, args, kwargs)

    def mark_as_failure(self, task_id: str, *args: Any, **kwargs: Any) -> Any:
        """Store a failure as Celery's back end does."""
        return self._try_storing("mark_as_failure", task_id, args, kwargs)

    def mark_as_retry(self, task_id: str, *args: Any, **kwargs: Any) -> Any:
        """Store a retry as Celery's back end does."""
        return self._try_storing("mark_as_retry", task_id, args, kwargs)

    def _try_storing(self, method: str, task_id: str, args: Any, kwargs: Any) -> Any:
        global _paused_until
        if self._courtesy and time.monotonic() < _paused_until:
            return None
        try:
            return getattr(self._backend, method)(task_id, *args, **kwargs)
        except Exception as exc:
            if isinstance(exc, EncodeError) and method == "mark_as_done" and not self._courtesy:
                raise  # Celery turns it into a failure
            if method == "mark_as_failure" and publishing.is_outage(self._backend.app, exc) is False:
                # The failure is stored. The tasks linked to it cannot be sent, however often that is tried.
                log.exception(
                    "job %s: tasks linked to its failure were not sent: %s: %s", task_id, type(exc).__name__, exc
                )
                return None
            log.warning(
                "the result back end did not accept the state of task %s: %s: %s", task_id, type(exc).__name__, exc
            )
            _paused_until = time.monotonic() + _PAUSE
            if (request := _request_of(method, args, kwargs)) is not None:
                request.unsaved = True
            return None


def _request_of(method: str, args: Any, kwargs: Any) -> Any:
    return kwargs.get("request") or (args[1] if method == "mark_as_done" and len(args) > 1 else None)


class OfJobs(Forgiving):
    """The result back end of a job's tasks: only an error of this package is a failure.

    Celery stores the failure of a task for all tasks that follow in its chain, and the caller waits for the last of
    these. What only interrupted a step (no memory, no thread, a time limit) is no failure of the job.
    """

    def mark_as_failure(self, task_id: str, *args: Any, **kwargs: Any) -> Any:
        """Store an error of this package, or one that stops the job's following tasks from being sent; skip others."""
        exc = args[0] if args else kwargs.get("exc")
        ends = ends_job(exc, kwargs.get("request"))
        return super().mark_as_failure(task_id, *args, **kwargs) if ends else None

    def _try_storing(self, method: str, task_id: str, args: Any, kwargs: Any) -> Any:
        """Store the result under the name of the task that the caller knows: some back ends keep the name."""
        request = _request_of(method, args, kwargs)
        name = getattr(request, "task", None)
        if name != _FINISH_JOB:
            return super()._try_storing(method, task_id, args, kwargs)
        request.task = _RUN_BATCH
        try:
            return super()._try_storing(method, task_id, args, kwargs)
        finally:
            request.task = name


def ends_job(exc: Any, request: Any) -> bool:
    """Return whether the task of a job has failed with this exception, rather than been interrupted.

    An error that is none of this package says why the tasks that follow the job cannot be sent.
    """
    return isinstance(exc, (errors.BatchTasksError, EncodeError)) or bool(getattr(request, "not_followed", False))
