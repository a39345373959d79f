"""How a job and its batches stand, as applications see it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from claude_batch_tasks.records import BatchRecord, BatchState, JobState, Summary
from claude_batch_tasks.steps import job_summary


class BatchStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One batch of a job, as last seen."""

    batch_id: str | None
    state: BatchState | Literal["done", "missing"]
    """Of its steps; ``done``: nothing is left to be done for it; ``missing``: its record is gone from the store."""
    requests: int
    looks: int
    not_found: int
    next_look: datetime | None
    error: str | None


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is. The outcome counts stay zero until a whole batch has ended: so Anthropic counts."""

    job_id: str
    state: JobState
    requests: int
    processing: int
    succeeded: int
    errored: int
    expired: int
    canceled: int
    batches: tuple[BatchStatus, ...]
    looks: int
    not_found: int
    """404s the API gave for this job's batches so far."""
    resubmitted: int
    """Outcomes that came from a smaller batch, which what had failed was sent again in."""
    fallback: int
    """Outcomes that came through the Messages API."""
    fallback_skipped: int
    """Requests that deserved another chance and were not sent again: no budget was left, or the job was stopped."""
    stopped: str | None
    """Why nothing more is sent for this job, if so."""
    not_sent: str | None = None
    """Why a message of this job cannot be sent, or, where it has ended, what follows it."""
    on_result_error: str | None = None
    """Why ``on_result`` is not called any more, if so."""
    cost: float | None
    """US dollars that the answers so far have cost, without what ``cost_unknown`` names; None: nothing is known."""
    cost_by_model: dict[str, float | None]
    """``cost`` by model; None: the price is not known."""
    cost_unknown: dict[str, int | None] = {}
    """How many answers have a price that is not known, by model; None: an older release did not count them."""
    next_look: datetime | None
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None
    summary: Summary | None
    """What ``result.get()`` returns, once the job has ended."""

    @property
    def done(self) -> int:
        """Requests that have an outcome."""
        return self.succeeded + self.errored + self.expired + self.canceled


def batch_status_of(batch: BatchRecord | None) -> BatchStatus:
    if batch is None:
        return BatchStatus(
            batch_id=None,
            state="missing",
            requests=0,
            looks=0,
            not_found=0,
            next_look=None,
            error="its record is gone from the store",
        )
    return BatchStatus(
        batch_id=batch.batch_id,
        state="done" if batch.done and batch.state == "fetched" else batch.state,
        requests=batch.count,
        looks=batch.looks,
        not_found=batch.not_found,
        next_look=None if batch.done else job_summary.to_datetime(batch.due_at),
        error=str(batch.error[1][0]) if batch.error else None,
    )
