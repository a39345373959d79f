"""How a pool's asks are answered by their deadline: by a batch, or through the Messages API."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import NamedTuple

from celery import Celery

from claude_batch_tasks import errors
from claude_batch_tasks.pool_records import PoolRecord
from claude_batch_tasks.pricing import request_bounds, spending
from claude_batch_tasks.records import JobRecord, Unit
from claude_batch_tasks.rules import urgency as rules
from claude_batch_tasks.settings import NAMES, Settings
from claude_batch_tasks.steps import credentials
from claude_batch_tasks.store import Store, history


class Way(NamedTuple):
    """How the job of a pool is answered."""

    direct: bool = False
    answer_by: float | None = None
    """As ``JobRecord`` has these two."""
    late: str | None = None
    """Why its answers may come after the deadline."""


def choose_way(app: Celery, store: Store, job_id: str, pool: PoolRecord) -> Way:
    """Decide how a pool is answered that is about to become a job.

    Raises:
        StoreUnavailable: the store does not answer.
        InvalidSettings: this worker's settings do not go with the pool's options.
    """
    if pool.mode == "messages":
        return Way(direct=True)
    if pool.deadline is None:
        return Way()
    settings = Settings.of(app).override({name: value for name, value in pool.options.items() if name in NAMES})
    requests = pool.count - pool.withdrawn
    covered = _is_covered(store, job_id, settings, requests)
    chosen = rules.choose_urgency(
        pool.deadline - store.now(),
        _read_past(store, settings, pool),
        requests,
        fallback=settings.fallback,
        covered=covered,
    )
    if chosen == "batch":
        return Way(late=_explain_late(settings, covered=covered))
    return Way(direct=chosen == "messages", answer_by=pool.deadline)


def fits_budget(store: Store, job_id: str, settings: Settings, requests: int) -> bool:
    """Return whether one job's budget for the Messages API covers a pool, or that of no job covers an ask of it."""
    limit = _limit_of_messages(settings)
    if 0 < settings.max_fallback_requests < requests:
        return False
    most = None if limit is None else _bound_cost(store, job_id, settings, limit)
    return limit is None or most is None or most <= limit


def note_late(store: Store, job_id: str, job: JobRecord, way: Way) -> None:
    """Record that the answers of a pool's job may come after their deadline, if so."""
    if way.late is not None:
        text = f"its asks may be answered after their deadline: {way.late}"
        history.note(store, Unit(job_id), "limited", text, job=job)


def _read_past(store: Store, settings: Settings, pool: PoolRecord) -> list[tuple[int, float]]:
    """Return the past batches of a pool's account; none if this worker has no client of it."""
    job = JobRecord(nonce="", requests=0, batches=0, submitted_at=0.0, client=pool.client)
    with suppress(errors.InvalidSettings, errors.PermanentError):
        client = credentials.make_caller(settings, job, lambda seen: None)
        return store.in_flight.past_durations(credentials.name_account(client, settings, job))
    return []


def _is_covered(store: Store, job_id: str, settings: Settings, requests: int) -> bool:
    """Return whether the budget of the fallback covers all asks of a pool."""
    limit = _limit_of_messages(settings)
    few = rules.is_covered(requests, 0, max_requests=settings.max_fallback_requests, max_cost=limit)
    if not few or limit is None or settings.fallback == "off":
        return few
    most = _bound_cost(store, job_id, settings, limit)
    return rules.is_covered(requests, most, max_requests=settings.max_fallback_requests, max_cost=limit)


def _limit_of_messages(settings: Settings) -> int | None:
    """Return what one job may spend at the Messages API, nano-dollars; None: any amount."""
    limits = [limit for limit in (settings.max_fallback_cost, settings.max_cost) if limit is not None]
    return spending.to_nano_dollars(min(limits)) if limits else None


def _bound_cost(store: Store, job_id: str, settings: Settings, limit: int) -> int | None:
    """Return what the asks of a pool may cost through the Messages API, nano-dollars; more than the limit is enough.

    None: it is not known.
    """
    most = 0
    for asks in store.pools.read_asks(job_id):
        for ask in asks:
            if ask is None:
                continue
            found = request_bounds.budget_need(json.loads(ask.params), settings.price_list, batch=False)
            if isinstance(found, request_bounds.Unbounded):
                return None
            most += spending.to_nano_dollars(found.most)
        if most > limit:
            break
    return most


def _explain_late(settings: Settings, *, covered: bool) -> str:
    if settings.fallback == "off":
        return "nothing may go through the Messages API (fallback)"
    assert not covered
    costs = {name: getattr(settings, name) for name in ("max_fallback_cost", "max_cost")}
    named = ", ".join(f"{name} (${cost:,.4g})" for name, cost in costs.items() if cost is not None)
    return (
        f"{named or 'max_fallback_cost (no limit)'} or max_fallback_requests ({settings.max_fallback_requests:,}) may "
        "not cover them at the Messages API"
    )
