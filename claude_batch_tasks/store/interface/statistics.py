"""Figures about all jobs, for metrics and progress, and the workers that run, as they report themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from claude_batch_tasks.records import BatchGlance, JobGlance, WorkerPresence


class Statistics(Protocol):
    """A few fields of all records, and the figures that one worker made of them for all."""

    def scan_jobs(self) -> Iterator[list[tuple[str, JobGlance]]]:
        """Yield all jobs, the oldest first, page by page; where some are deleted meanwhile, others may be missing."""

    def scan_batches(self, job_id: str, batches: int) -> Iterator[list[tuple[int, BatchGlance]]]:
        """Yield the first so many batches of a job, each with its number, page by page."""

    def past_seconds(self, kinds: Sequence[str]) -> list[list[float]]:
        """Return how long the last batches of each kind took, as ``in_flight.add_duration`` recorded it."""

    def begin_statistics(self, ttl: float) -> bool:
        """Return whether the caller is to make the figures: of all who ask within ``ttl`` seconds one is."""

    def save_statistics(self, found: bytes, ttl: float) -> None:
        """Keep the figures for so many seconds."""

    def read_statistics(self) -> bytes | None:
        """Return the last figures."""

    def is_first(self, name: str, ttl: float) -> bool:
        """Return whether the caller is the first of all who ask for that name within ``ttl`` seconds."""


class Presence(Protocol):
    """Which workers run, and from which queues they take messages."""

    def report_worker(self, worker: WorkerPresence, ttl: float) -> None:
        """Record that a worker runs; after ``ttl`` seconds without another report it counts as gone."""

    def remove_worker(self, hostname: str) -> None:
        """Record that a worker has stopped."""

    def list_workers(self) -> list[WorkerPresence]:
        """Return the workers that run, by name; of more than 1,000, those that reported last."""
