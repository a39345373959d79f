"""Figures about all jobs, in PostgreSQL, and the workers that run. Of each record, only a few fields are read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from claude_batch_tasks.records import BatchGlance, JobGlance, WorkerPresence
from claude_batch_tasks.store.postgres.connection import Part, answering
from claude_batch_tasks.store.report_encoding import encode_worker, read_workers

#: Records that are read at a time.
_PAGE = 500

#: Workers that are listed at most.
_MOST_WORKERS = 1_000

#: The flags that hold the figures, and that say that they are young enough.
_FIGURES, _FRESH = "statistics", "statistics:fresh"


class PostgresStatistics(Part):
    """``interface.Statistics`` on a PostgreSQL server."""

    queries = "statistics"

    @answering
    def scan_jobs(self) -> Iterator[list[tuple[str, JobGlance]]]:
        after, last = -math.inf, 0
        while rows := self._fetch("scan_jobs", after=after, id=last, limit=_PAGE):
            yield [(job_id, JobGlance(*_decode(values))) for _, _, job_id, values in rows]
            after, last, *_ = rows[-1]

    @answering
    def scan_batches(self, job_id: str, batches: int) -> Iterator[list[tuple[int, BatchGlance]]]:
        for first in range(0, batches, _PAGE):
            rows = self._fetch("scan_batches", job_id=job_id, first=first, end=min(first + _PAGE, batches))
            yield [(number, BatchGlance(*_decode(values))) for number, values in rows]

    @answering
    def past_seconds(self, kinds: Sequence[str]) -> list[list[float]]:
        return [seconds for (seconds,) in self._fetch("past_seconds", kinds=list(kinds))]

    @answering
    def begin_statistics(self, ttl: float) -> bool:
        return bool(self._connection.call("set_flag", _FRESH, b"", ttl))

    @answering
    def save_statistics(self, found: bytes, ttl: float) -> None:
        self._connection.call("put_flag", _FIGURES, found, ttl)

    @answering
    def read_statistics(self) -> bytes | None:
        found: bytes | None = self._connection.call("get_flag", _FIGURES)
        return found

    @answering
    def is_first(self, name: str, ttl: float) -> bool:
        return self._connection.is_first(name, ttl)


class PostgresPresence(Part):
    """``interface.Presence`` on a PostgreSQL server."""

    queries = "presence"

    @answering
    def report_worker(self, worker: WorkerPresence, ttl: float) -> None:
        self._run("report_worker", hostname=worker.hostname, presence=encode_worker(worker).decode(), ttl=ttl)

    @answering
    def remove_worker(self, hostname: str) -> None:
        self._run("remove_worker", hostname=hostname)

    @answering
    def list_workers(self) -> list[WorkerPresence]:
        return read_workers([presence for (presence,) in self._fetch("list_workers", limit=_MOST_WORKERS)])


def _decode(values: list[str | None]) -> list[Any]:
    return [None if value is None else msgspec.json.decode(value) for value in values]
