"""The base classes of our tasks.

``BatchTask`` is that of all: settings, the store, retries, and how a message is published again. ``JobTask`` is that of
a job's own tasks: how a run begins, and what happens to an interrupted run.
"""

from __future__ import annotations

import contextlib
import random
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from celery import Task
from celery.exceptions import Ignore, Reject, Retry, WorkerShutdown, WorkerTerminate
from celery.result import AsyncResult
from kombu.exceptions import OperationalError

from claude_batch_tasks import errors, rules
from claude_batch_tasks.formatting import format_duration
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import JobRecord, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import message_chain, result_backend
from claude_batch_tasks.steps.step import Attempt, JobEnded, NotRun, retry_limits
from claude_batch_tasks.steps.task_classes import InnerTask
from claude_batch_tasks.store import Store, history, open_store, stay_apart

if TYPE_CHECKING:
    _Task = Task[Any, Any]
else:
    _Task = Task

log = get_logger(__name__)


#: The methods of a task that an app's annotations may replace.
_HOOKS = {"__call__", "apply_async", "before_start", "on_success", "on_failure", "on_retry", "after_return"}


class BatchTask(_Task):
    """The base of all our tasks: delivery settings that hold in every app, and the one place that makes countdowns."""

    abstract = True
    acks_late = True
    reject_on_worker_lost = True
    # Our messages hold ids and small numbers. An app that pickles its own tasks gives no reason for workers to unpickle
    # ours, as long as they accept JSON at all: see ``publishing.choose_serializer``.
    serializer = "json"
    max_retries = None
    ignore_result = True
    store_errors_even_if_ignored = True
    # A late duplicate must not write STARTED over the state with which the job has ended.
    track_started = False
    autoretry_for = (errors.Retryable, OperationalError)
    # Retry settings of an app's task class are for tasks that count their retries.
    dont_autoretry_for = ()
    retry_backoff = False
    retry_kwargs: Mapping[str, Any] = MappingProxyType({})
    #: The attributes that no annotation changes.
    unchanged: tuple[str, ...] = ("max_retries", "ignore_result", "serializer")
    #: The app's own task class, as this task inherits it.
    app_class: type
    #: The class that stands behind the app's own task class.
    inner: type[InnerTask] = InnerTask
    #: The decorated function, with automatic retries for errors that pass by themselves.
    body: Callable[..., Any]
    Request = "claude_batch_tasks.steps.time_limit:StepRequest"
    #: What follows a wait that a step decided, in its reason: "...; next check in 3 s".
    what_follows = "next check"
    #: The wrapper through which results are written to the app's result back end.
    back_end: type[result_backend.Forgiving] = result_backend.Forgiving

    @classmethod
    def annotate(cls) -> None:
        """Apply the app's annotations, except those that would break a job.

        ``task_annotations`` for all tasks must not end a job after three polls, or without a report.
        """
        ours = {name: getattr(cls, name) for name in cls.unchanged}
        super().annotate()
        for name, value in ours.items():
            setattr(cls, name, value)
        for name in _HOOKS & vars(cls).keys():
            # An annotation replaces a method of the app's class, as for any task. It does not replace ours.
            setattr(cls.app_class, name, vars(cls)[name])
            delattr(cls, name)

    @property
    def backend(self) -> Any:
        """The result back end; its failures end no task of ours."""
        return self.back_end(super().backend, courtesy=self.ignore_result)

    @backend.setter
    def backend(self, value: Any) -> None:
        self._backend = value

    def drive(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task; this is its ``run``, which the ``__call__`` of an app's task class may call itself."""
        with self.keep_apart():
            return self.body(*args, **kwargs)

    def keep_apart(self) -> contextlib.AbstractContextManager[None]:
        """Keep what the task writes out of a transaction that the ``__call__`` of an app's task class has begun.

        In eager mode, the task is a part of its caller's transaction.
        """
        return contextlib.nullcontext() if self.request.is_eager else stay_apart()

    @property
    def store(self) -> Store:
        """The store of the app."""
        return open_store(Settings.of(self.app))

    def open_job(self, job_id: str) -> tuple[Store, Settings, JobRecord | None]:
        """Return the store, the settings in force for a job, and the job."""
        settings, store = Settings.of(self.app), self.store
        found = store.jobs.read_job(job_id)
        return store, settings.of_job(found) if found else settings, found

    def retry(self, *args: Any, exc: Exception | None = None, countdown: float | None = None, **_: Any) -> NoReturn:
        """Retry after the countdown that policy gives this error; in eager mode, raise the error to the caller instead.

        Args:
            exc: the reason.
            countdown: set where the ``__call__`` of an app's task class postpones the task.
        """
        if self.request.is_eager and exc is not None:
            raise exc
        if countdown is not None:
            raise self.republish(countdown, type(exc).__name__ if exc else "postponed by the app's task class")
        retry_min, retry_max = retry_limits(Settings.of(self.app), exc)
        wait = rules.retry_countdown(
            self.request.retries + 1,
            retry_min=retry_min,
            retry_max=retry_max,
            at_least=getattr(exc, "retry_after", None),
            rand=random.random(),
        )
        raise self.republish(wait, exc)

    @contextlib.contextmanager
    def without_trace(self) -> Iterator[None]:
        """Wrap a retry so that it leaves no trace in the result back end, for a task whose id is the job's.

        Celery would store RETRY: over PROGRESS, and, by a late duplicate, over the FAILURE with which the job ended.
        """
        try:
            yield
        except Retry as retry:
            if self.request.is_eager:
                raise
            extra = history.fields(Unit(str(self.request.id)), "waiting")
            log.info("job %s: %s: %s", self.request.id, self.name.rpartition(".")[2], retry.exc, extra=extra)
            raise Ignore("comes back") from None

    def republish(
        self, wait: float, reason: object, args: tuple[Any, ...] | None = None, waiting: errors.Waiting | None = None
    ) -> Retry:
        """Publish this task's next message, at most one hop from now, and return the Retry to raise.

        Args:
            wait: seconds.
            reason: why it runs again.
            args: the arguments of the next message; default: those of this one.
            waiting: the exception that says so; default: made of the reason.
        """
        args = tuple(self.request.args or ()) if args is None else args
        try:
            return _Task.retry(  # not the app class's retry: this message must be sent
                self,
                args=args,
                kwargs=dict(self.request.kwargs or {}),
                exc=waiting or describe_wait(reason, wait),
                countdown=wait if self.request.is_eager else message_chain.limit_countdown(self.app, wait),
                throw=False,
            )
        except Reject as reject:
            # The broker did not take the message. Celery would drop this message too, and the job with it.
            raise Reject(getattr(reject, "reason", None), requeue=True) from None


def describe_wait(reason: object, wait: float, what: str = "retry") -> errors.Waiting:
    """Return the exception that says in logs and in Flower why a task retries, and when."""
    return errors.Waiting(f"{reason}; {what} in {format_duration(wait)}")


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
        return f"{self.name} is a step of a job, and is called by workers only. Nothing was done"

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
            with self.keep_apart():
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

    def ends_job(self, exc: Any) -> bool:
        """Return whether the job has failed with this exception; any other only interrupted one of its tasks."""
        return result_backend.ends_job(exc, self.request)

    def log_broken_off(self, unit: Unit, reason: str) -> None:
        """Log what interrupted a task, with the traceback of the exception that is being handled."""
        with contextlib.suppress(Exception):  # the interruption may come from a log handler of somebody else
            extra = history.fields(unit, "broken_off")
            text = "job %s: %s was interrupted: %s\n%s"
            log.warning(text, unit.name, self.name, reason, traceback.format_exc(), extra=extra)

    def broken_off(self, reason: str | None, times: int) -> errors.StepFailed:
        """Return the error of a task that was interrupted too often."""
        reason = reason or "its worker was killed, or lost its lease"
        often = "" if self.request.is_eager else f", {times:,} times in a row (max_step_failures)"
        return errors.StepFailed(f"{self.name.rpartition('.')[2]} was interrupted: {reason}{often}")

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
            # The type alone: its text may hold the broker's address.
            raise Reject(f"{reason}; its next message was not sent: {type(exc).__name__}", requeue=True) from None


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
