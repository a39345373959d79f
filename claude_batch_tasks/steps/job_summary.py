"""The figures that a job's records add up to: counts, the next poll, the summary at its end.

And its progress while it runs: how that is shown under the job's id.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Literal, cast

from celery import Task

from claude_batch_tasks import errors, rules
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.pricing import spending
from claude_batch_tasks.records import (
    BatchRecord,
    Costs,
    DeliveryCounts,
    JobRecord,
    Phase,
    Progress,
    Summary,
    TokenCounts,
    Unit,
)
from claude_batch_tasks.steps import message_chain, publishing
from claude_batch_tasks.steps.step import Step
from claude_batch_tasks.store import history
from claude_batch_tasks.wire import answer_texts, failure_types, result_rows

log = get_logger(__name__)

#: When this process may show a job's progress again, by ``time.monotonic``.
_next_report: dict[str, float] = {}


def count_outcomes(batches: Sequence[BatchRecord]) -> Counter[str]:
    """Count how many requests ended in which way, over all batches, without those that are still to be sent again."""
    counts: Counter[str] = Counter()
    for batch in batches:
        counts.update({name: batch.counts.get(name, 0) for name in result_rows.OUTCOMES})
        counts.subtract(batch.pending)
    return counts


def count_unaccounted(batch: BatchRecord) -> int:
    """Return how many requests of a finished batch have no stored outcome."""
    if not batch.layers and batch.outcome is None:
        return batch.count
    return batch.count - sum(batch.counts.get(name, 0) for name in result_rows.OUTCOMES)


def find_phase(job: JobRecord, batches: Sequence[BatchRecord], calls: DeliveryCounts, now: float) -> Phase:
    """Return in which phase a job is, as people are shown it.

    Args:
        calls: what became of the calls of ``on_result``.
        now: the time by the store's clock, in epoch seconds.
    """
    silent_for = None if job.delivery_at is None else now - job.delivery_at
    return rules.choose_phase(
        job.state,
        [rules.find_stage(batch.state, done=batch.done, eligible=batch.pending_count) for batch in batches],
        cancel_requested=job.cancel_requested,
        delivering=rules.is_delivering(calls.called, calls.delivered, calls.failed, silent_for),
    )


def find_progress(
    job: JobRecord,
    batches: Sequence[BatchRecord],
    now: float,
    past_seconds: Callable[[Sequence[str]], Sequence[Sequence[float]]],
) -> Progress | None:
    """Return how far a running job is; None: it does not run, or nothing is known.

    Args:
        now: the time by the store's clock, in epoch seconds.
        past_seconds: returns how long past batches of each kind took.
    """
    if job.state != "running":
        return None
    uncounted = [batch for batch in batches if _is_at_anthropic(batch) and not batch.processed]
    kinds = sorted({kind for batch in uncounted if (kind := _kind_of(job, batch)) is not None})
    past = dict(zip(kinds, past_seconds(kinds), strict=True)) if kinds else {}
    found = rules.estimate_progress([_part_of(job, batch, now, past) for batch in batches])
    return found and _describe_progress(found)


def _describe_progress(found: rules.Estimated) -> Progress:
    percent, measured = f"{int(found.fraction * 100)} %", not found.similar
    text = f"{percent} of the requests"
    if not measured:
        text = f"about {percent}, by the time that {found.similar} similar batches took"
    return Progress(fraction=found.fraction, measured=measured, text=text)


def _is_at_anthropic(batch: BatchRecord) -> bool:
    return batch.state in ("in_progress", "canceling") and not batch.done


def _kind_of(job: JobRecord, batch: BatchRecord) -> str | None:
    return rules.batch_kind(job.model, job.models, batch.sending)


def _part_of(job: JobRecord, batch: BatchRecord, now: float, past: Mapping[str, Sequence[float]]) -> rules.BatchPart:
    stage = rules.find_stage(batch.state, done=batch.done, eligible=batch.pending_count)
    if stage in ("saving", "done"):
        return rules.BatchPart(batch.count, 0, running=False)
    if not _is_at_anthropic(batch):
        # Before a smaller batch is created, and while requests go through the Messages API, the others have outcomes.
        return rules.BatchPart(
            batch.count, batch.pending_count if batch.state == "fetched" else batch.sending, running=False
        )
    age = None if batch.created_at is None else now - (batch.created_at - batch.api_ahead)
    known = past.get(_kind_of(job, batch) or "", ())
    return rules.BatchPart(batch.count, batch.sending, running=True, processed=batch.processed, age=age, past=known)


def soonest_poll_at(batches: Sequence[BatchRecord]) -> float | None:
    """Return when the earliest poll of a running batch is due, in epoch seconds."""
    return min((b.due_at for b in batches if b.due_at is not None and not b.done), default=None)


def make_progress(job: JobRecord, batches: Sequence[BatchRecord]) -> dict[str, Any]:
    """Return the meta that is shown under the job's id while it runs: counts and ids, never a prompt."""
    counts = count_outcomes(batches)
    due = to_datetime(soonest_poll_at(batches))
    polls, polls_404 = sum(batch.looks for batch in batches), sum(batch.not_found for batch in batches)
    next_poll_at = due.isoformat() if due else None
    return {
        "state": "running",
        "requests": job.requests,
        "processing": max(job.requests - sum(counts.values()), 0),
        **{name: counts[name] for name in result_rows.OUTCOMES},
        "incomplete": answer_texts.sum_incomplete(batches),
        "repairs": answer_texts.sum_repairs(batches),
        "batches": job.batches,
        "batches_done": sum(batch.done for batch in batches),
        "batch_ids": batch_ids(batches),
        "polls": polls,
        "polls_404": polls_404,
        "next_poll_at": next_poll_at,
        # The names before 0.3; they go with 1.0.
        "looks": polls,
        "not_found": polls_404,
        "next_look": next_poll_at,
    }


def report_progress(step: Step, text: str, due_at: float | None = None) -> None:
    """Show progress under the id that the caller holds: in the result back end, and as an event for Flower.

    In a job of thousands of batches not each time: it takes at most a twentieth of a process's time.
    """
    job_id, begun = step.unit.job_id, time.thread_time()
    if time.monotonic() < _next_report.get(job_id, 0):
        return
    try:
        # Another worker may have taken over and ended the job; PROGRESS must not be written over its result.
        if not step.store.leases.renew_lease(step.unit, step.owner, step.settings.lease):
            return
        batches = step.store.records.read_batches(job_id)
    except (errors.StoreUnavailable, errors.ResultsMissing):
        return
    if step.unit.batch is not None and due_at is not None:
        batches[step.unit.batch].due_at = due_at
    publish_progress(step.task, job_id, step.job, lambda: make_progress(step.job, batches), text)
    now = time.monotonic()
    for other, moment in list(_next_report.items()):
        if moment <= now:
            _next_report.pop(other, None)
    _next_report[job_id] = now + 20 * (time.thread_time() - begun)


def publish_progress(
    task: Task[Any, Any], job_id: str, job: JobRecord, count: Callable[[], dict[str, Any]], text: str
) -> None:
    """Write PROGRESS to the job's AsyncResult and send an event to Flower; a failure of either does not stop a step."""
    try:
        meta = count()
        if not message_chain.ignores_result(job):
            task.backend.store_result(job_id, meta, "PROGRESS")
        if task.request.hostname and not task.request.is_eager:
            counts = f"{meta['requests'] - meta['processing']} of {meta['requests']} done"
            shown = "; ".join(filter(None, (counts, answer_texts.format_incomplete(meta["incomplete"]), text)))
            with publishing.event_dispatcher(task.app, task.request.hostname) as events:
                events.send("task-progress", uuid=job_id, result=shown)
    except Exception as exc:  # noqa: BLE001 - any back end, any broker
        extra = history.fields(Unit(job_id), "progress")
        log.warning("job %s: progress could not be shown: %s", job_id, exc, extra=extra)


def summarize_job(job_id: str, job: JobRecord, batches: Sequence[BatchRecord], ended_at: float) -> Summary:
    """Return the summary of a finished job: a small dict of JSON types; times are ISO 8601 in UTC."""
    # The API's counts are not our outcomes if its results were not published.
    with_outcomes = [batch for batch in batches if batch.layers or batch.outcome is not None]
    counts = count_outcomes(with_outcomes)
    usage: Counter[str] = Counter(dict.fromkeys(TokenCounts.__annotations__, 0))
    for batch in batches:
        usage.update(batch.usage)
    started, ended = to_datetime(job.started_at), datetime.fromtimestamp(ended_at, timezone.utc)
    return {
        "job_id": job_id,
        "state": _final_state(job, batches),
        "requests": job.requests,
        "succeeded": counts["succeeded"],
        "errored": counts["errored"],
        "expired": counts["expired"],
        "canceled": counts["canceled"],
        "resubmitted": sum(batch.resubmitted for batch in batches),
        "fallback": sum(batch.answered for batch in batches),
        "fallback_skipped": sum(batch.skipped for batch in batches),
        "limited": job.limited,
        "failures": failure_types.count_types(with_outcomes),
        "incomplete": answer_texts.sum_incomplete(with_outcomes),
        "repairs": answer_texts.sum_repairs(batches),
        "stopped": job.stopped,
        "batch_ids": batch_ids(batches),
        "usage": cast("TokenCounts", dict(usage)),
        **sum_costs(batches),
        "started_at": started.isoformat() if started else None,
        "ended_at": ended.isoformat(),
    }


def _final_state(job: JobRecord, batches: Sequence[BatchRecord]) -> Literal["completed", "canceled", "failed"]:
    if any(batch.error or count_unaccounted(batch) for batch in batches):
        return "failed"
    return "canceled" if job.cancel_requested else "completed"


def sum_costs(batches: Sequence[BatchRecord]) -> Costs:
    """Sum the known cost of the answers so far, in US dollars, and count the answers whose cost is not known.

    Returns:
        ``cost``, None if nothing is known; ``cost_by_model``, None for a model whose price is not known;
            ``cost_unknown``, the number of answers behind each such model.
    """
    by_model = spending.add_known_costs(batch.costs for batch in batches)
    amounts = [each for each in by_model.values() if each is not None]
    return {
        "cost": float(sum(amounts)) if amounts or not by_model else None,
        "cost_by_model": {model: None if each is None else float(each) for model, each in by_model.items()},
        "cost_unknown": _count_unpriced(batches),
    }


def _count_unpriced(batches: Sequence[BatchRecord]) -> dict[str, int | None]:
    """Return the number of answers behind each model whose cost is not known; None where that is not known either."""
    counted = sum((Counter(batch.unpriced) for batch in batches), Counter[str]())
    unpriced = sorted({model for batch in batches for model, each in batch.costs.items() if each is None})
    return {model: counted.get(model) for model in unpriced}


def batch_ids(batches: Sequence[BatchRecord]) -> list[str]:
    """Return Anthropic's ids of all batches of a job, including the smaller batches that followed."""
    ids = (id_ for batch in batches for id_ in (*(round.batch_id for round in batch.rounds), batch.batch_id))
    return [id_ for id_ in ids if id_]


def to_datetime(seconds: float | None) -> datetime | None:
    """Return epoch seconds as a datetime in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
