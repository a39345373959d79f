"""How ``run_batch`` is called, in the process of the caller: with which arguments, and what is returned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery.result import AsyncResult
from celery.utils import uuid

from claude_batch_tasks import errors
from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.outputs import name_options
from claude_batch_tasks.records import Summary
from claude_batch_tasks.results.async_result import JobResult
from claude_batch_tasks.steps import JobTask, RefusesCalls, by_name, message_headers
from claude_batch_tasks.tasks.send_job import SendJob, stage_job, staged_job
from claude_batch_tasks.tasks.sent_jobs import remove_refused_job

if TYPE_CHECKING:
    from celery.canvas import Signature
    from celery.result import EagerResult
    from typing_extensions import Unpack

    from claude_batch_tasks.settings.job_options import JobOptions
    from claude_batch_tasks.tasks.call_types import Arguments, NamedArguments, SendOptions
    from claude_batch_tasks.wire.batch_requests import Requests


class JobCalls(RefusesCalls, JobTask):
    """The part of ``run_batch`` that callers see."""

    abstract = True
    inner = SendJob
    instead = (
        "A job takes all requests at once, and divides them into batches: run_batch.delay(requests). For several jobs: "
        "group(run_batch.s(requests) for requests in ...)"
    )

    if TYPE_CHECKING:  # Celery's own, or the app's task class's, is what is called

        def delay(self, requests: Requests, **options: Unpack[JobOptions]) -> AsyncResult[Summary]: ...

        def s(self, requests: Requests = ..., **options: Unpack[JobOptions]) -> Signature[Summary]: ...

        def si(self, requests: Requests, **options: Unpack[JobOptions]) -> Signature[Summary]: ...

        def apply(  # type: ignore[override]
            self,
            args: Arguments | None = None,
            kwargs: JobOptions | NamedArguments | None = None,
            *more: Any,
            **options: Any,
        ) -> EagerResult[Summary]: ...

        # Where the app's task class is Django's.
        def delay_on_commit(self, requests: Requests, **options: Unpack[JobOptions]) -> None: ...

        def apply_async_on_commit(
            self,
            args: Arguments | None = None,
            kwargs: JobOptions | NamedArguments | None = None,
            task_id: str | None = None,
            *more: Any,
            **options: Unpack[SendOptions],
        ) -> None: ...

    def signature(  # type: ignore[override]
        self,
        args: Arguments | None = None,
        kwargs: JobOptions | NamedArguments | None = None,
        *more: Any,  # as Celery's ``retry`` gives them
        **options: Any,
    ) -> Signature[Summary]:
        """Return a signature of the job that a message can carry: ``output`` and ``check`` are import paths in it.

        Raises:
            InvalidSettings: workers could not import them.
        """
        given: Any = args
        return super().signature(given, name_options(kwargs or {}), *more, **options)

    subtask = signature  # type: ignore[assignment]

    def not_callable(self) -> str:
        """Return the error text for a direct call."""
        return (
            "run_batch cannot be called as a function: a job is run by workers. Submit it with "
            "run_batch.delay(requests), or run_batch.apply_async((requests,), {...}). Nothing was stored or sent"
        )

    def apply_async(  # type: ignore[override]  # a job takes its requests, and what JobOptions has
        self,
        args: Arguments | None = None,
        kwargs: JobOptions | NamedArguments | None = None,
        task_id: str | None = None,
        *more: Any,
        **options: Unpack[SendOptions],
    ) -> AsyncResult[Summary]:
        """Check the requests and store them; then have the app's task class send the job's message.

        A class that sends after a commit sends it then; after a rollback, the stored requests expire.

        Returns:
            The return value of the app's task class: the job's AsyncResult, unless the class sends later.

        Raises:
            InvalidRequests, InvalidSettings: the text says what is wrong; nothing was stored or sent.
            StoreUnavailable: the store does not answer; nothing was stored or sent.
            BrokerUnavailable: the broker does not answer; the text says whether the job exists.
        """
        given, named = tuple(args or ()), dict(kwargs or {})
        sending: dict[str, Any] = {**options, **by_name(more)}
        if "job_id" in named:
            return self.send(given, named, task_id=task_id, **sending)
        if self.app.main == "default":
            # Celery's implicit app, in a program that configured none: the ready-made app knows broker and settings.
            return configured_app().tasks[self.name].apply_async(given, named, task_id=task_id, **sending)
        task_id = str(task_id or uuid())  # a UUID is an id to Celery
        with _explained_outage():
            record = stage_job(self.app, task_id, given, named, sending)
        with message_headers.observe_headers() as seen:
            token = staged_job.set((task_id, record))
            try:
                sent = super().apply_async((), {"job_id": task_id}, task_id=task_id, **sending)
            except errors.BatchTasksError:
                raise  # eager: the job ran, and this is how it ended
            except Exception:
                if not (self.app.conf.task_always_eager or seen):
                    remove_refused_job(self.store, task_id)  # the app's task class refused it, so it must not stay
                raise
            finally:
                staged_job.reset(token)
        return _expect_end(sent)

    def using(self, connection: Any) -> JoinedJobs:
        """Return the task as it is called in a transaction: commit makes the job, and after a rollback there is none.

        Args:
            connection: one to the database of the store: a psycopg 3 connection, or a Connection or Session of
                SQLAlchemy. With a store of ``django://``, an ``atomic`` block needs none.
        """
        task: Any = configured_app().tasks[self.name] if self.app.main == "default" else self
        return JoinedJobs(task, connection)

    def AsyncResult(self, task_id: str, **kwargs: Any) -> JobResult:
        """Return the job's AsyncResult, which also reports that the store has lost the job."""
        return JobResult(task_id, app=self.app, backend=self.app.backend, task_name=self.name, **kwargs)


class JoinedJobs:
    """``run_batch`` as ``using()`` returns it: its jobs are a part of the transaction of a connection."""

    def __init__(self, task: JobCalls, connection: Any) -> None:
        self._task, self._connection = task, connection

    def delay(self, requests: Requests, **options: Unpack[JobOptions]) -> AsyncResult[Summary]:
        """Submit a job as ``run_batch.delay`` does.

        Raises:
            InvalidSettings: the connection is not one of the store's database, or is in no transaction.
        """
        return self.apply_async((requests,), options)

    def apply_async(
        self,
        args: Arguments | None = None,
        kwargs: JobOptions | NamedArguments | None = None,
        task_id: str | None = None,
        *more: Any,
        **options: Unpack[SendOptions],
    ) -> AsyncResult[Summary]:
        """Submit a job as ``run_batch.apply_async`` does.

        Raises:
            InvalidSettings: the connection is not one of the store's database, or is in no transaction.
        """
        with self._task.store.transactions.join(self._connection):
            return self._task.apply_async(args, kwargs, task_id, *more, **options)


def _expect_end(sent: AsyncResult[Summary]) -> AsyncResult[Summary]:
    """Return the app's return value, after marking an AsyncResult in it as that of a stored job."""
    if isinstance(sent, JobResult):
        sent.expect_job()
    return sent


@contextmanager
def _explained_outage() -> Iterator[None]:
    """Have the error of a store that does not answer say what became of the job."""
    try:
        yield
    except errors.StoreUnavailable as exc:
        if type(exc) is not errors.StoreUnavailable:
            raise
        what = str(exc).rstrip(".")
        text = (
            f"{what}. The job was not submitted: nothing was sent or paid, and what was stored of it expires. Call "
            "run_batch again when the store answers: that makes one job"
        )
        raise errors.StoreUnavailable(text) from None
