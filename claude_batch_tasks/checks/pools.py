"""What waits in pools of asks, by queue, and whether a worker is there that makes jobs of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Protocol

from celery import Celery

from claude_batch_tasks.checks import presence, problems
from claude_batch_tasks.checks.problems import Finding, ok
from claude_batch_tasks.errors import InvalidSettings, StoreUnavailable
from claude_batch_tasks.formatting import format_count, format_span
from claude_batch_tasks.metrics import POOL_STATES
from claude_batch_tasks.pool_records import PoolRecord
from claude_batch_tasks.records import JobRecord, PoolSummary, WorkerPresence
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import (
    Clock,
    HasAsks,
    HasJobs,
    HasPools,
    HasPresence,
    HasStatistics,
    open_store,
)

#: Seconds for which a pool may be due before it is late: workers look for due pools every second.
PATIENCE = 30.0

_ENDED = ("completed", "canceled", "failed", "revoked")


class ReadsPools(HasPools, HasAsks, HasJobs, HasStatistics, HasPresence, Clock, Protocol):
    """What summaries of pools are made of."""


def summarize_pools(app: Celery, store: ReadsPools, *, jobs: bool = True) -> list[PoolSummary]:
    """Return what waits in pools and in the jobs that were made of them, by queue and name of the pool.

    Args:
        jobs: whether jobs are counted too: a few fields of each job in the store are read for it.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    workers = store.presence.list_workers()
    found: dict[tuple[str, str], _Sums] = {}
    for _, pool in store.pools.list_pools():
        if pool.state in POOL_STATES:
            queue = find_queue(app, pool)
            found.setdefault((queue or "", pool.name), _Sums()).add_pool(pool)
    for job_id, job in _list_running(store) if jobs else ():
        queue = presence.find_queue(app, job)
        ended = int.from_bytes(store.asks.read_ended(job_id), "big").bit_count()
        found.setdefault((queue or "", job.pool or ""), _Sums()).add_job(job, ended)
    return [_summarize(queue or None, name, found[queue, name], workers) for queue, name in sorted(found)]


def find_queue(app: Celery, pool: PoolRecord) -> str | None:
    """Return the name of the queue that the messages of a pool go to; None: it is not known."""
    job = JobRecord(nonce="", requests=0, batches=0, submitted_at=0.0, queue=pool.queue, route=pool.route)
    return presence.find_queue(app, job)


def check_pools(app: Celery) -> Iterator[Finding]:
    """Check whether somebody is there to make jobs of the pools in which asks wait."""
    try:
        store = open_store(Settings.of(app))
        found, now = summarize_pools(app, store, jobs=False), store.now()
    except (InvalidSettings, StoreUnavailable):  # other checks report it
        return
    late = [finding for each in found for finding in _judge_pools(app, each, now)]
    yield from late
    waiting = sum(each.waiting for each in found)
    if waiting and not late:
        yield ok(f"asks that wait in pools: {waiting:,}. Workers on their queues have reported in the last minute")


def _list_running(store: ReadsPools) -> Iterator[tuple[str, JobRecord]]:
    """Yield the jobs that were made of pools, and have not ended."""
    for page in store.statistics.scan_jobs():
        for job_id, glance in page:
            if glance.pool is not None and glance.state not in _ENDED:
                job = store.jobs.read_job(job_id)
                if job is not None:
                    yield job_id, job


class _Sums:
    """What is counted of the pools of one name and queue."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self.jobs = self.in_pools = self.in_jobs = 0
        self.opened: list[float] = []
        self.due: list[float] = []

    def add_pool(self, pool: PoolRecord) -> None:
        self.states[pool.state] += 1
        self.in_pools += pool.count - pool.withdrawn
        self.opened.append(pool.opened_at)
        if pool.state != "parked":
            self.due.append(pool.due_at)

    def add_job(self, job: JobRecord, ended: int) -> None:
        self.jobs += 1
        self.in_jobs += max(job.requests - ended, 0)
        self.opened.append(job.submitted_at)


def _summarize(queue: str | None, name: str, sums: _Sums, workers: Sequence[WorkerPresence]) -> PoolSummary:
    return PoolSummary(
        pool=name,
        queue=queue,
        **{state: sums.states[state] for state in POOL_STATES},
        sealed=sums.jobs,
        waiting=sums.in_pools + sums.in_jobs,
        in_jobs=sums.in_jobs,
        oldest_at=_first_moment(sums.opened),
        due_at=_first_moment(sums.due),
        workers=tuple(worker.hostname for worker in workers if queue in worker.queues),
    )


def _first_moment(moments: Sequence[float]) -> datetime | None:
    return datetime.fromtimestamp(min(moments), timezone.utc) if moments else None


def _judge_pools(app: Celery, found: PoolSummary, now: float) -> Iterator[Finding]:
    """Yield a finding if nobody makes jobs of the pools of one name and queue."""
    in_pools = found.waiting - found.in_jobs
    if not in_pools or found.queue is None:
        return
    asks = format_count(in_pools, "ask")
    about = {"pool": found.pool, "queue": found.queue, "asks": asks, "app": presence.guess_app(app)}
    if not found.workers:
        yield problems.NOBODY_SEALS.found(**about, age=_format_age(found.oldest_at, now))
    elif found.due_at is not None and now - found.due_at.timestamp() > PATIENCE:
        late = _format_age(found.due_at, now)
        yield problems.LATE_POOLS.found(**about, late=late, workers=presence.name_some(found.workers))


def _format_age(moment: datetime | None, now: float) -> str:
    return format_span(0 if moment is None else max(round(now - moment.timestamp()), 0))
