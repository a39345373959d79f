"""How a job is submitted: its requests are checked and stored, then the app's task class sends its message."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from celery import Celery
from celery.result import AsyncResult
from celery.utils import uuid

from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.records import JobRecord
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import message_chain, message_headers, publishing, routing
from claude_batch_tasks.steps.task_classes import InnerTask, by_name
from claude_batch_tasks.store import HasJobs, open_store
from claude_batch_tasks.tasks import call_options, sent_jobs

#: Why a limit for one run is refused, and what to do.
_LIMITS = (
    "and a job has many runs: it would not limit the job. Use max_wait, which does (run_batch.delay(requests, "
    "max_wait=7200)); limits of single runs are those of task_annotations"
)

#: The job that is being submitted, and its record: the app's task class sends it, at once or later.
staged_job: ContextVar[tuple[str, JobRecord] | None] = ContextVar("staged", default=None)


class SendJob(InnerTask):
    """The class that sends the message of ``run_batch`` when the app's task class lets it: after a commit, or never.

    In a transaction of the caller's that the store is a part of, the job waits in the store: workers see it when that
    commits, and send its message.
    """

    abstract = True

    def apply_async(
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, *more: Any, **options: Any
    ) -> AsyncResult[Any]:
        """Send the message of the job, or leave it to workers.

        From then on, a message of the job that does not come counts as lost.
        """
        kwargs, options = dict(kwargs or {}), {**options, **by_name(more)}
        store = open_store(Settings.of(self.app))
        if "job_id" not in kwargs:  # the app's class can get here without our ``apply_async``
            task_id = str(task_id or uuid())
            record: JobRecord | None = stage_job(self.app, task_id, tuple(args or ()), kwargs, options)
            args, kwargs = (), {"job_id": task_id}
        else:
            record = _find_staged(store, kwargs["job_id"])
        if record is None:  # the staged requests have expired: the worker of the message reports it
            return super().apply_async(args, kwargs, task_id=task_id, **options)
        job_id: str = kwargs["job_id"]
        if self.app.conf.task_always_eager:
            return super().apply_async(args, kwargs, task_id=job_id, **options)
        delay = call_options.read_delay(self.app, options)
        options |= _reroute_job(self.app, store, job_id, record, options)
        transaction = store.transactions.current()
        if transaction is not None:
            options = publishing.withheld_options(options)
        shown = f"({record.requests} requests in {record.batches} batches,)"
        try:
            with message_headers.observe_headers() as seen:
                sent: Any = super().apply_async(args, kwargs, task_id=job_id, **{"argsrepr": shown, **options})
        except Exception as exc:  # noqa: BLE001 - it is raised again, if no worker has begun the job
            sent_jobs.end_refused_job(self.app, store, job_id, exc)
            return self.AsyncResult(job_id)
        if transaction is None:
            sent_jobs.record_sent(self.app, store, job_id, record, delay, seen)
        else:
            sent_jobs.leave_to_workers(store, job_id, record, delay, seen[-1])
            sent.expect_job(transaction)
        result: AsyncResult[Any] = sent
        return result


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
    refusal = "run_batch takes the requests, and options by keyword"
    requests, kwargs = call_options.read_argument("requests", args, kwargs, refusal)
    call_options.refuse_limits("run_batch", options, _LIMITS)
    delay, expires_at = (
        call_options.read_delay(app, options),
        call_options.read_expiry(app, {"expires": app.tasks[routing.RUN_BATCH].expires, **options}),
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
