"""What resuming a job changes: in its settings, in its record, and in those of its batches. Nothing is written here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from claude_batch_tasks import rules
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.records import BatchRecord, JobRecord, reset_fields
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import job_summary, message_chain
from claude_batch_tasks.wire import failure_types

#: What is counted of the outcomes of a batch.
_TOTALS = ("counts", "usage", "costs", "unpriced", "eligible", "open", "failed_types", "incomplete", "again")


class ResumePlan(NamedTuple):
    """The changes with which a job is resumed."""

    job: dict[str, Any]
    batches: dict[int, tuple[bool, int, dict[str, Any]]]
    """By number: whether a batch is due now, the position from which it continues, and the changes in its record."""

    @property
    def due(self) -> list[int]:
        """The numbers of the batches that are due now."""
        return [number for number, (due, _, _) in self.batches.items() if due]


def find_unfinished(batches: Sequence[BatchRecord]) -> list[int]:
    """Return the numbers of the batches that failed, or that have requests without an outcome."""
    return [
        number
        for number, batch in enumerate(batches)
        if batch.error or not batch.done or job_summary.count_unaccounted(batch)
    ]


def choose_options(job: JobRecord, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job's settings from now on.

    Raises:
        InvalidSettings: a new one is not valid.
    """
    if job.adopted:
        check_no_fallback(options)
    if options.get("deadline") is not None:
        options = {**options, "deadline": submission.seconds_until(options["deadline"], lambda: job.submitted_at)}
    submission.check_reask(job.output, options)
    return {**job.options, **options}


def check_no_fallback(options: Mapping[str, Any]) -> None:
    """Refuse the settings of an adopted job if they allow the fallback.

    Raises:
        InvalidSettings: they do.
    """
    if options.get("fallback", "off") != "off":
        raise InvalidSettings("fallback: the requests of an adopted batch are not known, and cannot be sent again")


def plan_resume(
    job: JobRecord,
    batches: Sequence[BatchRecord],
    unfinished: Collection[int],
    settings: Settings,
    *,
    now: float,
    eager: bool,
) -> ResumePlan:
    """Return the changes with which a job continues.

    Args:
        unfinished: the numbers of the batches that continue.
        settings: those of the job from now on.
        now: the time by the store's clock, in epoch seconds.
        eager: all batches run at once, in this process.
    """
    # No batch from this number on was ever started, and each waits for its quota.
    unbegun = job.batches
    while unbegun and unbegun - 1 in unfinished and not _is_begun(batches[unbegun - 1]):
        unbegun -= 1
    due = {number for number in unfinished if number < unbegun}
    room = max(settings.max_batches_in_flight - len(due), 0 if due else 1)
    admitted = job.batches if eager else min(unbegun + room, job.batches)
    changes = {
        "state": "running",
        "resumed_at": now,
        "ended_at": None,
        "summary": None,
        "error": None,
        "options": job.options,
        "admitted": admitted,
        "stopped": None,
        "limited": None,
        "not_sent": None,
        "on_result_error": None,
    }
    due.update(range(unbegun, admitted))
    return ResumePlan(changes, {number: (number in due, *_go_on(batches[number])) for number in unfinished})


def _is_begun(batch: BatchRecord) -> bool:
    return batch.batch_id is not None or batch.intent_at is not None


def _go_on(batch: BatchRecord) -> tuple[int, dict[str, Any]]:
    """Return the position from which a batch continues, and the changes in its record."""
    turn = batch.turn + 1
    state, rank = ("in_progress", 1) if batch.batch_id else ("creating" if batch.intent_at else "staged", 0)
    # The totals from before this round stay.
    past: Any = batch.rounds[-1] if batch.rounds else BatchRecord(first=0, count=0, body_bytes=0)
    totals = {name: getattr(past, name) for name in _TOTALS}
    return message_chain.position_of(turn, rank), {
        "state": state,
        "turn": turn,
        "attempts_before": batch.attempt,
        "first_lane": batch.first_lane + rules.SENDERS,
        # Counters that lead to giving up begin anew; what is known about the batch stays.
        **reset_fields("resume"),
        **totals,
        "failed_types_of": failure_types.fingerprint(batch),
    }
