"""The job of a pool: its asks become the requests of the job, which is stored and not started yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from celery import Celery

from claude_batch_tasks.errors import BatchTasksError, InvalidRequests
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.lifecycle.pools import revoking, urgency
from claude_batch_tasks.pool_records import Ask, PoolRecord
from claude_batch_tasks.records import JobRecord
from claude_batch_tasks.settings import NAMES, Settings
from claude_batch_tasks.store import Store
from claude_batch_tasks.wire.batch_requests import CheckedRequest


def make_job(app: Celery, store: Store, job_id: str, pool: PoolRecord) -> JobRecord | None:
    """Store the job of a pool; return None if no ask of the pool is left, or if the job was deleted.

    Raises:
        InvalidRequests: its asks are too much for one job, and several are to be made of them.
        InvalidSettings: this worker's settings do not go with the pool's options.
        PayloadDamaged: the store has changed one of its asks.
        StoreUnavailable: the store does not answer.
    """
    _check_size(app, store, job_id, pool)
    requests = _read_requests(app, store, job_id)
    if (first := next(requests, None)) is None:
        return None
    options: dict[str, Any] = {"label": f"pool:{pool.name}", **pool.options, "client": pool.client}
    if (reserved := _sum_reserved(store, job_id, first.custom_id)) is not None:
        options["max_cost"] = min(reserved, options.get("max_cost") or reserved)
    way = urgency.choose_way(app, store, job_id, pool)
    try:
        job = submission.submit_job(
            app,
            job_id,
            chain([first], requests),
            options,
            queue=pool.queue,
            route=pool.route,
            pool=pool.name,
            answer_by=way.answer_by,
            direct=way.direct,
        )
    except BatchTasksError:
        made = store.jobs.read_job(job_id)
        if made is None and not store.jobs.was_deleted(job_id):
            raise
        return made  # another message of this pool has made it
    urgency.note_late(store, job_id, job, way)
    return job


def _check_size(app: Celery, store: Store, job_id: str, pool: PoolRecord) -> None:
    """Refuse a pool that would be more than one batch, or more than the Messages API may be sent for one job.

    A create that is refused because of one ask would fail the others of its batch. A limit for each job says nothing
    about asks that happen to be in one.
    """
    settings = Settings.of(app).override({name: value for name, value in pool.options.items() if name in NAMES})
    count = pool.count - pool.withdrawn
    if count > 1 and (count > settings.max_requests_per_batch or pool.size > settings.max_bytes_per_batch):
        raise InvalidRequests("its asks are too many, or too large, for one batch")
    if count > 1 and pool.mode == "messages" and not urgency.fits_budget(store, job_id, settings, count):
        raise InvalidRequests("its asks are more than max_fallback_requests and max_fallback_cost cover in one job")


def _read_requests(app: Celery, store: Store, job_id: str) -> Iterator[CheckedRequest]:
    """Yield the asks of a pool as requests of a job, without those that were withdrawn or have expired."""
    ttl = Settings.of(app).result_ttl
    for asks in store.pools.read_asks(job_id):
        now = store.now()
        late = [ask.id for ask in asks if ask is not None and _has_expired(ask, now)]
        done = store.asks.withdraw(late, ttl, sealing=True) if late else []
        gone = [ask_id for ask_id, withdrawn in zip(late, done, strict=True) if withdrawn]
        revoking.announce_revoked(app, store, gone, reason="expired")
        for ask in asks:
            if ask is not None and ask.id not in gone:
                yield CheckedRequest(ask.id, ask.params)


def _has_expired(ask: Ask, now: float) -> bool:
    return ask.expires_at is not None and ask.expires_at <= now


def _sum_reserved(store: Store, job_id: str, first: str) -> float | None:
    """Return how many dollars the asks of a pool have reserved of the cost limit of its name; None: it has no limit.

    Repairs of answers might cost more than that.

    Args:
        first: the id of one of the asks.
    """
    if not _reserved_by(store, [first]):
        return None
    chunks = ([ask.id for ask in asks if ask is not None] for asks in store.pools.read_asks(job_id, params=False))
    return sum(_reserved_by(store, ids) for ids in chunks) / 1e9


def _reserved_by(store: Store, ask_ids: Sequence[str]) -> int:
    return sum(place.reserved for place in store.asks.read_places(ask_ids) if place is not None)
