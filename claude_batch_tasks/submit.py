"""The handing over of a job's requests: into the store, before anything is sent."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from celery import Celery

from claude_batch_tasks import requests as wire
from claude_batch_tasks.errors import BatchTasksError, StoreUnavailable
from claude_batch_tasks.index import Index
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import BatchRecord, JobRecord, Store


def submit(
    app: Celery,
    job_id: str,
    requests: Iterable[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Any],
    *,
    canvas: str = "{}",
    queue: str | None = None,
    delay: float = 0,
) -> JobRecord:
    """Put a job's requests into the store; nothing is sent yet. On any error nothing stays behind.

    Args:
        job_id: the task id of its ``run_batch``.
        options: the job's own settings, and ``client``, the alias of the account.
        canvas: what follows it in the caller's Celery canvas, as ``line.canvas`` encodes it.
        queue: the queue the steps are to follow.
        delay: seconds until the job is to start.

    Raises:
        InvalidRequests, InvalidSettings: what is wrong with them.
        BatchTasksError: there is a job of that id already.
        StoreUnavailable: the store does not answer.
    """
    options = dict(options)
    alias = options.pop("client", "default")
    settings = Settings.of(app).override(options)
    settings.check_client(alias)
    store = settings.open_store()
    nonce, index = secrets.token_hex(8), Index()
    batches: list[BatchRecord] = []
    pieces = wire.cut(
        requests,
        nonce=nonce,
        index=index,
        max_requests=settings.max_requests_per_batch,
        max_bytes=settings.max_bytes_per_batch,
    )
    try:
        store.stage(job_id, nonce, _noted(pieces, batches))
        total = sum(batch.count for batch in batches)
        store.stage_index(job_id, nonce, index.parts())
        job = JobRecord(
            nonce=nonce,
            requests=total,
            batches=len(batches),
            client=alias,
            queue=queue,
            options=options,
            canvas=canvas,
            submitted_at=time.time(),
        )
        if not store.create_job(job_id, job, batches, settings.result_ttl + delay):
            raise BatchTasksError(f"there is a job {job_id} already; a task id stands for one job")
    except BaseException:
        # If the store does not answer now either, what is staged expires.
        with suppress(StoreUnavailable):
            store.discard(job_id, nonce, len(batches))
            if (made := store.job(job_id)) is not None and made.nonce == nonce:
                store.delete(job_id)  # only the answer was lost
        raise
    return job


def _noted(pieces: Iterable[wire.Piece], batches: list[BatchRecord]) -> Iterator[wire.Piece]:
    """The pieces, while the batches they make up are noted."""
    for piece in pieces:
        if piece.batch == len(batches):
            first = batches[-1].first + batches[-1].count if batches else 0
            batches.append(BatchRecord(first=first, count=0, body_bytes=sum(map(len, wire.ENVELOPE)) - 1))
        batches[-1].count += len(piece.custom_ids)
        batches[-1].body_bytes += len(piece.body) + 1
        yield piece


def body(store: Store, job_id: str, batch: int) -> Iterator[bytes]:
    """The body of a batch's create, in pieces; as long as its record's ``body_bytes`` says."""
    yield wire.ENVELOPE[0]
    for number, piece in enumerate(store.bodies(job_id, batch)):
        if number:
            yield b","
        yield piece
    yield wire.ENVELOPE[1]
