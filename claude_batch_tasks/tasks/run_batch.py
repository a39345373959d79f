"""The task ``run_batch``, which takes the requests, begins the job, and ends it under the id that the caller has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NoReturn

from celery import _state
from celery.exceptions import Ignore, Reject, Retry
from celery.states import FAILURE

from claude_batch_tasks import errors
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.records import JobRecord, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import (
    NAME,
    job_summary,
    job_task,
    message_chain,
    message_headers,
    reason_of,
    routing,
    stops_worker,
)
from claude_batch_tasks.store import history
from claude_batch_tasks.tasks.finish_job import FinishJob, fail_unbegun_job
from claude_batch_tasks.tasks.job_calls import JobCalls


class RunBatch(JobCalls):
    """The task ``run_batch``: it stores the requests before anything is sent, so that messages carry only ids."""

    abstract = True
    ignore_result = False
    _trace: Callable[..., Any] | None = None

    @property
    def __trace__(self) -> Callable[..., Any] | None:
        """The function with which Celery runs a message.

        ``task_prerun`` and ``task_postrun`` are called once with a job's id, when it ends: handlers keep contexts and
        spans by that id. The message that begins the job has the same id, and is therefore run under another one.
        """
        return self._trace

    @__trace__.setter
    def __trace__(self, trace: Callable[..., Any] | None) -> None:
        self._trace = None if trace is None else partial(_run_message, trace)

    def go_on(self, *args: Any, **kwargs: Any) -> Any:
        """Begin the job, or end it."""
        with self._open_ending() as finish:
            if finish is not None:
                return finish.go_on(*args, **kwargs)
        with self.without_trace():
            try:
                super().before_start(str(self.request.id), *self._hide_prompts(args, kwargs))
                return self.call_inside(*args, **kwargs)
            except (Ignore, Reject, Retry):
                raise
            except BaseException as exc:
                if self.request.is_eager or stops_worker(exc):
                    raise
                if isinstance(exc, errors.BatchTasksError) and not isinstance(exc, errors.InvalidSettings):
                    self._forget_requests()
                    message_headers.hand_on_headers(self.request)
                    args, kwargs = (), {}
                    raise exc.with_traceback(None) from None
                self.republish_after(exc, kwargs.get("job_id"))

    def submit_requests(self, job_id: str, requests: Any, options: Mapping[str, Any]) -> JobRecord:
        """Store the requests that came with the message, and return the job.

        A later link of a chain gets them as its argument, from an app that does not know this task's class.

        Raises:
            JobNotFound: none came, and the store does not have the job.
        """
        if requests is None:
            raise errors.JobNotFound(
                f"job {job_id} is not in the store: it was deleted, its staged requests have expired, or the store has "
                "lost it. If it had not begun, nothing was sent or paid: submit it again. If it had, see the Console "
                "first"
            )
        route = routing.find_route_of_message(self.request.delivery_info)
        queue, found = routing.queue_name(route), routing.encode_route(route)
        return submission.submit_job(self.app, job_id, requests, options, queue=queue, route=found)

    def check_running(self, job_id: str, record: JobRecord, settings: Settings) -> None:
        """Raise Ignore if the job has ended; otherwise nothing of it expires while it runs."""
        if record.ended_at is not None:
            raise Ignore("duplicate")
        self.store.jobs.persist_job(job_id)
        if (now := self.store.jobs.read_job(job_id)) is not None and now.ended_at is not None:  # ended just before this
            self.store.jobs.expire_job(job_id, settings.result_ttl)
            raise Ignore("duplicate")

    def begin_job(self, job_id: str, record: JobRecord, admitted: int) -> None:
        """Record that the job has begun, with so many of its batches, and where its messages go."""
        store = self.store
        record.started_at, record.canvas = store.now(), message_chain.encode_canvas(self.request)
        if record.route is None and record.queue is None:  # submitted by an earlier release
            record.route = routing.encode_route(routing.find_route_of_message(self.request.delivery_info))
        record.headers = message_headers.add_headers(job_id, record, self.request)
        record.admitted = admitted
        store.schedule.add_units(
            [Unit(job_id), *(Unit(job_id, number) for number in range(admitted))], record.started_at
        )
        begun = {
            "state": "running",
            "started_at": record.started_at,
            "canvas": record.canvas,
            "route": record.route,
            "headers": record.headers,
            "admitted": admitted,
        }
        if store.jobs.update_job(job_id, only="staged", **begun):
            history.note(store, Unit(job_id), "started", "started", job=record)
            job_summary.publish_progress(
                self,
                job_id,
                record,
                lambda: job_summary.make_progress(record, store.records.read_batches(job_id)),
                "started",
            )

    @contextmanager
    def _open_ending(self) -> Iterator[FinishJob | None]:
        """Yield the task that ends the job, with this task's request, if the message asks for that; None otherwise."""
        request = self.request
        if getattr(request, "task", None) != NAME + "finish_job" and not getattr(request, "ends_here", False):
            yield None
            return
        finish: Any = self.app.tasks[NAME + "finish_job"]
        _state._task_stack.push(finish)  # type: ignore[attr-defined]
        finish.request_stack.push(self.request_stack.top)
        try:
            yield finish
        finally:
            finish.request_stack.pop()
            _state._task_stack.pop()  # type: ignore[attr-defined]

    def end_here(self, job_id: str) -> Any:
        """End a job of eager mode inside the task that was called, and return its summary.

        It is one task, and fails once.
        """
        setattr(self.request, "ends_here", True)  # noqa: B010 - an attribute of ours on Celery's request
        with self._open_ending() as finish:
            assert finish is not None
            return finish.go_on(job_id)

    # -- hooks of the app's task class: they see the start and the end of a job, as of any task

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Skip the app's hook for now: an exception raised there must not lose the job."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """End the job, and call the hook of the app's task class."""
        with self._open_ending() as finish:
            if finish is not None:
                finish.on_success(retval, task_id, args, kwargs)
        if self._has_ended():
            super().on_success(retval, task_id, *self._hide_prompts(args, kwargs))

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """End the job, and call the app's hook; an interruption of the job's message is no failure of the job."""
        with self._open_ending() as finish:
            if finish is not None:
                finish.on_failure(exc, task_id, args, kwargs, einfo)
        if self._has_ended(exc):
            super().on_failure(exc, task_id, *self._hide_prompts(args, kwargs), einfo)

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Call the hook of the app's task class."""
        if self._has_ended(retval if status == FAILURE else None):
            super().after_return(status, retval, str(self.request.id), *self._hide_prompts(args, kwargs), einfo)

    def _has_ended(self, exc: Any = None) -> bool:
        """Return whether the job has ended: Celery has stored how, and the task does not come back to store it."""
        if getattr(self.request, "comes_back", False):
            return False
        return exc is None or self.request.is_eager or self.ends_job(exc)

    def _hide_prompts(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Return the arguments that the app's task class sees: no prompts, unless they are in this process."""
        return (args, kwargs) if self.request.is_eager else ((), {"job_id": str(self.request.id)})

    def _forget_requests(self) -> None:
        """Remove the requests from a message that fails: trackers show its arguments, and what its frames hold."""
        request: Any = self.request
        if request.args:
            if isinstance(request.args, list):
                request.args[:] = ["(requests)"]
            else:  # as from pickle
                request.update(args=("(requests)",))
        if "requests" in (request.kwargs or {}):
            request.kwargs["requests"] = "(requests)"
        request.update(argsrepr=None, kwargsrepr=None)  # they are made anew from the arguments

    def republish_after(self, exc: BaseException, job_id: str | None) -> NoReturn:
        """Retry, so that the job is begun; after ``max_step_failures`` it fails, and nothing of it was sent."""
        reason, failures = reason_of(exc), self.request.retries + 1
        unit = Unit(job_id or str(self.request.id))
        self.log_broken_off(unit, reason)
        error = None
        with suppress(Exception):
            if failures >= Settings.of(self.app).max_step_failures:
                error = fail_unbegun_job(self, unit, self.broken_off(reason, failures))
        if error is not None:
            message_headers.hand_on_headers(self.request)
            raise error
        self.retry_by_broker(reason)


def _run_message(
    trace: Callable[..., Any], task_id: str, args: Any, kwargs: Any, request: Mapping[str, Any] | None = None
) -> Any:
    """Run a message of ``run_batch``, under an id of its own if it begins a job."""
    begins = "job_id" in kwargs and (request or {}).get("task") == NAME + "run_batch"
    return trace(f"{task_id}-begin" if begins else task_id, args, kwargs, request)


@job_task(base=RunBatch, name=NAME + "run_batch")
def run_batch(self: RunBatch, requests: Any = None, *, job_id: str | None = None, **options: Any) -> Any:
    """Run requests through Message Batches; the result is the job's summary.

    Args:
        requests: any iterable of ``{"custom_id": ..., "params": {...}}``, or a mapping of custom_id to params.
        options: ``client``, the alias of an account; ``on_result``, a signature called as ``(job_id, custom_ids)`` with
            up to 1,000 ids at a time of requests whose outcome is final; ``output``, the type of the answers, and
            ``check``, a function that says what is wrong with one; and any per-job setting of
            ``settings.Settings`` by its name, such as ``fallback="off"``. ``JobOptions`` has them all, with their
            types.

    Returns:
        A dict, ``Summary``: ``job_id, state, requests, succeeded, errored, expired, canceled, resubmitted, fallback,
        fallback_skipped, failures, stopped, batch_ids, usage, cost, cost_by_model, cost_unknown, started_at,
        ended_at``;
        ``state`` is ``completed`` or ``canceled``, costs are US dollars.

    Raises:
        BatchTasksError: how a job fails: ``PermanentError``, ``CreateNotFound``, ``CreateUnconfirmed``,
            ``AccountChanged``, ``BatchLost``, ``WaitExceeded``, ``ResultsMissing`` or ``StepFailed``; the text says
            what is stored and what to do.
        JobNotFound: the store has lost the job.
    """
    job_id = job_id or str(self.request.id)
    _, settings, record = self.open_job(job_id)
    if record is None:
        record = self.submit_requests(job_id, requests, options)
        settings = settings.of_job(record)
    self.check_running(job_id, record, settings)
    if record.state == "staged":
        # The other batches follow, each when one has finished: see fall_back.
        limit = record.batches if self.request.is_eager else settings.max_batches_in_flight
        self.begin_job(job_id, record, min(record.batches, limit))
    lines = [message_chain.make_steps(self.app, job_id, record, number) for number in range(record.admitted)]
    if self.request.is_eager:
        message_chain.run_steps(record, lines)
        return self.end_here(job_id)
    # The tasks that follow the job, or are linked to it, follow its last task from now on.
    self.request.callbacks = self.request.chain = None
    for steps in lines:
        message_chain.publish_chain(record, job_id, steps)
    raise Ignore("its steps will end it")
