"""The record of a retry: what it has from the job that is retried, and what its caller gave it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Celery

from claude_batch_tasks.formatting import format_count
from claude_batch_tasks.lifecycle import delivery, submission
from claude_batch_tasks.records import DEFAULTS, JobRecord, Unit
from claude_batch_tasks.settings import Settings, check_label, check_metadata
from claude_batch_tasks.steps import routing
from claude_batch_tasks.store import Store, history


def make_record(
    app: Celery, parent_id: str, parent: JobRecord, options: Mapping[str, Any], store: Store
) -> tuple[JobRecord, Settings]:
    """Return the record of a retry without its requests, and its settings.

    Raises:
        InvalidSettings: an option is unknown or is not valid.
    """
    own = dict(options)
    alias, queue = own.pop("client", parent.client), own.pop("queue", None)
    on_result = parent.on_result
    if "on_result" in own:
        called = own.pop("on_result")
        on_result = delivery.encode_hook(called)
        delivery.check_hook(app, called)
    label = check_label(own.pop("label")) if "label" in own else parent.label
    metadata = check_metadata(own.pop("metadata")) if "metadata" in own else parent.metadata
    if own.get("deadline") is not None:
        own["deadline"] = submission.seconds_until(own["deadline"], store.now)
    submission.check_reask(parent.output, own)
    chosen = {**parent.options, **own}
    settings = Settings.of(app).override(chosen)
    settings.check_client(alias)
    found = None if queue is None else routing.find_route(app, {"queue": queue})
    job = JobRecord(
        nonce="",
        requests=0,
        batches=0,
        client=alias,
        queue=parent.queue if found is None else routing.queue_name(found),
        route=parent.route if found is None else routing.encode_route(found),
        headers=parent.headers,
        options=chosen,
        on_result=on_result,
        state="running",
        submitted_at=0.0,
        defaults=DEFAULTS,
        parent=parent_id,
        output=parent.output,
        label=label,
        metadata=metadata,
    )
    return job, settings


def note_retry(store: Store, parent_id: str, job_id: str, job: JobRecord, count: int) -> None:
    """Record a retry in its own history and in that of the job that is retried."""
    what = format_count(count, "request")
    text = f"retried: {what} that failed are sent again as job {job_id}"
    history.note(store, Unit(parent_id), "retried", text, retry=job_id, requests=count)
    details: dict[str, Any] = {"requests": count, "batches": job.batches, "client": job.client, "queue": job.queue}
    details |= {"label": job.label, "metadata": job.metadata or None}
    text = f"submitted: {what}, a retry of job {parent_id}"
    history.note(store, Unit(job_id), "submitted", text, job=job, parent=parent_id, **details)
