"""The gauges: statistics of all jobs together, at this moment.

They are read from the store, so each worker reports the same. Only one process reads the whole store, four times a
minute at most; the others get what it found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Protocol, TypeVar, get_args

import msgspec
from celery import Celery

from claude_batch_tasks import rules
from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.metrics import METRICS, POOL_STATES, Reading
from claude_batch_tasks.pool_records import PoolRecord
from claude_batch_tasks.records import BatchGlance, BatchState, JobGlance, JobState, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import dispatch
from claude_batch_tasks.store import HasAsks, HasPools, HasSchedule, HasStatistics, open_store

log = get_logger(__name__)

#: Seconds for which the statistics are given to all, and after which they are dropped if there are no newer ones.
FRESH, KEPT = 15.0, 60.0

#: Seconds after which work that is due and not taken is overdue: a message takes a moment.
GRACE = 5.0

_IN_FLIGHT = ("in_progress", "canceling")
_ENDED = ("completed", "canceled", "failed", "revoked")

_Figure = tuple[str, dict[str, str], float]
_encode = msgspec.json.encode
# Made at import, while there is one thread; see store.redis.
_decode = msgspec.json.Decoder(list[_Figure]).decode
_T = TypeVar("_T")


def readings(app: Celery) -> list[Reading]:
    """Return the present value of each gauge; none if the store does not answer, or has no statistics yet."""
    try:
        with dispatch.no_fork:
            store = open_store(Settings.of(app))
            mine = store.statistics.begin_statistics(FRESH)
        if mine:
            found = _encode(take_census(store, store.now()).list_figures())
        with dispatch.no_fork:
            if mine:
                store.statistics.save_statistics(found, KEPT)
            else:
                found = store.statistics.read_statistics() or b"[]"
    except StoreUnavailable as exc:
        log.warning("gauges are missing: %s", exc)
        return []
    # Another release may have stored a gauge that this one does not know.
    return [Reading(METRICS[name], labels, value) for name, labels, value in _decode(found) if name in METRICS]


class Census:
    """Statistics that grow with what is counted: jobs, the started batches of unfinished jobs, pools, what is late."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._jobs = Counter(dict.fromkeys(get_args(JobState), 0))
        self._batches = Counter(dict.fromkeys(get_args(BatchState), 0))
        self._oldest = self._unseen = self._overdue_for = 0.0
        self._overdue = 0
        #: Seconds until the results of the first unfetched batch expire; None: there is no such batch.
        self._left: float | None = None
        self._pools = Counter(dict.fromkeys(POOL_STATES, 0))
        self._asks = Counter({"pool": 0, "job": 0})
        self._oldest_ask = self._pool_overdue = 0.0
        #: Jobs that wait for a message of their own; the others, which run, wait for those of their batches.
        self._waiting: set[str] = set()
        #: Units whose message was sent again and not taken: by the index, they are not late.
        self._missed: set[Unit] = set()

    def job(self, job_id: str, job: JobGlance) -> bool:
        """Count a job, and return whether its started batches are to be counted as well."""
        self._jobs[job.state] += 1
        if job.state in _ENDED:
            return False
        self._batches["staged"] += job.batches - job.admitted
        if job.state == "staged" or job.through >= job.batches:
            self._waiting.add(job_id)
            self._count_missed(Unit(job_id), job.missed)
        return True

    def batch(self, unit: Unit, batch: BatchGlance) -> None:
        """Count a batch."""
        self._batches[batch.state] += 1
        self._count_missed(unit, batch.missed)
        if batch.created_at is None or batch.state not in (*_IN_FLIGHT, "ended"):
            return
        age = self._now - batch.created_at
        self._left = min(rules.RETENTION - age, rules.RETENTION if self._left is None else self._left)
        if batch.state in _IN_FLIGHT:
            self._oldest = max(self._oldest, age)
            self._unseen = max(self._unseen, self._now - (batch.sighting or batch.created_at))

    def pool(self, pool: PoolRecord) -> None:
        """Count a pool that is no job yet."""
        if pool.state not in POOL_STATES:
            return
        self._pools[pool.state] += 1
        self._asks["pool"] += (waiting := pool.count - pool.withdrawn)
        if waiting:
            self._oldest_ask = max(self._oldest_ask, self._now - pool.opened_at)
            if pool.state != "parked":
                self._pool_overdue = max(self._pool_overdue, self._now - pool.due_at)

    def asks_of_job(self, requests: int, ended: bytes) -> None:
        """Count the asks of a job that runs.

        Args:
            ended: which of its asks have ended, as ``asks.read_ended`` returns it.
        """
        self._asks["job"] += max(requests - int.from_bytes(ended, "big").bit_count(), 0)

    def late(self, unit: Unit, due_at: float) -> None:
        """Count a unit that is due and was not taken."""
        if unit not in self._missed and (unit.batch is not None or unit.job_id in self._waiting):
            self._overdue += 1
            self._overdue_for = max(self._overdue_for, self._now - due_at)

    def _count_missed(self, unit: Unit, since: float | None) -> None:
        if since is not None:
            self.late(unit, since)
            self._missed.add(unit)

    def list_figures(self) -> list[_Figure]:
        """Return the name, labels and value of each gauge."""
        found: list[_Figure] = [("jobs", {"state": state}, count) for state, count in self._jobs.items()]
        found += [("batches", {"state": state}, count) for state, count in self._batches.items()]
        found += [("pools", {"state": state}, count) for state, count in self._pools.items()]
        found += [("asks_waiting", {"where": where}, count) for where, count in self._asks.items()]
        single = {
            "oldest_ask_seconds": self._oldest_ask,
            "overdue_pool_seconds": self._pool_overdue,
            "oldest_batch_seconds": self._oldest,
            "unseen_seconds": self._unseen,
            "results_left_seconds": self._left,
            "overdue_units": self._overdue,
            "overdue_seconds": self._overdue_for,
        }
        return [*found, *((name, {}, value) for name, value in single.items() if value is not None)]


class _Counted(HasAsks, HasPools, HasSchedule, HasStatistics, Protocol):
    """What gauges are made of."""


def take_census(store: _Counted, now: float) -> Census:
    """Read the whole store, and return the statistics.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    census = Census(now)
    for jobs in _without_forks(store.statistics.scan_jobs()):
        for job_id, job in jobs:
            if census.job(job_id, job):
                _count_parts(census, store, job_id, job)
    for _, pool in _without_forks(store.pools.list_pools()):
        census.pool(pool)
    for units in _without_forks(store.schedule.scan_late(now - GRACE)):
        for unit, due_at in units:
            census.late(unit, due_at)
    return census


def _count_parts(census: Census, store: _Counted, job_id: str, job: JobGlance) -> None:
    """Count the batches of a job that runs, and its asks if it was made of a pool."""
    if job.pool is not None:
        with dispatch.no_fork:
            ended = store.asks.read_ended(job_id)
        census.asks_of_job(job.requests or 0, ended)
    for batches in _without_forks(store.statistics.scan_batches(job_id, job.admitted)):
        for number, batch in batches:
            census.batch(Unit(job_id, number), batch)


def _without_forks(pages: Iterator[_T]) -> Iterator[_T]:
    """Yield the pages; in a worker's main process, a fork waits no longer than one page takes."""
    while True:
        with dispatch.no_fork:
            page = next(pages, None)
        if page is None:
            return
        yield page
