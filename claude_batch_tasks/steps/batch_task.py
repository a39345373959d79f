"""The base class of all tasks of this package: settings, the store, retries, and how a message is published again."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from celery import Task
from celery.exceptions import Ignore, Reject, Retry
from kombu.exceptions import OperationalError

from claude_batch_tasks import errors, rules
from claude_batch_tasks.formatting import format_duration
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import JobRecord, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import (
    message_chain,
    result_backend,
)
from claude_batch_tasks.steps.task_classes import InnerTask
from claude_batch_tasks.store import Store, history, open_store

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
    # ours, as long as they accept JSON at all: see ``publishing.serializer``.
    serializer = "json"
    max_retries = None
    ignore_result = True
    store_errors_even_if_ignored = True
    # A late duplicate must not write STARTED over the state with which the job has ended.
    track_started = False
    autoretry_for = (errors.TryLater, OperationalError)
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
        return self.body(*args, **kwargs)

    @property
    def store(self) -> Store:
        """The store of the app."""
        return open_store(Settings.of(self.app))

    def open(self, job_id: str) -> tuple[Store, Settings, JobRecord | None]:
        """Return the store, the settings in force for a job, and the job."""
        settings, store = Settings.of(self.app), self.store
        found = store.jobs.read_job(job_id)
        return store, settings.override(found.options) if found else settings, found

    def retry(self, *args: Any, exc: Exception | None = None, countdown: float | None = None, **_: Any) -> NoReturn:
        """Retry after the countdown that policy gives this error; in eager mode, raise the error to the caller instead.

        Args:
            exc: the reason.
            countdown: set where the ``__call__`` of an app's task class postpones the task.
        """
        if self.request.is_eager and exc is not None:
            raise exc
        if countdown is not None:
            raise self.republish(countdown, type(exc).__name__ if exc else "put off by the app's task class")
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
    def quietly(self) -> Iterator[None]:
        """Wrap a retry so that it leaves no trace in the result back end, for a task whose id is the job's.

        Celery would store RETRY: over PROGRESS, and, by a late duplicate, over the FAILURE with which the job ended.
        """
        try:
            yield
        except Retry as retry:
            if self.request.is_eager:
                raise
            extra = history.fields(Unit(str(self.request.id)), "waiting")
            log.info("%s[%s]: waiting: %s", self.name, self.request.id, retry.exc, extra=extra)
            raise Ignore("comes back") from None

    def republish(self, wait: float, reason: object, args: tuple[Any, ...] | None = None) -> Retry:
        """Publish this task's next message, at most one hop from now, and return the Retry to raise."""
        waiting = errors.Waiting(f"{reason}; next look in {format_duration(wait)}")
        args = tuple(self.request.args or ()) if args is None else args
        try:
            return _Task.retry(  # not the app class's retry: this message must be sent
                self,
                args=args,
                kwargs=dict(self.request.kwargs or {}),
                exc=waiting,
                countdown=wait if self.request.is_eager else message_chain.limit_countdown(self.app, wait),
                throw=False,
            )
        except Reject as reject:
            # The broker did not take the message. Celery would drop this message too, and the job with it.
            raise Reject(getattr(reject, "reason", None), requeue=True) from None


def retry_limits(settings: Settings, exc: Exception | None) -> tuple[float, float]:
    """Return the upper bound of the first countdown, and that of every countdown, after an error."""
    most = settings.retry_max
    if isinstance(exc, (errors.StoreUnavailable, OperationalError)):
        most = min(most, rules.OUTAGE_RETRY_MAX)
    return min(settings.retry_min, most), most
