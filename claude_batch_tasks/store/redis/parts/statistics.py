"""Figures about all jobs, in Redis, and the workers that run.

Of each record, only a few fields are read. A worker has an expiring key, and is in an index.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from claude_batch_tasks.records import BatchGlance, JobGlance, WorkerPresence
from claude_batch_tasks.store.redis.connection import Part, answering
from claude_batch_tasks.store.redis.keys import (
    CENSUS,
    CENSUS_FRESH,
    JOBS,
    LEASE_PREFIX,
    MISSED,
    WORKERS,
    batch_key,
    job_key,
    past_key,
    worker_key,
)
from claude_batch_tasks.store.report_encoding import encode_worker, read_workers

_decode = msgspec.json.decode

#: Records that are read at a time.
_PAGE = 500

#: Workers that are listed at most.
_MOST_WORKERS = 1_000

_OF_JOBS = ("state", "batches", "admitted", "through", LEASE_PREFIX + MISSED, "pool", "requests")
_OF_BATCHES = BatchGlance._fields


class RedisStatistics(Part):
    """``interface.Statistics`` on a Redis server."""

    @answering
    def scan_jobs(self) -> Iterator[list[tuple[str, JobGlance]]]:
        for first in itertools.count(step=_PAGE):
            job_ids = [member.decode() for member in self._redis.zrange(JOBS, first, first + _PAGE - 1)]
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id in job_ids:
                    pipe.hmget(job_key(job_id), *_OF_JOBS)
                rows = pipe.execute()
            # What has expired has no fields.
            yield [(job_id, JobGlance(*_values(row))) for job_id, row in zip(job_ids, rows, strict=True) if row[0]]
            if len(job_ids) < _PAGE:
                return

    @answering
    def scan_batches(self, job_id: str, batches: int) -> Iterator[list[tuple[int, BatchGlance]]]:
        for start in range(0, batches, _PAGE):
            numbers = range(start, min(start + _PAGE, batches))
            with self._redis.pipeline(transaction=False) as pipe:
                for number in numbers:
                    pipe.hmget(batch_key(job_id, number), *_OF_BATCHES)
                rows = pipe.execute()
            yield [(number, BatchGlance(*_values(row))) for number, row in zip(numbers, rows, strict=True) if row[0]]

    @answering
    def past_seconds(self, kinds: Sequence[str]) -> list[list[float]]:
        with self._redis.pipeline(transaction=False) as pipe:
            for kind in kinds:
                pipe.lrange(past_key(kind), 0, -1)
            return [[_decode(entry)[1] for entry in entries] for entries in pipe.execute()]

    @answering
    def begin_statistics(self, ttl: float) -> bool:
        return bool(self._redis.set(CENSUS_FRESH, b"", nx=True, px=int(ttl * 1000)))

    @answering
    def save_statistics(self, found: bytes, ttl: float) -> None:
        self._redis.set(CENSUS, found, px=int(ttl * 1000))

    @answering
    def read_statistics(self) -> bytes | None:
        found: bytes | None = self._redis.get(CENSUS)
        return found

    @answering
    def is_first(self, name: str, ttl: float) -> bool:
        return self._connection.is_first(name, ttl)


class RedisPresence(Part):
    """``interface.Presence`` on a Redis server."""

    @answering
    def report_worker(self, worker: WorkerPresence, ttl: float) -> None:
        now = self._redis.time()[0]
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(worker_key(worker.hostname), encode_worker(worker), px=int(ttl * 1000))
            pipe.zadd(WORKERS, {worker.hostname: now + ttl})
            pipe.zremrangebyscore(WORKERS, "-inf", f"({now}")
            pipe.execute()

    @answering
    def remove_worker(self, hostname: str) -> None:
        self._redis.zrem(WORKERS, hostname)
        self._redis.delete(worker_key(hostname))

    @answering
    def list_workers(self) -> list[WorkerPresence]:
        indexed = self._redis.zrevrangebyscore(WORKERS, "+inf", "-inf", start=0, num=_MOST_WORKERS)
        names = [name.decode() for name in indexed]
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.get(worker_key(name))
            found = pipe.execute() if names else []
        return read_workers([each for each in found if each is not None])


def _values(row: list[bytes | None]) -> list[Any]:
    return [None if value is None else _decode(value) for value in row]
