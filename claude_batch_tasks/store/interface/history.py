"""The history of each job."""

from __future__ import annotations

from typing import Protocol

from claude_batch_tasks.records import HistoryEvent


class History(Protocol):
    """What happened to each job, the oldest event first."""

    def append_event(self, job_id: str, event: HistoryEvent) -> None:
        """Append an event to a job's history; of a long history the beginning and the end are stored."""

    def read_events(self, job_id: str) -> list[HistoryEvent]:
        """Return a job's history; one event, ``left_out``, stands for all that were removed."""
