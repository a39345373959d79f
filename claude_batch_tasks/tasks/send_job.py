"""How a job is submitted: its requests are checked and stored, then the app's task class sends its message."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from numbers import Real
from typing import Any

from celery import Celery
from celery.result import AsyncResult
from celery.utils import uuid
from celery.utils.time import maybe_iso8601, maybe_make_aware

from claude_batch_tasks import errors
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.records import JobRecord
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import message_chain, message_headers, publishing, routing
from claude_batch_tasks.steps.task_classes import InnerTask, by_name
from claude_batch_tasks.store import HasJobs, open_store
from claude_batch_tasks.tasks import sent_jobs

#: The job that is being submitted, and its record: the app's task class sends it, at once or later.
staged_job: ContextVar[tuple[str, JobRecord] | None] = ContextVar("staged", default=None)


class SendJob(InnerTask):
    """The class that sends the message of ``run_batch`` when the app's task class lets it: after a commit, or never."""

    abstract = True

    def apply_async(
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, *more: Any, **options: Any
    ) -> AsyncResult[Any]:
        """Send the message of the job.

        From then on, a message of the job that does not come counts as lost.
        """
        kwargs, options = dict(kwargs or {}), {**options, **by_name(more)}
        store = open_store(Settings.of(self.app))
        if "job_id" not in kwargs:  # the app's class can get here without our ``apply_async``
            task_id = task_id or uuid()
            record: JobRecord | None = stage_job(self.app, task_id, tuple(args or ()), kwargs, options)
            args, kwargs = (), {"job_id": task_id}
        else:
            record = _find_staged(store, kwargs["job_id"])
        if record is None:  # the staged requests have expired: the worker of the message reports it
            return super().apply_async(args, kwargs, task_id=task_id, **options)
        job_id: str = kwargs["job_id"]
        if self.app.conf.task_always_eager:
            return super().apply_async(args, kwargs, task_id=job_id, **options)
        delay = read_delay(self.app, options)
        options |= _reroute_job(self.app, store, job_id, record, options)
        shown = f"({record.requests} requests in {record.batches} batches,)"
        try:
            with message_headers.observe_headers() as seen:
                sent = super().apply_async(args, kwargs, task_id=job_id, **{"argsrepr": shown, **options})
        except Exception as exc:  # noqa: BLE001 - it is raised again, if no worker has begun the job
            sent_jobs.end_refused_job(self.app, store, job_id, exc)
            return self.AsyncResult(job_id)
        sent_jobs.record_sent(self.app, store, job_id, record, delay, seen)
        return sent


def _find_staged(store: HasJobs, job_id: str) -> JobRecord | None:
    """Return the job that is being submitted, or has been."""
    staged = staged_job.get()
    return staged[1] if staged is not None and staged[0] == job_id else store.jobs.read_job(job_id)


def _reroute_job(
    app: Celery, store: HasJobs, job_id: str, record: JobRecord, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options that send the job's message; record its route if the app's class sends it elsewhere."""
    route = routing.reroute_message(app, record, options)
    if (encoded := routing.encode_route(route)) != record.route:
        store.jobs.update_job(job_id, only="staged", route=encoded, queue=routing.queue_name(route))
    return routing.merge_options(route)


def stage_job(
    app: Celery, job_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> JobRecord:
    """Check the arguments of ``run_batch``, and put its requests into the store.

    Raises:
        TypeError, InvalidRequests, InvalidSettings: the text says what is wrong; nothing was stored or sent.
        StoreUnavailable: the store does not answer; nothing was stored or sent.
    """
    kwargs = dict(kwargs)
    if len(args) > 1 or (args and "requests" in kwargs) or not (args or "requests" in kwargs):
        raise TypeError("run_batch takes the requests, and options by keyword. Nothing was stored or sent")
    requests = args[0] if args else kwargs.pop("requests")
    _refuse_limits(options)
    delay, expires_at = (
        read_delay(app, options),
        read_expiry(app, {"expires": app.tasks[routing.RUN_BATCH].expires, **options}),
    )
    if not app.conf.task_always_eager:
        publishing.choose_serializer(app)
        publishing.check_serializer(app, options.get("serializer"))
    route = routing.find_route(app, options, (requests,), kwargs)
    return submission.submit_job(
        app,
        job_id,
        requests,
        kwargs,
        canvas=message_chain.encode_canvas({**options, **routing.merge_options(route)}),
        queue=routing.queue_name(route),
        route=routing.encode_route(route),
        headers=message_headers.encode_headers(options.get("headers")),
        delay=delay,
        expires_at=expires_at,
    )


def _refuse_limits(options: Mapping[str, Any]) -> None:
    """Refuse a limit for one run of a task, which would not limit the job.

    Raises:
        InvalidSettings: such a limit was given.
    """
    if given := [name for name in ("time_limit", "soft_time_limit") if options.get(name) is not None]:
        raise errors.InvalidSettings(
            f"run_batch option {given[0]} limits one run of a task, and a job has many runs: it would not limit the "
            "job. Use max_wait, which does (run_batch.delay(requests, max_wait=7200)); limits of single runs are those "
            "of task_annotations. Nothing was stored or sent"
        )


def read_delay(app: Celery, options: Mapping[str, Any]) -> float:
    """Return the seconds from now at which a task with these options is to start, as Celery's workers read them.

    Raises:
        InvalidSettings: eta is not a moment.
    """
    if (countdown := options.get("countdown")) or (eta := options.get("eta")) is None:
        return float(countdown or 0)
    return max(_read_moment(app, "eta", eta) - time.time(), 0)  # noqa: TID251 - as Celery has it


def read_expiry(app: Celery, options: Mapping[str, Any]) -> float | None:
    """Return when it is too late for a task with these options to start, epoch seconds, as Celery's workers read it.

    Raises:
        InvalidSettings: expires is neither a moment nor a number of seconds.
    """
    expires = options.get("expires")
    if expires is None or (isinstance(expires, Real) and not isinstance(expires, bool)):
        return None if expires is None else time.time() + float(expires)  # noqa: TID251 - as Celery has it
    return _read_moment(app, "expires", expires)


def _read_moment(app: Celery, name: str, value: Any) -> float:
    try:
        read: Any = maybe_iso8601(value if isinstance(value, str) else value.isoformat())
        moment = maybe_make_aware(read, app.timezone)
    except (AttributeError, TypeError, ValueError):
        kind = "a datetime or one as ISO 8601 text" + (", or a number of seconds" if name == "expires" else "")
        text = f"run_batch option {name} must be {kind}, not {value!r}. Nothing was stored or sent"
        raise errors.InvalidSettings(text) from None
    return float(moment.timestamp())
