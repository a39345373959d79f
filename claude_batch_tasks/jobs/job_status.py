"""How a job and its batches stand, as applications see it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Literal, Protocol, cast

import msgspec
from celery import Celery

from claude_batch_tasks.checks import presence
from claude_batch_tasks.formatting import format_counts
from claude_batch_tasks.jobs import notebook_html
from claude_batch_tasks.records import (
    BatchRecord,
    BatchState,
    Costs,
    DeliveryCounts,
    JobRecord,
    JobState,
    Phase,
    Progress,
    PublicStruct,
    Summary,
    Unit,
    WorkerPresence,
    batch_number,
)
from claude_batch_tasks.results import failure_examples, failures
from claude_batch_tasks.results.failures import FailureCount as FailureCount
from claude_batch_tasks.steps import job_summary
from claude_batch_tasks.store import Clock, HasDeliveries, HasPresence, HasSchedule, HasStatistics, ReadableStore
from claude_batch_tasks.wire import answer_texts
from claude_batch_tasks.wire.result_rows import OUTCOMES

#: Batches of a job whose messages are looked up.
_MOST = 50

#: The states in which nothing more happens to a job.
ENDED = ("completed", "canceled", "failed", "revoked")


#: Names that public attributes had before 0.3; they stay until 1.0.
OLD_NAMES = {"looks": "polls", "not_found": "polls_404", "next_look": "next_poll_at"}


class _HasOldNames:
    """The old names of what a status says about polls.

    .. deprecated:: 0.3
        They go with 1.0.
    """

    __slots__ = ()
    polls: int
    polls_404: int
    next_poll_at: datetime | None

    @property
    def looks(self) -> int:
        """The old name of ``polls``."""
        return self.polls

    @property
    def not_found(self) -> int:
        """The old name of ``polls_404``."""
        return self.polls_404

    @property
    def next_look(self) -> datetime | None:
        """The old name of ``next_poll_at``."""
        return self.next_poll_at


class BatchStatus(PublicStruct, _HasOldNames, frozen=True, kw_only=True):
    """One batch of a job, as last seen."""

    number: int
    """Its number in the job, from 1; people are shown this one."""
    batch_id: str | None
    state: BatchState | Literal["done", "missing"]
    """The state in its record; ``done``: nothing is left to do; ``missing``: its record is gone from the store."""
    requests: int
    polls: int
    """How many times Anthropic was asked how it stands."""
    polls_404: int
    """404s from the API so far."""
    next_poll_at: datetime | None
    """When its next step is due; None: it is done, or nothing is planned yet."""
    error: str | None

    def asdict(self) -> dict[str, Any]:
        """Return the fields as a dict of JSON types, some also under the names that they had before."""
        return _add_old_names(super().asdict())


class JobStatus(PublicStruct, _HasOldNames, frozen=True, kw_only=True):
    """How far a job is.

    Anthropic counts outcomes only when a whole batch has ended: until then, the outcome counts stay zero.
    """

    job_id: str
    state: JobState
    """That of its record."""
    phase: Phase
    """What people are shown: ``queued``, ``running``, ``saving results``, ``canceling``, ``delivering`` (calls of
    ``on_result`` wait or run), ``completed``, ``canceled``, ``failed`` or ``revoked``."""
    progress: Progress | None = None
    """How far it is while it runs; None: it does not run, or nothing is known. ``str()`` of it is for people."""
    requests: int
    processing: int
    succeeded: int
    errored: int
    expired: int
    canceled: int
    batches: tuple[BatchStatus, ...]
    polls: int
    """How many times Anthropic was asked how this job's batches stand."""
    polls_404: int
    """404s the API gave for this job's batches so far."""
    resubmitted: int
    """Outcomes of requests that had failed and were sent again in a smaller batch."""
    fallback: int
    """Outcomes that came through the Messages API."""
    fallback_skipped: int
    """Requests that were eligible for fallback and were not sent again: no budget was left, or the job was stopped."""
    limited: str | None = None
    """Which limit stopped requests from being sent through the Messages API, and how to allow more."""
    incomplete: dict[str, int] = msgspec.field(default_factory=dict)
    """How many answers are not complete and are not to be repaired, by reason: ``refusal``, ``max_tokens``,
    ``pause_turn``, ``model_context_window_exceeded``, ``empty``, ``invalid``; and how many have a stop reason that is
    not known, by its name. They count as ``succeeded``."""
    repairs: dict[str, int] = msgspec.field(default_factory=dict)
    """How many times requests were sent again because their answers were not complete, by kind: ``refusal_model``,
    ``max_tokens``, ``continue``, ``reask``."""
    failures: tuple[FailureCount, ...] = ()
    """How many requests have a final outcome that is not ``succeeded``, by failure type, the largest first; then how
    many answers are not complete, by reason. Only ``BatchJob.status()`` has examples; ``list_jobs()`` would have to
    read results for them."""
    stopped: str | None
    """Why nothing more is sent for this job, if so."""
    not_sent: str | None = None
    """Why a message of this job cannot be sent, or, where it has ended, what follows it."""
    waiting_for_worker: str | None = None
    """That no worker has taken a message of the job for 30 s or longer, and which workers listen on its queue."""
    announced: int = 0
    """Requests with whose custom_ids ``on_result`` was called. A call is a message: a worker runs it later."""
    delivered: int = 0
    """Requests whose answer was handed over: the task ``on_result`` ended successfully for them."""
    delivery_failures: int = 0
    """Requests for which the last call of ``on_result`` failed permanently, after its own retries."""
    delivery_at: datetime | None = None
    """When ``on_result`` was last called, or a call of it was retried or ended."""
    on_result_error: str | None = None
    """Why calls of ``on_result`` fail, the last reason, or why it is not called any more."""
    cost: float | None
    """US dollars that the answers so far have cost, without what ``cost_unknown`` names; None: nothing is known."""
    cost_by_model: dict[str, float | None]
    """``cost`` by model; None: the price is not known."""
    cost_unknown: dict[str, int | None] = msgspec.field(default_factory=dict)
    """How many answers have a price that is not known, by model; None: an older release did not count them."""
    next_poll_at: datetime | None
    """When the next step of a batch is due."""
    parent: str | None = None
    """The job whose failed requests it sends again, if it is a retry."""
    retries: tuple[str, ...] = ()
    """The retry jobs that took failed requests of this one, the last one last."""
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None
    summary: Summary | None
    """What ``result.get()`` returns, once the job has ended."""
    label: str | None = None
    """The name that the caller gave it."""
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    """What else the caller said about it; all values are texts."""

    def asdict(self) -> dict[str, Any]:
        """Return the fields as a dict of JSON types, some also under the names that they had before."""
        return _add_old_names(super().asdict())

    def __str__(self) -> str:
        """Return one line: ``job 4f0c2a8e completed, 1 answer is incomplete (1 refusal): 9 succeeded, 1 errored``."""
        said = ", ".join(filter(None, (self.phase, answer_texts.format_incomplete(self.incomplete))))
        return f"job {self.job_id} {said}: {self.error or self._describe_outcomes()}"

    def _describe_outcomes(self) -> str:
        counts = {name: getattr(self, name) for name in (*OUTCOMES, "processing")}
        return format_counts(counts) if any(counts.values()) else "no outcomes"

    def _repr_html_(self) -> str:
        """Return a table, which notebooks show."""
        rows = {
            "Label": self.label,
            "Phase": self.phase,
            "Progress": self.progress.text if self.progress else None,
            "Error": self.error,
            "Stopped": self.stopped,
            "Requests": f"{self.requests:,} ({self._describe_outcomes()})",
            "Failures": answer_texts.format_reasons(failures.count_by_type(self.failures)),
            "Answers": answer_texts.format_incomplete(self.incomplete),
            "Repairs": answer_texts.format_repairs(self.repairs),
            "Batches": f"{len(self.batches):,}",
            "Cost": notebook_html.format_dollars(self.cost),
            "Submitted": f"{self.submitted_at:%Y-%m-%d %H:%M:%S} UTC",
            "Ended": f"{self.ended_at:%Y-%m-%d %H:%M:%S} UTC" if self.ended_at else None,
        }
        return notebook_html.format_table(f"Job {self.job_id}", rows)

    @property
    def unconfirmed(self) -> int:
        """Requests with which ``on_result`` was called, and of whose call no end is known.

        It waits in its queue, runs, was lost, or is run by workers that do not have this package.
        """
        return max(self.announced - self.delivered - self.delivery_failures, 0)

    @property
    def done(self) -> int:
        """Requests that have an outcome."""
        return self.succeeded + self.errored + self.expired + self.canceled


class _Readable(ReadableStore, HasDeliveries, HasStatistics, Protocol):
    """What it takes to read how a job stands."""


def read_status(store: _Readable, job_id: str, job: JobRecord, *, examples: bool = False) -> JobStatus:
    """Return how far a job is, from its record and those of its batches.

    Args:
        examples: whether each failure type has an example, for which results are read.
    """
    records = store.records.find_batches(job_id)
    batches = [record for record in records if record is not None]
    counts: Mapping[str, int] = job_summary.count_outcomes(batches)
    costs = job_summary.sum_costs(batches)
    incomplete, repairs = answer_texts.sum_incomplete(batches), answer_texts.sum_repairs(batches)
    if len(batches) < len(records) and job.summary:
        counts, costs = job.summary, cast("Costs", job.summary)  # it was made when all were there
        incomplete, repairs = job.summary.get("incomplete") or {}, job.summary.get("repairs") or {}
    failed = _count_failures(store, job_id, job, records, examples=examples)
    outcomes = {name: counts[name] for name in OUTCOMES}
    deliveries, now = _count_deliveries(store, job_id, job), store.now()
    return JobStatus(
        job_id=job_id,
        state=job.state,
        phase=job_summary.find_phase(job, batches, deliveries, now),
        progress=job_summary.find_progress(job, batches, now, store.statistics.past_seconds),
        requests=job.requests,
        processing=0 if job.state in ENDED else max(job.requests - sum(outcomes.values()), 0),
        **outcomes,
        batches=tuple(_batch_status(batch_number(index), record) for index, record in enumerate(records)),
        **_sum_counters(batches),
        limited=job.limited,
        incomplete=incomplete,
        repairs=repairs,
        failures=tuple(failed),
        stopped=job.stopped,
        not_sent=job.not_sent,
        waiting_for_worker=None,
        announced=deliveries.called,
        delivered=deliveries.delivered,
        delivery_failures=deliveries.failed,
        delivery_at=job_summary.to_datetime(job.delivery_at),
        on_result_error=_explain_failed_calls(job),
        cost=costs["cost"],
        cost_by_model=costs["cost_by_model"],
        cost_unknown=costs["cost_unknown"],
        next_poll_at=job_summary.to_datetime(job_summary.soonest_poll_at(batches)),
        parent=job.parent,
        retries=tuple(retry.job_id for retry in job.retries),
        submitted_at=datetime.fromtimestamp(job.submitted_at, timezone.utc),
        started_at=job_summary.to_datetime(job.started_at),
        ended_at=job_summary.to_datetime(job.ended_at),
        error=job.error,
        summary=_complete_summary(job, failed),
        label=job.label,
        metadata=job.metadata,
    )


def _count_deliveries(store: HasDeliveries, job_id: str, job: JobRecord) -> DeliveryCounts:
    return DeliveryCounts() if job.on_result is None else store.deliveries.count_deliveries(job_id, job.batches)


def _explain_failed_calls(job: JobRecord) -> str | None:
    return job.on_result_error or next(reversed(job.delivery_errors), None)


def _count_failures(
    store: ReadableStore, job_id: str, job: JobRecord, records: Sequence[BatchRecord | None], *, examples: bool
) -> list[FailureCount]:
    batches = [record for record in records if record is not None]
    if len(batches) < len(records) and job.summary:
        return failures.counts_of_summary(job.summary)
    if examples:
        return failure_examples.show_failures(store, job_id, job, records)
    return failures.count_failures(batches)


def _complete_summary(job: JobRecord, failed: Sequence[FailureCount]) -> Summary | None:
    """Return the summary of a job; that of an earlier release lacks what failed by type."""
    if job.summary is None or "failures" in job.summary:
        return cast("Summary | None", job.summary)
    return cast("Summary", {**job.summary, "failures": failures.count_by_type(failed)})


def _sum_counters(batches: Sequence[BatchRecord]) -> dict[str, int]:
    return {
        "polls": sum(batch.looks for batch in batches),
        "polls_404": sum(batch.not_found for batch in batches),
        "resubmitted": sum(batch.resubmitted for batch in batches),
        "fallback": sum(batch.answered for batch in batches),
        "fallback_skipped": sum(batch.skipped for batch in batches),
    }


def _add_old_names(plain: dict[str, Any]) -> dict[str, Any]:
    """Add to a status as JSON the names that some of its attributes had before."""
    for each in (plain, *plain.get("batches", ())):
        each.update({old: each[new] for old, new in OLD_NAMES.items()})
    return plain


def _batch_status(number: int, batch: BatchRecord | None) -> BatchStatus:
    if batch is None:
        return BatchStatus(
            number=number,
            batch_id=None,
            state="missing",
            requests=0,
            polls=0,
            polls_404=0,
            next_poll_at=None,
            error="its record is gone from the store",
        )
    return BatchStatus(
        number=number,
        batch_id=batch.batch_id,
        state="done" if batch.done and batch.state == "fetched" else batch.state,
        requests=batch.count,
        polls=batch.looks,
        polls_404=batch.not_found,
        next_poll_at=None if batch.done else job_summary.to_datetime(batch.due_at),
        error=str(batch.error[1][0]) if batch.error else None,
    )


class _Schedule(HasSchedule, HasPresence, Clock, Protocol):
    """What it takes to say why a job waits."""


class Waits:
    """Answers why jobs wait for a worker. The workers are read once, and only if a job waits."""

    def __init__(self, app: Celery, store: _Schedule) -> None:
        self._app, self._store = app, store
        self._workers: Callable[[], list[WorkerPresence]] = functools.cache(store.presence.list_workers)

    def explain(self, status: JobStatus, job: JobRecord) -> JobStatus:
        """Return the status of a job with ``waiting_for_worker``."""
        if status.state in ENDED or job.not_sent is not None or self._app.conf.task_always_eager:
            return status
        due = self._store.schedule.due_times(_list_units(status, job))
        text = presence.explain_wait(self._app, job, due, self._store.now(), self._workers)
        return status if text is None else msgspec.structs.replace(status, waiting_for_worker=text)


def _list_units(status: JobStatus, job: JobRecord) -> list[Unit]:
    """Return the units whose messages the job may wait for; of a large job not all."""
    if status.state == "staged":
        return [Unit(status.job_id)]
    own = [Unit(status.job_id)] if job.through >= job.batches else []
    running = [number for number, batch in enumerate(status.batches) if batch.state != "done"]
    return own + [Unit(status.job_id, number) for number in running[:_MOST]]
