"""Jobs that are made of a batch that was created elsewhere."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.utils import uuid

from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.jobs.batch_job import BatchJob
from claude_batch_tasks.jobs.claiming import claim_batch
from claude_batch_tasks.jobs.eager_run import run_job_eagerly
from claude_batch_tasks.jobs.resume_plan import check_no_fallback
from claude_batch_tasks.outputs import describe_output
from claude_batch_tasks.records import DEFAULTS, JobRecord, Unit
from claude_batch_tasks.settings import MetadataValue, Settings, check_label, check_metadata
from claude_batch_tasks.steps import routing
from claude_batch_tasks.store import history, open_store

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from claude_batch_tasks.settings.job_options import JobSettings

#: The form of Anthropic's batch ids; any other text could make the URL that of something else.
_BATCH_ID = re.compile(r"msgbatch_[A-Za-z0-9_-]{1,200}")


def adopt(
    batch_id: str,
    *,
    client: str = "default",
    queue: str | None = None,
    label: str | None = None,
    metadata: Mapping[str, MetadataValue] | None = None,
    output: type[Any] | Mapping[str, Any] | str | None = None,
    check: Callable[[Any], str | None] | str | None = None,
    app: Celery | None = None,
    **options: Unpack[JobSettings],
) -> BatchJob:
    """Make a job of a batch that was created elsewhere (in the Console, by a script): poll, fetch, results.

    Its custom_ids are those at Anthropic, its requests are not known here: what failed is not sent again. Workers begin
    within a second. A batch that the account does not show ends the job with ``BatchLost``.

    Args:
        batch_id: Anthropic's, ``msgbatch_...``.
        client: alias of the account it is on.
        queue: the queue its steps are to follow.
        label, metadata: by which people find the job, in plain text, as ``run_batch`` takes them.
        output, check: the type of the answers, as ``run_batch`` takes it. The requests are as they were sent: answers
            are read as this type, and those that do not fit are counted.
        app: the Celery app; default: the current one.
        options: per-job settings, such as ``max_wait=86_400``.

    Raises:
        ValueError: it is no id of a batch.
        BatchTasksError: another job has the batch.
        InvalidSettings: an option is unknown or is not valid.
        StoreUnavailable: the store does not answer.
    """
    app = app or configured_app()
    if not _BATCH_ID.fullmatch(str(batch_id)):
        raise ValueError(f"batch_id must be Anthropic's id of a batch, msgbatch_..., not {batch_id!r}")
    check_no_fallback(options)
    chosen = {**options, "fallback": "off"}
    settings = Settings.of(app).override(chosen)
    settings.check_client(client)
    store, job_id = open_store(settings), uuid()
    record = _make_record(app, client, queue, chosen, store.now())
    record.label, record.metadata = check_label(label), check_metadata(metadata)
    record.output = describe_output(output, check)
    claim_batch(store, job_id, record, batch_id, settings.result_ttl)
    details: dict[str, Any] = {
        "batch_id": batch_id,
        "client": client,
        "label": label,
        "metadata": record.metadata or None,
    }
    history.note(store, Unit(job_id), "adopted", f"adopted {batch_id}", job=record, **details)
    job = BatchJob(job_id, app)
    if app.conf.task_always_eager:
        job._result = run_job_eagerly(app, store, job_id, record, [0])
    return job


def _make_record(app: Celery, client: str, queue: str | None, options: Mapping[str, Any], now: float) -> JobRecord:
    route = routing.find_route(app, {"queue": queue})
    return JobRecord(
        nonce=secrets.token_hex(8),
        requests=0,
        batches=1,
        client=client,
        queue=routing.queue_name(route),
        route=routing.encode_route(route),
        options=dict(options),
        adopted=True,
        state="running",
        submitted_at=now,
        started_at=now,
        admitted=1,
        defaults=DEFAULTS,
    )
