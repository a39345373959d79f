"""Figures about all jobs, for metrics and progress; the workers that run; and the store's server, as it says itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from claude_batch_tasks.records import BatchGlance, JobGlance, ServerReport, WorkerPresence


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


class Inspection(Protocol):
    """What a store finds out about its server, for ``doctor`` and for the log of a worker that starts.

    Each call has a connection of its own and waits for a few seconds at most. It needs no schema, and changes none.
    """

    def inspect_server(self, *, thorough: bool) -> ServerReport:
        """Return how the server is set up, and what keeps it from being the store. That it does not answer is a problem
        among others, and is not raised.

        Args:
            thorough: also try what the store's user must be allowed to do; nothing is left behind.
        """

    def leave_mark(self, token: str, ttl: float) -> None:
        """Leave a mark, for as many seconds, by which another process sees that it has the same store."""

    def has_mark(self, token: str) -> bool:
        """Return whether the store has this mark."""
