"""The records of batches and of senders, and the history of each job."""

from __future__ import annotations

from typing import Protocol

from claude_batch_tasks.records import BatchRecord, HistoryEvent, JobRecord, LaneRecord, Unit


class Records(Protocol):
    """Records of batches and senders, and what to do about records and keys that the store has lost."""

    loss_advice: str
    """What an operator is to do about such a store, as a sentence for texts of errors."""

    def read_batch(self, job_id: str, batch: int) -> BatchRecord | None:
        """Return the record of a batch; None: it is gone."""

    def read_batches(self, job_id: str) -> list[BatchRecord]:
        """Return the records of all batches of a job, by number.

        Raises:
            ResultsMissing: one of them is gone.
        """

    def find_batches(self, job_id: str) -> list[BatchRecord | None]:
        """Return the records of all batches of a job, by number; None: it is gone."""

    def read_job_and_batches(self, job_id: str) -> tuple[JobRecord | None, list[BatchRecord | None]]:
        """Return the record of a job, and what ``find_batches`` returns."""

    def replace_batch(self, job_id: str, batch: int, record: BatchRecord, batches: int) -> bool:
        """Write a record in place of one that is gone, and count the job's finished batches again.

        Return False if the record is not gone.

        Args:
            batches: how many the job has.
        """

    def read_sender(self, unit: Unit) -> LaneRecord:
        """Return the record of a sender; a new one if there is none."""

    def read_position(self, unit: Unit) -> int:
        """Return the position of a unit in its life; -1: it has not begun."""

    def name_batch(self, job_id: str, batch: int) -> str:
        """Return what the store calls the record of a batch, for texts of errors; it is not asked."""

    def request_restore(self, job_id: str) -> None:
        """Have a worker download again what is missing of the job."""

    def take_restore_requests(self, limit: int) -> list[str]:
        """Return jobs for which that was requested, each to one caller only."""


class History(Protocol):
    """What happened to each job, the oldest event first."""

    def append_event(self, job_id: str, event: HistoryEvent) -> None:
        """Append an event to a job's history; of a long history the beginning and the end are stored."""

    def read_events(self, job_id: str) -> list[HistoryEvent]:
        """Return a job's history; one event, ``left_out``, stands for all that were removed."""
