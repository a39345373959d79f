"""The Celery tasks, in the order in which a batch lives.

``run_batch`` → ``create_batch`` → ``poll_batch`` → ``fetch_results`` → ``fall_back`` → ``finish_job``. From
``fall_back`` a batch may go through the three before it again, smaller; what is left then goes through the Messages
API in ``send_messages``. Each batch of a job goes through a chain of its own; the last link of every chain is
``finish_job`` under the id that ``run_batch.delay()`` returned. The batch that is the last to end sends it; the others
drop it.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from numbers import Real
from typing import Any, NoReturn

from celery import Celery, _state, chain
from celery.exceptions import Ignore, Reject, Retry
from celery.result import AsyncResult, allow_join_result
from celery.states import FAILURE, SUCCESS
from celery.utils import uuid
from celery.utils.time import maybe_iso8601, maybe_make_aware
from kombu.exceptions import EncodeError, OperationalError

from claude_batch_tasks import (
    account,
    api,
    bodies,
    costs,
    errors,
    estimating,
    failure,
    gateways,
    headers,
    history,
    hooks,
    lanes,
    line,
    looks,
    metrics,
    missing,
    policy,
    publishing,
    reading,
    recovery,
    restoring,
    results,
    rounds,
    routing,
    sightings,
    signals,
    submit,
    totals,
    worker,
)
from claude_batch_tasks.job_result import JobResult
from claude_batch_tasks.line import DONE, NAME
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.pace import Pace
from claude_batch_tasks.records import Flight, JobRecord, Unit
from claude_batch_tasks.result_backend import is_not_followed
from claude_batch_tasks.settings import Settings, configured_app
from claude_batch_tasks.step import (
    BatchTask,
    JobEnded,
    JobTask,
    LeaseLost,
    Step,
    StepTask,
    publish_progress,
    reason_of,
    stops_worker,
)
from claude_batch_tasks.store import Store
from claude_batch_tasks.task_classes import InnerTask, by_name, job_task
from claude_batch_tasks.texts import duration, many, words

log = get_logger(__name__)

#: Seconds before a job's result is stored again that the result back end did not take.
_RESULT_AGAIN = 5.0

worker.connect()


#: The job that is being handed over, and its record: the app's task class sends it, at once or later.
_staged: ContextVar[tuple[str, JobRecord] | None] = ContextVar("staged", default=None)


class SendJob(InnerTask):
    """Sends the message of ``run_batch``, when the app's task class lets it: after a commit, or never."""

    abstract = True

    def apply_async(
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, *more: Any, **options: Any
    ) -> AsyncResult[Any]:
        """Send it. From then on its messages are missed when they do not come."""
        kwargs, options = dict(kwargs or {}), {**options, **by_name(more)}
        store = Settings.of(self.app).open_store()
        if "job_id" not in kwargs:  # the app's class has other ways to here than ``apply_async``
            task_id = task_id or uuid()
            record = stage(self.app, task_id, tuple(args or ()), kwargs, options)
            args, kwargs = (), {"job_id": task_id}
        elif (staged := _staged.get()) is not None and staged[0] == kwargs["job_id"]:
            record = staged[1]
        else:
            found = store.job(kwargs["job_id"])
            if found is None:  # what was staged has expired: its worker says so
                return super().apply_async(args, kwargs, task_id=task_id, **options)
            record = found
        job_id: str = kwargs["job_id"]
        if self.app.conf.task_always_eager:
            return super().apply_async(args, kwargs, task_id=job_id, **options)
        route, delay = routing.rerouted(self.app, record, options), _delay(self.app, options)
        if (encoded := routing.encode(route)) != record.route:  # the app's class sends it elsewhere
            store.update_job(job_id, only="staged", route=encoded, queue=routing.queue_name(route))
        options |= routing.merged(route)
        shown = f"({record.requests} requests in {record.batches} batches,)"
        try:
            with headers.observed() as seen:
                sent = super().apply_async(args, kwargs, task_id=job_id, **{"argsrepr": shown, **options})
        except Exception:
            if not _has_arrived(store, job_id):
                raise
            extra = history.fields(Unit(job_id), "sent")
            log.warning("job %s: the broker took it, although it did not say so", job_id, extra=extra)
            return self.AsyncResult(job_id)
        with suppress(errors.StoreUnavailable):
            store.schedule([Unit(job_id)], store.now() + delay)
            if seen and (carried := headers.added(job_id, record, seen[-1])) != record.headers:
                store.update_job(job_id, only="staged", headers=carried)
        return sent


def stage(
    app: Celery, job_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> JobRecord:
    """Check what ``run_batch`` is called with, and put it into the store.

    Raises:
        TypeError, InvalidRequests, InvalidSettings: what is wrong; nothing was stored or sent.
        StoreUnavailable: the store does not answer; nothing was stored or sent.
    """
    kwargs = dict(kwargs)
    if len(args) > 1 or (args and "requests" in kwargs) or not (args or "requests" in kwargs):
        raise TypeError("run_batch takes the requests, and options by keyword. Nothing was stored or sent")
    requests = args[0] if args else kwargs.pop("requests")
    _refuse_limits(options)
    delay, expires_at = _delay(app, options), _expiry(app, {"expires": app.tasks[routing.RUN_BATCH].expires, **options})
    if not app.conf.task_always_eager:
        publishing.serializer(app)
        publishing.check_serializer(app, options.get("serializer"))
    route = routing.find_route(app, options, (requests,), kwargs)
    return submit.submit(
        app,
        job_id,
        requests,
        kwargs,
        canvas=line.canvas({**options, **routing.merged(route)}),
        queue=routing.queue_name(route),
        route=routing.encode(route),
        headers=headers.encode(options.get("headers")),
        delay=delay,
        expires_at=expires_at,
    )


def _has_arrived(store: Store, job_id: str) -> bool:
    """Return whether a worker has begun the job whose message seemed to be refused; if none has, none will."""
    try:
        if not store.update_job(job_id, only="staged", state="revoked", ended_at=store.now()):
            return store.job(job_id) is not None
        store.delete(job_id)
    except errors.StoreUnavailable:
        extra = history.fields(Unit(job_id), "left_behind")
        log.warning("job %s: its requests could not be removed from the store, and will expire", job_id, extra=extra)
    return False


class RunBatch(JobTask):
    """``run_batch``: puts the requests into the store before anything is sent, so that messages carry only ids."""

    abstract = True
    ignore_result = False
    inner = SendJob
    _trace: Callable[..., Any] | None = None

    @property
    def __trace__(self) -> Callable[..., Any] | None:
        """Return what Celery runs a message with.

        ``task_prerun`` and ``task_postrun`` are told of a job's id once, when it ends: handlers keep contexts and spans
        by it. The message that begins the job has the id as well, and is run under another.
        """
        return self._trace

    @__trace__.setter
    def __trace__(self, trace: Callable[..., Any] | None) -> None:
        self._trace = None if trace is None else partial(_run_message, trace)

    def go_on(self, *args: Any, **kwargs: Any) -> Any:
        """Begin the job, or end it."""
        with self._ending() as finish:
            if finish is not None:
                return finish.go_on(*args, **kwargs)
        with self.quietly():
            try:
                super().before_start(str(self.request.id), *self._shown(args, kwargs))
                return self.call_inside(*args, **kwargs)
            except (Ignore, Reject, Retry):
                raise
            except BaseException as exc:
                if self.request.is_eager or stops_worker(exc):
                    raise
                if isinstance(exc, errors.BatchTasksError) and not isinstance(exc, errors.InvalidSettings):
                    self._forget_requests()
                    headers.pass_on(self.request)
                    args, kwargs = (), {}
                    raise exc.with_traceback(None) from None
                self.come_back_after(exc, kwargs.get("job_id"))

    @contextmanager
    def _ending(self) -> Iterator[FinishJob | None]:
        """Yield what ends the job, with this task's request, if that is what its message asks for."""
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
        """End a job of eager mode in the task that was called: it is one task, and fails once. Its summary."""
        setattr(self.request, "ends_here", True)  # noqa: B010 - an attribute of ours on Celery's request
        with self._ending() as finish:
            assert finish is not None
            return finish.go_on(job_id)

    def not_callable(self) -> str:
        """Return what a direct call is told."""
        return (
            "run_batch cannot be called as a function: a job is run by workers. Submit it with "
            "run_batch.delay(requests), or run_batch.apply_async((requests,), {...}). Nothing was stored or sent"
        )

    def map(self, it: Any) -> NoReturn:
        """Refuse: a job takes all of its requests at once.

        Raises:
            TypeError: always.
        """
        self._refuse("map")

    def starmap(self, it: Any) -> NoReturn:
        """Refuse: a job takes all of its requests at once.

        Raises:
            TypeError: always.
        """
        self._refuse("starmap")

    def chunks(self, it: Any, n: int) -> NoReturn:
        """Refuse: a job divides its requests by itself.

        Raises:
            TypeError: always.
        """
        self._refuse("chunks")

    def _refuse(self, method: str) -> NoReturn:
        raise TypeError(
            f"run_batch.{method}() cannot be: Celery calls a task as a function for it, and a job is run by workers. "
            "A job takes all requests at once, and divides them into batches: run_batch.delay(requests). For several "
            "jobs: group(run_batch.s(requests) for requests in ...). Nothing was stored or sent"
        )

    # -- what the app's task class is told: the start and the end of a job, as of any task

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Do nothing yet: what the app's class raises there must not lose the job."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """End the job, and tell the app's task class."""
        with self._ending() as finish:
            if finish is not None:
                finish.on_success(retval, task_id, args, kwargs)
        if self._has_ended():
            super().on_success(retval, task_id, *self._shown(args, kwargs))

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """End the job, and tell the app's task class; what broke its message off is no failure of it."""
        with self._ending() as finish:
            if finish is not None:
                finish.on_failure(exc, task_id, args, kwargs, einfo)
        if self._has_ended(exc):
            super().on_failure(exc, task_id, *self._shown(args, kwargs), einfo)

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Tell the app's task class."""
        if self._has_ended(retval if status == FAILURE else None):
            super().after_return(status, retval, str(self.request.id), *self._shown(args, kwargs), einfo)

    def _has_ended(self, exc: Any = None) -> bool:
        """Whether the job is at its end: Celery has stored how it ended, and it does not come back for that."""
        if getattr(self.request, "comes_back", False):
            return False
        if exc is None or self.request.is_eager or isinstance(exc, (errors.BatchTasksError, EncodeError)):
            return True
        return is_not_followed(self.request)

    def _shown(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Return the arguments that the app's task class is told of: no prompts, unless they are in this process."""
        return (args, kwargs) if self.request.is_eager else ((), {"job_id": str(self.request.id)})

    def _forget_requests(self) -> None:
        """Take the requests out of a message that fails: trackers show its arguments, and what its frames hold."""
        request: Any = self.request
        if request.args:
            if isinstance(request.args, list):
                request.args[:] = ["(requests)"]
            else:  # as pickle has it
                request.update(args=("(requests)",))
        if "requests" in (request.kwargs or {}):
            request.kwargs["requests"] = "(requests)"
        request.update(argsrepr=None, kwargsrepr=None)  # it is made anew of what there is

    def come_back_after(self, exc: BaseException, job_id: str | None) -> NoReturn:
        """Come back, so that the job is begun; after ``max_step_failures`` it fails, and nothing of it was sent."""
        reason, failures = reason_of(exc), self.request.retries + 1
        unit = Unit(job_id or str(self.request.id))
        self.log_broken_off(unit, reason)
        error = None
        with suppress(Exception):
            if failures >= Settings.of(self.app).max_step_failures:
                error = self._fail(unit, self.broken_off(reason, failures))
        if error is not None:
            headers.pass_on(self.request)
            raise error
        self.retry_by_broker(reason)

    def _fail(self, unit: Unit, error: errors.StepFailed) -> errors.StepFailed | None:
        """End the job before it was begun; None if there is none, or if it was begun."""
        job = self.store.job(unit.job_id)
        if job is None:
            return error
        text = (
            f"job {unit.job_id} failed before it was begun: {error}. Its requests are kept, nothing was created or "
            f"billed. When its cause is gone: BatchJob({unit.job_id!r}).resume()."
        )
        summary = {**totals.summarize(unit.job_id, job, [], self.store.now()), "state": "failed"}
        ended = {"state": "failed", "ended_at": self.store.now(), "error": text, "summary": summary}
        if not self.store.update_job(unit.job_id, only="staged", **ended):
            return None
        self.store.unschedule(unit)
        history.note(self.store, unit, "failed", text, level=logging.WARNING)
        return errors.StepFailed(text)

    def apply_async(
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, *more: Any, **options: Any
    ) -> AsyncResult[Any]:
        """Check the requests and put them into the store; then have the app's task class send the job's message.

        A class that sends after a commit sends it then; after a rollback, what is in the store expires.

        Returns:
            What the app's task class does: the job's AsyncResult, if it is not a class that sends later.

        Raises:
            InvalidRequests, InvalidSettings: what is wrong; nothing was stored or sent.
            StoreUnavailable: the store does not answer; nothing was stored or sent.
        """
        args, kwargs, options = tuple(args or ()), dict(kwargs or {}), {**options, **by_name(more)}
        if "job_id" in kwargs:
            return self.send(args, kwargs, task_id=task_id, **options)
        if self.app.main == "default":
            # Celery's implicit app, in a program that configured none: the ready-made one knows broker and settings.
            return configured_app().tasks[self.name].apply_async(args, kwargs, task_id=task_id, **options)
        task_id = task_id or uuid()
        record = stage(self.app, task_id, args, kwargs, options)
        with headers.observed() as seen:
            token = _staged.set((task_id, record))
            try:
                sent = super().apply_async((), {"job_id": task_id}, task_id=task_id, **options)
            except errors.BatchTasksError:
                raise  # eager: the job ran, and this is how it ended
            except Exception:
                if not (self.app.conf.task_always_eager or seen):
                    _has_arrived(self.store, task_id)  # the app's task class refused it: it is not to stay
                raise
            finally:
                _staged.reset(token)
        return _expected(sent)

    def AsyncResult(self, task_id: str, **kwargs: Any) -> JobResult:
        """Whoever waits on it is told when the store has lost the job."""
        return JobResult(task_id, app=self.app, backend=self.app.backend, task_name=self.name, **kwargs)


def _run_message(
    trace: Callable[..., Any], task_id: str, args: Any, kwargs: Any, request: Mapping[str, Any] | None = None
) -> Any:
    """Run a message of ``run_batch``, under an id of its own if it begins a job."""
    begins = "job_id" in kwargs and (request or {}).get("task") == NAME + "run_batch"
    return trace(f"{task_id}-begin" if begins else task_id, args, kwargs, request)


def _expected(sent: AsyncResult[Any]) -> AsyncResult[Any]:
    """Return what the app's task class did, for a job that was put into the store."""
    if isinstance(sent, JobResult):
        sent.expect()
    return sent


@job_task(base=RunBatch, name=NAME + "run_batch")
def run_batch(self: RunBatch, requests: Any = None, *, job_id: str | None = None, **options: Any) -> Any:
    """Run requests through Message Batches; the result is the job's summary.

    Args:
        requests: any iterable of ``{"custom_id": ..., "params": {...}}``, or a mapping of custom_id to params.
        options: ``client``, the alias of an account; ``on_result``, a signature called as ``(job_id, custom_ids)`` with
            up to 1,000 ids at a time of requests whose outcome is final; and any per-job setting of
            ``settings.Settings`` by its name, such as ``fallback="off"``.

    Returns:
        A dict: ``job_id, state, requests, succeeded, errored, expired, canceled, resubmitted, fallback,
        fallback_skipped, stopped, batch_ids, usage, cost, cost_by_model, cost_unknown, started_at, ended_at``;
        ``state`` is ``completed`` or ``canceled``, costs are US dollars.

    Raises:
        BatchTasksError: how a job fails: ``PermanentError``, ``CreateNotFound``, ``CreateUnconfirmed``,
            ``AccountChanged``, ``BatchLost``, ``WaitExceeded``, ``ResultsMissing`` or ``StepFailed``; the text says
            what was kept and what to do.
        JobNotFound: the store has lost the job.
    """
    job_id = job_id or str(self.request.id)
    store, settings, record = self.open(job_id)
    if record is None:
        if requests is None:
            raise errors.JobNotFound(f"job {job_id} is not in the store; its staged requests have expired")
        # A later link of a chain gets the requests as its argument, from an app that does not know this task's class.
        route = routing.find_route_of_message(self.request.delivery_info)
        queue, found = routing.queue_name(route), routing.encode(route)
        record = submit.submit(self.app, job_id, requests, options, queue=queue, route=found)
        settings = settings.override(record.options)
    if record.ended_at is not None:
        raise Ignore("duplicate")
    store.keep(job_id)
    if (now := store.job(job_id)) is not None and now.ended_at is not None:  # just before it was kept
        store.expire(job_id, settings.result_ttl)
        raise Ignore("duplicate")
    if record.state == "staged":
        record.started_at, record.canvas = store.now(), line.canvas(self.request)
        if record.route is None and record.queue is None:  # handed over by an earlier release
            record.route = routing.encode(routing.find_route_of_message(self.request.delivery_info))
        record.headers = headers.added(job_id, record, self.request)
        # The others follow, each when one is through: see fall_back.
        limit = record.batches if self.request.is_eager else settings.max_batches_in_flight
        record.admitted = min(record.batches, limit)
        store.schedule([Unit(job_id), *(Unit(job_id, number) for number in range(record.admitted))], record.started_at)
        begun = {
            "state": "running",
            "started_at": record.started_at,
            "canvas": record.canvas,
            "route": record.route,
            "headers": record.headers,
            "admitted": record.admitted,
        }
        if store.update_job(job_id, only="staged", **begun):
            history.note(store, Unit(job_id), "started", "started")
            publish_progress(self, job_id, record, lambda: totals.progress(record, store.batches(job_id)), "started")
    lines = [line.steps(self.app, job_id, record, number) for number in range(record.admitted)]
    if self.request.is_eager:
        line.run_steps(record, lines)
        return self.end_here(job_id)
    # What follows the job, and is linked to it, follows its last task now.
    self.request.callbacks = self.request.chain = None
    for steps in lines:
        line.publish(record, job_id, steps)
    raise Ignore("its steps end it")


# -- create


class InFlightTask(StepTask):
    """A step after which the batch may be in flight: a listing may spare it its next look."""

    abstract = True

    def flight(self) -> tuple[str, Flight] | None:
        """The batch, if listings tell it apart and may speak for it."""
        record = self.step.batch
        if record.state not in ("in_progress", "canceling") or record.provisional or record.created_at is None:
            return None
        return self.step.account, looks.flight(self.step)


class CreateBatch(InFlightTask):
    """``create_batch``: the first look comes a while after it."""

    abstract = True
    rank = 0

    def failed(self, error: errors.BatchTasksError) -> str:
        """That a batch cannot be created takes nothing from what there is.

        What all creates of the account meet ends the job; what there is of it is kept, and it can be taken up again.
        """
        step, refused = self.step, _concerns_account(error)
        smaller = bool(step.batch.rounds)
        if isinstance(error, errors.BatchesUnsupported) and error.status is not None and step.batch.intent_at is None:
            return self._give_up_batches(error)
        if step.batch.intent_at is not None or not (smaller or refused):
            return super().failed(error)
        try:
            if refused or isinstance(error, errors.AccountChanged):
                step.stop(str(error))
            if not smaller:
                return super().failed(error)
            step.record(state="unsent")
            step.note("unsent", f"not created: {error}", level=logging.WARNING)
        except LeaseLost:
            raise Ignore("taken over") from None
        except errors.StoreUnavailable as exc:
            self.later(exc)
        return f"unsent: {error}"

    def _give_up_batches(self, error: errors.BatchesUnsupported) -> str:
        try:
            gateways.remember(self.step)
            return sightings.without_batch(self.step, "unsent", error)
        except LeaseLost:
            raise Ignore("taken over") from None
        except errors.StoreUnavailable as exc:
            self.later(exc)

    def pause(self) -> float:
        """Until the schedule's first look, if there is a batch to look at."""
        return max(looks.next_look(self.step) - self.step.now(), 0) if self.step.batch.state == "in_progress" else 0.0


def _concerns_account(error: errors.BatchTasksError) -> bool:
    return isinstance(error, errors.ApiError) and policy.concerns_account(
        error.error_type, str(error), status=error.status or 0, code=error.code
    )


@job_task(base=CreateBatch, name=NAME + "create_batch")
def create_batch(self: CreateBatch, job_id: str, batch: int, turn: int = 0, seq: int = 0) -> str:
    """Create the batch at Anthropic, once: the intent is written first, and an unclear answer is searched for."""
    step, record = self.step, self.step.batch
    if record.state not in ("staged", "creating"):
        return f"nothing to create: {record.state}"
    self.not_yet_due()
    # However long its first message was in a queue, a job is begun; what had to wait longer need not be.
    waited = record.due_at or record.intent_at or batch >= step.settings.max_batches_in_flight
    if record.intent_at is not None and sightings.reconcile(step):
        return f"adopted {record.batch_id}"
    if step.job.cancel_requested or (record.rounds and step.job.stopped):
        outcome = {} if record.rounds else {"outcome": {"type": "canceled"}, "counts": {"canceled": record.count}}
        step.record(state="unsent", **outcome)
        return f"not created: the job is {'canceled' if step.job.cancel_requested else 'stopped'}"
    if step.job.stopped is not None and step.job.stopped.startswith("create:"):
        raise errors.PermanentError(step.job.stopped)  # the account refused another batch of the job
    if waited:
        step.check_patience()
    gateways.check(step)
    seen = account.check_to_spend(step)
    restoring.mend(step)
    if step.store.missing_keys(job_id, batch, ("body", "ids")):
        # Before anything is sent: answers whose custom_ids are gone would be of no use to anybody.
        raise missing.of_requests(step.store, job_id, step.job, batch, record)
    if not _affordable(step):
        return "no money is left for it"
    step.pace.check("create")
    client = step.client
    step.record(
        state="creating",
        intent_at=step.now(),
        unanswered_at=None,
        ambiguous_at=None,
        create_looks=0,
        unidentified=0,
        organization=seen.organization,
        workspace=seen.workspace,
    )
    try:
        body = step.while_held(submit.whole_body(step.store, job_id, step.job, batch, record))
        with step.pace.heeded("create"), bodies.confirmed(step.confirm_lease):
            created = api.create(client, body, record.smaller_bytes if record.rounds else record.body_bytes)
    except errors.AmbiguousError as exc:
        # It may be stored where this answer came from.
        named = {"organization": exc.organization, "workspace": exc.workspace} if exc.organization else {}
        step.record(unanswered_at=step.now(), ambiguous_at=step.now(), **named, **sightings.refusal_of(step, exc))
        account.compare_with_job(step, api.Account(exc.organization, exc.workspace))
        raise errors.CreateUnresolved(f"{exc}; searching for what it may have created", exc.retry_after) from None
    except errors.NotFoundError as exc:
        step.record(
            state="staged",
            intent_at=None,
            organization=None,
            workspace=None,
            create_not_found=record.create_not_found + 1,
            not_found=record.not_found + 1,
        )
        account.compare_with_job(step, api.Account(exc.organization, exc.workspace))
        step.tell(signals.not_found_seen, batch_id=None, endpoint="create", request_id=exc.request_id)
        if record.create_not_found >= step.settings.create_not_found_limit:
            gateways.check_listing(step)
            return sightings.without_batch(step, "unsent", errors.CreateNotFound(*exc.args))
        raise
    except errors.ResultsMissing:
        step.record(state="staged", intent_at=None, organization=None, workspace=None)
        raise
    except (errors.TransientError, errors.PermanentError) as exc:
        step.record(state="staged", intent_at=None, organization=None, workspace=None)
        account.compare_with_job(step, api.Account(exc.organization, exc.workspace))
        if isinstance(exc, errors.TransientError) and exc.status != 401 and _concerns_account(exc):
            # It does not pass while anybody waits: a spend limit comes as 429. After a 401 another token is asked for.
            raise errors.PermanentError(*exc.args) from None
        raise
    created.ahead = sightings.api_ahead(step, created)
    sightings.created(step, created)
    step.pace.heed(created.hold)
    told = {"requests": record.sending, "round": len(record.rounds)}
    step.note("created", f"created, {many(record.sending, 'request')}", **told, **created.call)
    account.compare_with_job(step, created.account)
    account.proven(step, created.account)
    return f"created {created.id}, {record.sending} requests"


def _affordable(step: Step) -> bool:
    """Whether the batch may be paid for; if not, its requests keep the outcome they have, or end as errored.

    Raises:
        HeldBack: what is on its way has to show first what it costs.
    """
    record, limit = step.batch, step.settings.max_cost
    if limit is None:
        return True
    note, answer = f"the rest of max_cost (${limit:,.4g}) does not cover its input", "no"
    if record.least is None or record.most is None:
        params = rounds.params(step.store, step.unit.job_id, step.unit.batch or 0, record)
        found = estimating.batch_need(params, step.settings.price_list)
        if isinstance(found, estimating.BatchNeed):
            step.record(least=found.input, most=found.most)
        else:
            note = f"max_cost cannot be kept: {found[1].why}"
    if record.least is not None and record.most is not None:
        answer = step.store.reserve(step.unit, len(record.rounds), record.least, record.most, costs.nano(limit))
    if answer == "wait":
        raise errors.HeldBack("waiting for what the job's other batches cost (max_cost)", 2 * step.settings.poll_min)
    if answer == "lost":
        note = "what the job has spent is gone from the store, so max_cost cannot be kept"
    if answer in ("no", "lost"):
        step.note("unsent", f"not created: {note}", level=logging.WARNING)
        outcome = {"outcome": results.errored("budget_exceeded", note, None), "counts": {"errored": record.count}}
        step.record(state="unsent", note=note, **({} if record.rounds else outcome))
    return answer == "yes"


# -- poll


class PollBatch(InFlightTask):
    """``poll_batch``: a look at a batch, and the wait for the next."""

    abstract = True
    rank = 1
    last_look = policy.LAST_LOOK

    def look_interval(self, now: float) -> float:
        """As the schedule has it."""
        return max(looks.next_look(self.step) - now, 0)


@job_task(base=PollBatch, name=NAME + "poll_batch")
def poll_batch(self: PollBatch, job_id: str, batch: int, turn: int = 0, seq: int = 0) -> str:
    """Look at the batch; come back after a countdown until it has ended."""
    step, record = self.step, self.step.batch
    if record.state not in ("in_progress", "canceling"):
        return f"nothing to look at: {record.state}"
    assert record.batch_id is not None
    not_canceled = None
    # Not before the results have confirmed it: it may be another application's.
    if step.job.cancel_requested and not record.cancel_sent and not record.provisional:
        not_canceled = _cancel(step, record.batch_id)
    try:
        seen, seen_at = looks.look(step)
    except errors.NotFoundError as exc:
        return sightings.not_found(step, exc, "retrieve")
    if step.job.adopted:
        _meet(step, seen)
    step.record(
        looks=record.looks + 1,
        sighting=seen_at,
        absences=0,
        refused_since=None,
        not_before=record.not_before if seen.retry_after is None else seen_at + seen.retry_after,
        unidentified=0,
        state="canceling" if seen.processing_status == "canceling" else "in_progress",
    )
    if record.looks == 1:
        step.note("seen", f"seen, {seen.processing_status.replace('_', ' ')}", **seen.call)
    if not record.provisional:
        account.proven(step, seen.account)
    elif step.store.holder(seen.id) != step.unit:
        return sightings.give_back(step, "another job knows that it is its own")
    elif seen.processing_status != "ended":
        with suppress(errors.ApiError):
            sightings.look_elsewhere(step)
    if seen.processing_status != "ended":
        waited = sum(seen.request_counts.get(name, 0) for name in results.OUTCOMES)
        status = seen.processing_status.replace("_", " ")
        raise not_canceled or errors.BatchInProgress(f"{status}: {waited:,} of {record.sending:,}")
    if seen.archived_at is not None and record.provisional:
        return sightings.give_back(step, "it is archived")
    if seen.archived_at is not None:
        return sightings.without_batch(
            step, "lost", errors.BatchArchived(f"batch {seen.id} is archived; its results are gone")
        )
    if record.provisional and sightings.is_ours(step, seen) is False:
        return sightings.give_back(step, "its rows are another's")
    told = {name: seen.request_counts.get(name, 0) for name in results.OUTCOMES}
    step.record(state="ended", told=told, **({} if record.rounds else {"counts": told}))
    in_time = step.now() + record.api_ahead < (record.expires_at or math.inf)
    if seen.ended_at is not None and not step.job.cancel_requested and in_time:
        took = (seen.ended_at - seen.created_at).total_seconds()
        step.store.note_end(step.account, record.sending, max(took, 0.0))
        metrics.observe("batch_seconds", max(took, 0.0))
    step.tell(signals.batch_ended, batch_id=seen.id, counts=told, round=len(record.rounds))
    step.note("ended", f"ended, {words(told)}", counts=told, round=len(record.rounds), **seen.call)
    return f"ended: {words(told)}"


def _cancel(step: Step, batch_id: str) -> errors.ApiError | None:
    """Ask for the batch to be canceled; why that is to be done again, if the batch has not ended by itself.

    What does not pass is a refusal because it has ended, or the look meets it as well.
    """
    step.pace.check()
    try:
        with suppress(errors.PermanentError), step.pace.heeded():
            api.cancel(step.client, batch_id, timeout=step.settings.timeout)
    except (errors.TransientError, errors.NotFoundError) as exc:
        return exc
    step.record(cancel_sent=True)
    return None


def _meet(step: Step, seen: api.Batch) -> None:
    """A look at a batch created elsewhere says how many requests it has, and since when."""
    record, count = step.batch, sum(seen.request_counts.values())
    if record.created_at is None:
        step.store.keep(step.unit.job_id)
        if not step.claim(seen.id, created_at=seen.created_at.timestamp(), api_ahead=sightings.api_ahead(step, seen)):
            holder = step.store.holder(seen.id)
            raise errors.BatchTasksError(f"batch {seen.id} is that of job {holder.job_id if holder else 'another'}")
        step.record(expires_at=seen.expires_at.timestamp() if seen.expires_at else None)
    if count not in (0, record.count):
        step.store.update_job(step.unit.job_id, requests=count)
        step.job.requests = count
        step.record(count=count)
    if not record.count and not seen.running:
        error = f"retrieve: {seen.id} has ended, and is shown without its requests"
        if record.failures + 1 >= step.settings.results_limit:
            raise errors.ResultsMissing(error)
        raise errors.TransientError(error)


# -- fetch


@job_task(base=StepTask, rank=2, last_look=policy.LAST_LOOK, name=NAME + "fetch_results")
def fetch_results(self: StepTask, job_id: str, batch: int, turn: int = 0, seq: int = 0) -> str:
    """Download, check and publish the batch's results; again if they do not add up."""
    step, record = self.step, self.step.batch
    if record.turn > turn:
        return _another_turn(self, step)
    if record.state != "ended":
        return f"nothing to fetch: {record.state}"
    self.not_yet_due()
    assert record.batch_id is not None
    if record.rounds:
        restoring.mend(step)
    step.pace.check()
    step.record(attempt=record.attempt + 1)
    checked = results.AdoptedCompleteness if step.job.adopted else results.Completeness
    seen = checked(
        rounds.nonce(step.job, record),
        record.first,
        record.count,
        places=rounds.places(step.store, job_id, batch, record) if record.rounds else None,
        prices=step.settings.price_list,
        at=record.created_at,
    )
    try:
        with step.pace.heeded(), api.results(step.client, record.batch_id, timeout=step.settings.timeout) as chunks:
            pieces = seen.keep(step.while_held(chunks))
            step.store.write_results(job_id, batch, record.attempt, pieces)
    except errors.NotFoundError as exc:
        ended = sightings.not_found(step, exc, "results")
        return _another_turn(self, step) if record.turn > turn else ended
    if record.provisional and seen.all_foreign:
        step.store.discard_results(job_id, batch, record.attempt)
        sightings.give_back(step, "every row is foreign")
        return _another_turn(self, step)
    step.record(sighting=step.now(), refused_since=None)
    try:
        seen.check(record.told)
        metrics.count("downloads", result="complete")
    except errors.ResultsIncomplete as exc:
        metrics.count("downloads", result="incomplete")
        step.note("incomplete", f"download {record.attempt}: {exc}", level=logging.WARNING)
        limit, downloads = step.settings.results_limit, record.attempt - record.attempts_before
        if downloads < (min(limit, policy.TALLY_DOWNLOADS) if seen.complete else limit):
            step.store.discard_results(job_id, batch, record.attempt)
            raise
        if not seen.complete:
            _publish(step, seen)
            return step.fail(errors.ResultsMissing(f"{exc}, in each of {downloads} downloads"))
    _publish(step, seen)
    step.tell(signals.results_published, batch_id=record.batch_id, counts=dict(seen.tallies), round=len(record.rounds))
    counts = dict(seen.tallies)
    step.note("fetched", f"fetched, {words(counts)}", counts=counts, round=len(record.rounds))
    return f"fetched: {words(seen.tallies)}"


def _publish(step: Step, seen: results.Completeness) -> None:
    record = step.batch
    changes = {"state": "fetched", "provisional": False, "intent_at": None, **rounds.merged(record, seen)}
    rows: dict[str, Any] = {"pieces": seen.pieces.tobytes(), "eligible_places": seen.eligible.tobytes()}
    if isinstance(seen, results.AdoptedCompleteness):
        rows["index"] = seen.index.parts()
    earlier = [round.attempt for round in record.rounds]
    if not step.store.publish(step.unit, step.owner, record.attempt, keep=earlier, **rows, **changes):
        raise LeaseLost
    for name, value in {"published": record.attempt, **changes}.items():
        setattr(record, name, value)
    source = "resubmitted" if record.rounds else "batch"
    metrics.count("cost_dollars", float(costs.known_total(seen.meter.costs())), source=source)
    if seen.stopped is not None and not step.job.adopted:
        step.stop(seen.stopped)


def _another_turn(task: StepTask, step: Step) -> NoReturn:
    """Go through create, poll, fetch and what follows again, when that is due."""
    number = step.unit.batch or 0
    at, wait = line.position(step.batch.turn, 0), max((step.batch.due_at or 0) - step.now(), 0.0)
    if task.request.is_eager:
        steps = line.steps(task.app, step.unit.job_id, step.job, number, since=at)
        with allow_join_result():
            chain(*steps[:-1]).apply()
        raise Ignore("the new turn has run")
    if not task.stay(wait, at, failures=0, task_id=None):
        line.publish(
            step.job,
            step.unit.job_id,
            line.steps(task.app, step.unit.job_id, step.job, number, since=at, countdown=wait),
        )
        step.store.advance(step.unit, step.owner, at, failures=0, due_at=step.batch.due_at)
    raise Ignore("begun anew")


# -- another chance


#: What the record of a batch says whose earlier steps have not all run.
_BEFORE_FALL_BACK = ("staged", "creating", "in_progress", "canceling", "ended")


class FallBack(StepTask):
    """``fall_back``: the last step of a batch."""

    abstract = True
    rank = 3
    last = True
    waits = False

    def after(self, turn: int) -> int:
        """The end of the batch's life."""
        return DONE

    def publish_next(self, value: Any, pause: float = 0) -> None:
        """Publish the message that ends the job, unless other batches are on their way.

        It has the job's id, under which handlers of signals, tracers and Flask keep what belongs to a task: two such at
        once would take each other's.
        """
        if not self.request.is_eager and not self._is_last():
            self.request.chain = None
        super().publish_next(value, pause)

    def _is_last(self) -> bool:
        """Return whether the batch is the last of its job to end; of two that may both be it, both are."""
        step = self.step
        through = step.through or None
        if through is None and step.job.batches > 1:  # it ended in an earlier run of this step, or the job is gone
            with suppress(errors.StoreUnavailable):
                job = step.store.job(step.unit.job_id)
                through = None if job is None else job.through
        return through is None or through >= step.job.batches


@job_task(base=FallBack, name=NAME + "fall_back")
def fall_back(self: FallBack, job_id: str, batch: int, turn: int = 0, seq: int = 0) -> str:
    """Send what deserves another chance once more: as a smaller batch, then through the Messages API; wait for that."""
    step, record = self.step, self.step.batch
    if record.turn <= turn and record.state in _BEFORE_FALL_BACK:
        # A worker of an earlier release moved it past a step that had not run.
        step.note("retry", f"not through: {record.state}; going through its steps again", level=logging.WARNING)
        step.record(turn=turn + 1)
    if record.turn > turn:
        return _another_turn(self, step)
    chance = "none"
    if not record.final:
        # The lane that was the last to end has woken it, before its time.
        if not (record.messages_out and lanes.all_ended(step)):
            self.not_yet_due()
        restoring.mend(step)
        _settle(step)
        chance = "messages" if record.granted is not None else _chance(step)
        if step.job.on_result is not None and record.state != "failed" and record.layers and record.granted is None:
            hooks.announce(step, _final(step))
        if chance == "resubmit":
            _resubmit(step)
            return _another_turn(self, step)
    # Once: if the message of the one that follows is lost, the ledger knows that it is due.
    if not record.made_room and (following := step.store.admit(job_id, batch)) is not None:
        since = step.store.position(Unit(job_id, following))
        line.publish(step.job, job_id, line.steps(self.app, job_id, step.job, following, since=since))
    if record.done:
        return "done"
    if chance == "messages":
        _send_the_rest(self, step)
    _close(step)
    return f"done: {words(record.counts)}; {record.answered:,} through the Messages API"


def _settle(step: Step) -> None:
    """What the batch has cost, as far as is known: the most it may have cost, where it may exist and has no results."""
    record = step.batch
    if step.settings.max_cost is None or record.most is None:
        return
    past = record.rounds[-1].costs if record.rounds else {}
    now = record.costs if record.published is not None else past
    spent = costs.nano(costs.known_total(now) - costs.known_total(past))
    exists = record.batch_id is not None or record.intent_at is not None
    unpriced = record.published is not None and None in record.costs.values()
    if unpriced or (exists and (record.published is None or record.state == "failed")):
        # What is not known may have cost as much as was reserved for it.
        spent = max(spent, record.most or 0)
    step.store.settle_cost(step.unit, len(record.rounds), spent)


def _chance(step: Step) -> str:
    """How what is left of the batch is to be sent again: ``resubmit``, ``messages`` or ``none``."""
    record, settings, now = step.batch, step.settings, step.now()
    if record.state == "failed" or step.job.adopted or not record.eligible or step.job.cancel_requested:
        return "none"
    if record.read_only:
        step.record(note="the store had lost its record, and with it what was sent again of it already")
        return "none"
    if step.job.stopped is not None:
        step.record(note=step.job.stopped)
        return "none"
    deadline = None if settings.deadline is None else step.job.submitted_at + settings.deadline
    limits = [limit - now for limit in (deadline, step.deadline) if limit is not None]
    return policy.next_chance(
        # Where there are no rows, the API did not take the batch, or lost it.
        rounds=len(record.rounds) if record.published is not None else settings.retries,
        retries=settings.retries,
        fallback=settings.fallback,
        in_time=not limits or policy.in_time(min(limits), step.past, record.eligible),
    )


def _final(step: Step) -> Iterator[int]:
    """The positions of the batch's requests that are not to be sent again."""
    left = bytearray(step.batch.count)
    for place in rounds.left(step.store, step.unit.job_id, step.unit.batch or 0, step.batch):
        left[place] = True
    return (place for place in range(step.batch.count) if not left[place])


def _resubmit(step: Step) -> None:
    """Begin the next round."""
    record, store, settings = step.batch, step.store, step.settings
    job_id, batch = step.unit.job_id, step.unit.batch or 0
    changes = rounds.begin(store, job_id, step.job, batch, record)
    wait = policy.backoff(
        len(record.rounds) + policy.RESUBMIT_AFTER,
        retry_min=settings.retry_min,
        retry_max=settings.retry_max,
        at_least=None,
        rand=random.random(),
    )
    wait = step.bound_wait(wait)
    text = f"{changes['smaller']:,} of its requests go into a smaller batch in {duration(wait)}"
    step.note("resubmitted", text, requests=changes["smaller"], round=len(changes["rounds"]), countdown=round(wait, 1))
    step.record(**changes, failures=0, due_at=step.now() + wait)
    metrics.count("smaller_batches")


def _send_the_rest(task: FallBack, step: Step) -> None:
    """Have the rest sent through the Messages API, as far as the job's limit goes.

    Raises:
        FallbackInProgress: not all of it has come back.
    """
    record, store, settings = step.batch, step.store, step.settings
    job_id, batch = step.unit.job_id, step.unit.batch or 0
    if record.granted is None:
        record.granted = store.grant(job_id, batch, record.eligible, settings.max_fallback_requests)
    if record.granted < record.eligible:
        step.record(note=f"max_fallback_requests ({settings.max_fallback_requests:,}) are used up for this job")
    if not record.granted:
        return
    if step.job.cancel_requested:
        store.drop(job_id, batch)
    if record.messages_out and lanes.all_ended(step):
        if not lanes.bury(step):
            lanes.account_for(step)
            return
        lanes.account_for(step)
        # All lanes have ended, and left some of it: whoever had it died, or put it back too late.
        step.record(messages_out=False, first_lane=record.first_lane + policy.LANES)
    if not record.messages_out:
        text = f"{record.granted:,} of {record.eligible:,} requests go through the Messages API"
        step.note("messages", text, requests=record.granted)
        store.enter(job_id, batch, rounds.left(store, job_id, batch, record)[: record.granted])
        units = lanes.units(step)[: 1 if task.request.is_eager else None]
        store.schedule(units, step.now())
        for unit in units:
            line.message(task.app, step.job, unit).apply_async()
        step.record(messages_out=True)
    left = store.under_way(job_id, batch)
    if not left and task.request.is_eager:
        return
    if not left:  # lanes that wait have nothing to wait for
        store.wake(lanes.units(step))
    raise errors.FallbackInProgress(f"fallback: {record.granted - left:,} of {record.granted:,} through")


def _close(step: Step) -> None:
    """The batch has its final outcomes: count them as a reader will see them."""
    record = step.batch
    if not record.final:
        figures, sources = _final_figures(step)
        step.record(final=True, **figures)
        for (outcome, source), count in sources.items():
            metrics.count("requests", count, outcome=outcome, source=source)
    if record.state != "failed":
        hooks.announce(step, range(record.count))
    step.record(done=True)


def _final_figures(step: Step) -> tuple[dict[str, Any], Mapping[tuple[str, str], int]]:
    """What changes in its record, and how many requests ended how and where."""
    record = step.batch
    if not record.granted and not record.read_only:
        return {"skipped": record.eligible} if record.note is not None else {}, rounds.sources(record)
    job_id, batch = step.unit.job_id, step.unit.batch or 0
    sources: Counter[tuple[str, str]] = Counter()
    usage: Counter[str] = Counter(record.usage)
    answered = tried = 0
    meter = costs.Meter(step.settings.price_list, batch=False)
    for outcome in reading.Reader(step.store, job_id, step.job, batch, record).outcomes():
        sources[outcome.row.type, outcome.source] += 1
        if outcome.source == "messages":
            answered += 1
            usage.update(outcome.row.usage)
            if outcome.row.type == "succeeded":
                results.count_answers(meter, [outcome.row.result.message])
    for _, stored in step.store.outcomes(job_id, batch):
        tried += (kept := reading.kept(stored)) is not None and kept.tried
    note = record.note or step.job.stopped
    if note is None and step.deadline is not None and step.now() >= step.deadline:
        note = f"the job waited longer than max_wait ({step.settings.max_wait:g} s)"
    counts: Counter[str] = Counter()
    for (ended, _), count in sources.items():
        counts[ended] += count
    changes = {
        "counts": dict(counts),
        "usage": dict(usage),
        "costs": costs.merged(record.costs, meter.costs()),
        "unpriced": dict(Counter(record.unpriced) + Counter(meter.unpriced())),
        "answered": answered,
        "resubmitted": max(record.resubmitted - answered, 0),
        "skipped": record.eligible - answered - tried,
        "note": note,
    }
    return changes, sources


class SendMessages(StepTask):
    """``send_messages``: its unit is a lane, its arguments job id, batch number, lane, sequence number.

    The lane stands where other steps have the turn.
    """

    abstract = True
    last = True
    waits = False

    def unit(self, job_id: str, batch: int, turn: int) -> Unit:
        """The lane."""
        return Unit(job_id, batch, turn)

    def position(self, turn: int, seq: int) -> int:
        """Only its own sequence number counts."""
        return seq

    def after(self, turn: int) -> int:
        """The end of the lane's life."""
        return DONE

    def due(self) -> float | None:
        """When the lane may send again."""
        return self.step.store.lane(self.step.unit).due_at

    def failures(self) -> int:
        """Of the store or the broker, in a row."""
        return self.step.store.lane(self.step.unit).failures

    def report(self, line: str, due_at: float | None = None) -> None:
        """``fall_back`` reports for all of them."""

    def gone(self, job_id: str) -> NoReturn:
        """``fall_back`` tells whoever waits for the job."""
        raise Ignore("the job is gone from the store")

    def failed(self, error: errors.BatchTasksError) -> str:
        """What is left keeps the outcomes it had: an error here must not end the batch."""
        step = self.step
        try:
            step.stop(str(error))
            step.store.drop(step.unit.job_id, step.unit.batch or 0)
        except errors.StoreUnavailable as exc:
            self.later(exc)
        return f"stopped: {error}"

    def move_on(self) -> None:
        """The last lane to end wakes the others, which have nothing left to wait for, and ``fall_back``."""
        super().move_on()
        if step := getattr(self.request, "step", None):
            with suppress(errors.StoreUnavailable):
                if not step.store.under_way(step.unit.job_id, step.unit.batch or 0):
                    step.store.wake([*lanes.units(step), Unit(step.unit.job_id, step.unit.batch)])


@job_task(base=SendMessages, name=NAME + "send_messages")
def send_messages(self: SendMessages, job_id: str, batch: int, lane: int, seq: int = 0) -> str:
    """Send requests through the Messages API, as many as may be sent now, and store each outcome as it arrives.

    A call whose answer was lost may have been answered and billed, so it is not made a second time: the request keeps
    the outcome it had.
    """
    step = self.step
    if step.store.under_way(job_id, batch):
        self.not_yet_due()
    run = lanes.Lane(step)
    pause = run.run()
    if run.final:
        hooks.announce(step, run.final)
    sent = words(run.done)
    if pause is not None and step.deadline is not None and step.now() >= step.deadline:
        step.store.drop(job_id, batch)
    elif pause is not None:
        raise errors.MoreToSend(f"sent: {sent}", pause)
    return f"sent: {sent}"


# -- the end


class FinishJob(StepTask):
    """``finish_job``: ends the job, when all batches are through.

    A worker runs it as ``run_batch``, which is the task that the caller knows.
    """

    abstract = True
    Request = "claude_batch_tasks.hard_limit:EndRequest"
    last = True
    waits = False
    ignore_result = False

    @property
    def send_events(self) -> bool:  # type: ignore[override]
        """Return what the task says that is known by the job's id."""
        return bool(self.app.tasks[NAME + "run_batch"].send_events)

    @property
    def trail(self) -> bool:  # type: ignore[override]
        """Return what the task says that is known by the job's id."""
        return bool(self.app.tasks[NAME + "run_batch"].trail)

    def unit(self, job_id: str, batch: int, turn: int) -> Unit:
        """The job."""
        return Unit(job_id)

    def position(self, turn: int, seq: int) -> int:
        """It has no sequence: coming back is no new position."""
        return 0

    def after(self, turn: int) -> int:
        """The end of the job's life."""
        return line.ENDED

    def go_on(self, job_id: str, batch: int = 0, turn: int = 0, seq: int = 0) -> Any:
        """End the job, quietly where another is to end it, and with the job's headers on what is linked to it."""
        headers.pass_on(self.request)
        with self.quietly():
            return super().go_on(job_id, batch, turn, seq)

    def check(self, job: JobRecord) -> None:
        """Go on only where all batches are through: those of an earlier release send one each."""
        super().check(job)
        if job.through < job.batches:
            raise Ignore("other batches of the job are still on their way")

    def failed(self, error: errors.BatchTasksError) -> Any:
        """The job's failure is this task's own, for ``get()`` and ``link_error``; how it has ended already stays."""
        job = self.step.job
        return self.end(None if job.ended_at is not None else error)

    def end(self, own: errors.BatchTasksError | None = None) -> dict[str, Any]:
        """End the job, and let its payloads expire in time; its summary.

        Nothing is a completed job whose outcomes do not add up to its requests.

        Args:
            own: what failed the job itself, if no batch did.

        Raises:
            JobEnded: the job has failed.
        """
        step, job_id = self.step, self.step.unit.job_id
        had = step.job
        if own is None and had.error is not None:  # what ended it is in its text alone
            own = errors.StepFailed(had.error)
        missing.replace_lost_batches(step.store, job_id, had)
        batches = step.store.batches(job_id)
        summary = had.summary or totals.summarize(job_id, had, batches, step.now())
        error = failure.of(step, batches, summary, own)
        if error is not None:
            summary["state"] = "failed"
        # Before it has ended: from then on it may be taken up again, and must not expire.
        step.store.expire(job_id, step.settings.result_ttl)
        step.store.update_job(
            job_id,
            state=summary["state"],
            ended_at=step.now(),
            summary=summary,
            error=str(error) if error else None,
        )
        if had.ended_at is None:
            metrics.count("jobs_ended", state=summary["state"])
        counts = {name: summary[name] for name in results.OUTCOMES}
        text, level = f"{summary['state']}, {words(counts)}", logging.INFO
        if error is None and had.stopped is not None:  # a job that fails says so by failing
            text, level = f"{text}; nothing more was sent: {had.stopped}", logging.ERROR
        step.note("finished", text, level=level, state=summary["state"], counts=counts)
        step.tell(signals.job_finished, state=summary["state"], summary=summary, error=str(error) if error else None)
        if error is not None:
            raise JobEnded(error)
        return summary

    def pass_on(self, value: Any) -> None:
        """Publish what follows the job in the caller's chain. It is through only when Celery has stored its result."""
        self.publish_next(value)

    def publish_next(self, value: Any, pause: float = 0) -> None:
        """Publish what is linked to the job, and the next task of the caller's chain; they have the job's headers.

        Celery would do it after this task's end, where an outage of the broker is the end of the chain.

        Raises:
            JobEnded: they cannot be sent, however often it is tried: to the caller that is a failure, as of every task.
        """
        request, step = self.request, self.step
        if request.is_eager or not (request.callbacks or request.chain):
            return
        names = [str(task["task"]) for task in [*(request.callbacks or ()), *(request.chain or ())[-1:]]]
        try:
            publishing.send_what_follows(self.app, request, value, headers.of(step.job))
        except Exception as exc:
            outage = publishing.is_outage(self.app, exc)
            if outage is None and step.failures < self._most_failures(step.settings):
                raise  # which breaks the step off, and is counted
            if outage:
                self.later(OperationalError(f"what follows the job was not sent: {type(exc).__name__}"))
            setattr(request, "not_followed", True)  # noqa: B010 - an attribute of ours on Celery's request
            error = failure.of_what_follows(step, value["state"], names, exc)
            with suppress(errors.StoreUnavailable):
                step.store.update_job(step.unit.job_id, not_sent=str(error))
            step.note("not_sent", f"not sent: {' or '.join(names)}: {exc}", error=type(exc).__name__)
            raise JobEnded(error) from None
        request.callbacks = request.chain = None

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Its result is stored, or it comes back."""
        if not self._unsaved():
            self.move_on()

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """The job's error is stored, or it comes back; or the step was broken off."""
        if not (isinstance(exc, (errors.BatchTasksError, EncodeError)) or is_not_followed(self.request)):
            super().on_failure(exc, task_id, args, kwargs, einfo)
        elif not self._unsaved():
            self.move_on()

    def _unsaved(self) -> bool:
        """Whether the result back end did not take how the job ended; if so, it is tried again later."""
        step = getattr(self.request, "step", None)
        if not getattr(self.request, "unsaved", False) or step is None or self.request.is_eager:
            return False
        try:
            self.come_back(_RESULT_AGAIN, "the result back end did not take the job's result")
            step.store.advance(step.unit, step.owner, self.position(*step.args[2:]))
        except (Reject, errors.StoreUnavailable) as exc:  # then it is found lost
            log.warning("%s: its result is stored later: %s", step.where, exc, extra=step.fields("waiting"))
        self.request.comes_back = True  # type: ignore[attr-defined]
        return True


@job_task(base=FinishJob, name=NAME + "finish_job")
def finish_job(self: FinishJob, job_id: str, batch: int = 0, turn: int = 0, seq: int = 0) -> dict[str, Any]:
    """Sum the job up, let its payloads expire in time, and end the caller's AsyncResult."""
    job = self.step.job
    # Under its id may stand what is not how it ended: REVOKED, or a failure that an earlier release took for its own.
    if job.ended_at is not None and self.told(job_id) == (FAILURE if job.error or job.not_sent else SUCCESS):
        self.move_on()
        raise Ignore("duplicate")
    return self.end()


# -- cancel


@job_task(base=BatchTask, name=NAME + "cancel_batch")
def cancel_batch(self: BatchTask, job_id: str, batch: int) -> str:
    """Ask Anthropic to cancel a batch now; ``poll_batch`` would at its next look."""
    store, settings, record = self.open(job_id)
    found = store.batch(job_id, batch)
    if record is None or found is None or found.batch_id is None or found.state not in ("in_progress", "canceling"):
        return "nothing to cancel yet"
    if found.provisional:
        return "not before it is certain that the batch is this job's"

    def answered(seen: api.Account) -> None:
        if (differs := account.difference(account.known(record, found), seen)) is not None:
            raise errors.AccountChanged(f"client {record.client!r} is on another account: {differs}")

    client = account.caller(settings, record, answered)
    pace = Pace(store, account.name(client, settings, record))
    pace.check()
    try:
        with pace.heeded():
            seen = api.cancel(client, found.batch_id, timeout=settings.timeout)
    except (errors.PermanentError, errors.AccountChanged) as exc:
        return f"refused: {exc}"
    history.note(store, Unit(job_id, batch), "cancel", f"Anthropic: {seen.processing_status}", batch_id=found.batch_id)
    return seen.processing_status


# -- recovery


@job_task(base=BatchTask, name=NAME + "recover_jobs", ignore_result=False)
def recover_jobs(self: BatchTask, after: float = 0, job_id: str | None = None) -> Any:
    """Send again the messages of running jobs that the broker lost. Safe at any time, from several places at once.

    Workers do it by themselves every ``recover_every`` seconds; this is for a schedule or a caller of your own.

    Args:
        after: seconds a message must be overdue to count as lost; 0: everything that waits gets another copy, of
            which the ledger lets one act.
        job_id: do this instead: download again, free of charge, what the store has lost of the results of this job,
            which has ended; returns its summary.

    Raises:
        ResultsMissing: what was lost cannot be had again.
    """
    if job_id is None:
        return f"{recovery.recover(self.app, after)} messages sent again"
    try:
        return restoring.restore(self.app, job_id)
    except (errors.NotFoundError, errors.ResultsMissing) as exc:
        if self.request.retries + 1 >= Settings.of(self.app).results_limit:
            text = f"job {job_id}: what is gone from the store could not be fetched again: {exc}"
            raise errors.ResultsMissing(text) from None
        self.retry(exc=exc)


def _refuse_limits(options: Mapping[str, Any]) -> None:
    """Refuse a limit for one run of a task, which would not be one for the job.

    Raises:
        InvalidSettings: there is one.
    """
    if given := [name for name in ("time_limit", "soft_time_limit") if options.get(name) is not None]:
        raise errors.InvalidSettings(
            f"run_batch option {given[0]} limits one run of a task, and a job takes many: it would not limit the job. "
            "Use max_wait, which does (run_batch.delay(requests, max_wait=7200)); limits of single runs are those of "
            "task_annotations. Nothing was stored or sent"
        )


def _delay(app: Celery, options: Mapping[str, Any]) -> float:
    """Return the seconds from now at which a task with these options is to start, as Celery's workers read them.

    Raises:
        InvalidSettings: eta is no moment.
    """
    if (countdown := options.get("countdown")) or (eta := options.get("eta")) is None:
        return float(countdown or 0)
    return max(_moment(app, "eta", eta) - time.time(), 0)  # noqa: TID251 - as Celery has it


def _expiry(app: Celery, options: Mapping[str, Any]) -> float | None:
    """Return when it is too late for a task with these options to start, epoch seconds, as Celery's workers read it.

    Raises:
        InvalidSettings: expires is no moment, and no number of seconds.
    """
    expires = options.get("expires")
    if expires is None or (isinstance(expires, Real) and not isinstance(expires, bool)):
        return None if expires is None else time.time() + float(expires)  # noqa: TID251 - as Celery has it
    return _moment(app, "expires", expires)


def _moment(app: Celery, name: str, value: Any) -> float:
    try:
        read: Any = maybe_iso8601(value if isinstance(value, str) else value.isoformat())
        moment = maybe_make_aware(read, app.timezone)
    except (AttributeError, TypeError, ValueError):
        kind = "a datetime or one as ISO 8601 text" + (", or a number of seconds" if name == "expires" else "")
        text = f"run_batch option {name} must be {kind}, not {value!r}. Nothing was stored or sent"
        raise errors.InvalidSettings(text) from None
    return float(moment.timestamp())
