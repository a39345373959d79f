"""The base class of a job's tasks: how a run begins, and what happens to an interrupted run."""

from __future__ import annotations

import contextlib
import signal
import traceback
from typing import Any, NoReturn

from celery.exceptions import Ignore, Reject, Retry, WorkerShutdown, WorkerTerminate
from celery.result import AsyncResult

from claude_batch_tasks import errors
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import Unit
from claude_batch_tasks.steps import (
    result_backend,
)
from claude_batch_tasks.steps.batch_task import BatchTask
from claude_batch_tasks.steps.step import Attempt, JobEnded, NotRun
from claude_batch_tasks.steps.task_classes import InnerTask
from claude_batch_tasks.store import history

log = get_logger(__name__)


#: The exceptions that end a run of a task without a defect.
_ENDINGS = (Ignore, Reject, Retry, JobEnded)


class JobTask(BatchTask):
    """A task whose end the caller of a job waits for, as the last link of its chain or under the job's own id."""

    abstract = True
    back_end = result_backend.OfJobs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.check_call()
        try:
            return self.go_on(*args, **kwargs)
        except (Ignore, Reject, Retry) as exc:
            end = exc
        except BaseException:
            args, kwargs = (), {}  # messages of an earlier release hold prompts, and trackers show what frames hold
            raise
        # Celery sends a copy of all frames, and the text of all earlier exceptions, to the worker's main process: 60 KB
        # for one poll of a batch. If a pipe (64 KB) cannot hold that, this process waits, and a stop of the worker at
        # that moment hangs (Celery 5.7.0).
        end.__cause__ = end.__context__ = None
        raise end.with_traceback(None)

    def go_on(self, *args: Any, **kwargs: Any) -> Any:
        """Run what the message asks for; an exception raised here is the end of the task."""
        raise NotImplementedError

    def check_call(self) -> None:
        """Refuse a call of the task that does not come from Celery.

        Raises:
            TypeError: the task was called as a function.
        """
        request: Any = self.request
        if request.called_directly or getattr(request, "attempt", None) is not None:
            raise TypeError(self.not_callable())
        request.attempt = Attempt()

    def not_callable(self) -> str:
        """Return the error text for a direct call."""
        return f"{self.name} is a step of a job; workers call it. Nothing was done"

    def call_inside(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task inside the ``__call__`` of the app's task class.

        Raises:
            Ignore, Retry, Reject, JobEnded: how the run ended, even if the class swallowed it.
            NotRun: the class did not run the task.
        """
        attempt: Attempt = getattr(self.request, "attempt")  # noqa: B009 - an attribute of ours on Celery's request
        attempt.ran, attempt.ended_by, value = False, None, None
        try:
            try:
                value = super().__call__(*args, **kwargs)
            except BaseException as exc:
                if stops_worker(exc):
                    raise
                if not (isinstance(exc, Ignore) or isinstance(attempt.ended_by, _ENDINGS)):
                    raise
            if attempt.ended_by is not None:
                raise attempt.ended_by
            if not attempt.ran:
                raise NotRun(f"the __call__ of its task class, {self.app.Task.__mro__[1].__qualname__}, did not run it")
            return value
        finally:
            attempt.ended_by = None  # it refers to frames that refer to it

    def drive(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task; code around it sees an exception only if the job has failed."""
        attempt: Attempt | None = getattr(self.request, "attempt", None)
        if attempt is None:
            raise TypeError(self.not_callable())
        try:
            value = self.work(*args, **kwargs)
        except (Ignore, Reject, Retry) as end:
            attempt.ended_by = end
            return str(end)
        except JobEnded as end:
            attempt.ended_by = end
            raise end.error from None
        except BaseException as exc:
            attempt.ended_by = exc
            raise
        attempt.ran = True
        return value

    def work(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body of the task."""
        return self.body(*args, **kwargs)

    def send(self, *args: Any, **options: Any) -> AsyncResult[Any]:
        """Send a message of a running job at once; the app's task class must not postpone or change it."""
        task: Any = self
        return InnerTask.apply_async(task, *args, **options)

    def log_broken_off(self, unit: Unit, reason: str) -> None:
        """Log what interrupted a task, with the traceback of the exception that is being handled."""
        with contextlib.suppress(Exception):  # the interruption may come from a log handler of somebody else
            extra = history.fields(unit, "broken_off")
            text = "%s: %s was broken off: %s\n%s"
            log.warning(text, unit, self.name, reason, traceback.format_exc(), extra=extra)

    def broken_off(self, reason: str | None, times: int) -> errors.StepFailed:
        """Return the error of a task that was interrupted too often."""
        reason = reason or "its worker was killed, or lost its lease"
        often = "" if self.request.is_eager else f", {times:,} times in a row (max_step_failures)"
        return errors.StepFailed(f"{self.name.rpartition('.')[2]} was broken off: {reason}{often}")

    def retry_by_broker(self, reason: str) -> NoReturn:
        """Retry by a message, because the store cannot be asked; a broker that takes no new one keeps this one."""
        if self.request.is_eager:
            raise JobEnded(errors.StepFailed(reason))
        try:
            BatchTask.retry(self, exc=errors.StepFailed(reason))
        except (Retry, Reject):
            raise
        except BaseException as exc:
            if stops_worker(exc):
                raise
            raise Reject(reason, requeue=True) from None


def stops_worker(exc: BaseException) -> bool:
    """Return whether a worker (or its user, in eager mode) stops the running code in this way, so that it is no error.

    A pool process that gets a signal exits with a code of its own (billiard), which no ``sys.exit()`` uses.
    """
    if isinstance(exc, (KeyboardInterrupt, GeneratorExit, WorkerShutdown, WorkerTerminate)):
        return True
    if type(exc).__name__ == "GreenletExit":  # of gevent and eventlet, which need not be installed
        return True
    return isinstance(exc, SystemExit) and exc.code in _EXITS_ON_SIGNAL


#: The exit codes of a pool process that was stopped by a signal.
_EXITS_ON_SIGNAL = {-(256 - number) for number in signal.valid_signals()}
