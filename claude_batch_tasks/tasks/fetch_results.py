"""The task ``fetch_results``, which downloads, checks and publishes the results."""

from __future__ import annotations

import logging
from typing import Any

from claude_batch_tasks import api, errors, metrics, rules, signals
from claude_batch_tasks.formatting import format_counts
from claude_batch_tasks.lifecycle import lost_results, not_found, resubmission
from claude_batch_tasks.pricing import spending
from claude_batch_tasks.steps import NAME, Decision, Done, Fail, LeaseLost, StartOver, Step, StepTask, job_task
from claude_batch_tasks.wire.completeness import Completeness


@job_task(base=StepTask, rank=2, last_poll_seconds=rules.LAST_POLL_SECONDS, name=NAME + "fetch_results")
def fetch_results(self: StepTask, job_id: str, batch: int, turn: int = 0, seq: int = 0) -> Decision:
    """Download, check and publish the batch's results; download them again if they do not add up."""
    step, record = self.step, self.step.batch
    if record.turn > turn:
        return StartOver()
    if record.state != "ended":
        return Done(f"nothing to fetch: {record.state}")
    if (early := self.wait_until_due()) is not None:
        return early
    if record.rounds:
        lost_results.refetch_rows(step)
    step.rate_limits.check_pause()
    try:
        seen = _download_rows(step)
    except errors.NotFoundError as exc:
        ended = not_found.handle_not_found(step, exc, "results")
        return StartOver() if record.turn > turn else ended
    if record.provisional and seen.all_foreign:
        step.store.results.discard_rows(job_id, batch, record.attempt)
        not_found.release_batch(step, "every row is foreign")
        return StartOver()
    step.update_record(sighting=step.now(), refused_since=None)
    if (incomplete := _check_complete(step, seen)) is not None:
        return incomplete
    _publish_results(step, seen)
    counts = seen.sort_tallies()
    step.send_signal(signals.results_published, batch_id=record.batch_id, counts=counts, round=len(record.rounds))
    step.record_event("fetched", f"fetched, {format_counts(counts)}", counts=counts, round=len(record.rounds))
    return Done(f"fetched: {format_counts(counts)}")


def _download_rows(step: Step) -> Completeness:
    """Download the rows into the store, as one more attempt; return what was seen of them."""
    job_id, batch, record = step.unit.job_id, step.unit.batch or 0, step.batch
    assert record.batch_id is not None
    step.update_record(attempt=record.attempt + 1)
    seen = resubmission.expect_rows(step.store, job_id, step.job, batch, record, step.settings)
    if (notice := seen.judged.notice) is not None:
        text = f"{notice}: answers are checked by the schema of the job"
        step.record_event("output_changed", text, level=logging.WARNING)
    with (
        step.rate_limits.observe_call(),
        api.open_results(step.client, record.batch_id, timeout=step.settings.timeout) as chunks,
    ):
        step.store.results.write_rows(job_id, batch, record.attempt, seen.keep_rows(step.while_held(chunks)))
    return seen


def _check_complete(step: Step, seen: Completeness) -> Fail | None:
    """Check that the rows add up; if they did not in too many downloads, publish what there is and fail.

    Raises:
        ResultsIncomplete: they are downloaded again.
    """
    record, limit = step.batch, step.settings.results_limit
    try:
        seen.check_counts(record.told)
        metrics.count("downloads", result="complete")
        return None
    except errors.ResultsIncomplete as exc:
        metrics.count("downloads", result="incomplete")
        step.record_event("incomplete", f"download {record.attempt}: {exc}", level=logging.WARNING)
        downloads = record.attempt - record.attempts_before
        if downloads < (min(limit, rules.TALLY_DOWNLOADS) if seen.complete else limit):
            step.store.results.discard_rows(step.unit.job_id, step.unit.batch or 0, record.attempt)
            raise
        if seen.complete:
            return None
        _publish_results(step, seen)
        return Fail(errors.ResultsMissing(f"{exc}, in each of {downloads} downloads"))


def _publish_results(step: Step, seen: Completeness) -> None:
    record, judged = step.batch, seen.judged
    if seen.complete:
        resubmission.complete_choice(step.store, step.unit.job_id, step.unit.batch or 0, record, seen)
    changes = {"state": "fetched", "provisional": False, "intent_at": None, **resubmission.merge_rows(record, seen)}
    rows: dict[str, Any] = {"pieces": seen.pieces.tobytes(), "eligible_places": judged.eligible.tobytes()}
    if judged.sent_again is not None:
        rows["again_places"] = judged.again_places
    if step.job.adopted:
        rows["index"] = resubmission.stored_index(seen)
    earlier = [round.attempt for round in record.rounds]
    if not step.store.results.publish_rows(step.unit, step.owner, record.attempt, keep=earlier, **rows, **changes):
        raise LeaseLost
    for name, value in {"published": record.attempt, **changes}.items():
        setattr(record, name, value)
    source = "resubmitted" if record.rounds else "batch"
    cost = float(spending.total_known_cost(seen.meter.sum_costs()))
    metrics.count("cost_dollars", cost, job=step.job, source=source)
    metrics.count("saved_dollars", float(seen.meter.sum_savings()), job=step.job, how="ask" if step.job.pool else "job")
    for kind, count in resubmission.count_repairs(record.rounds[-1:]).items():
        metrics.count("repairs", count, job=step.job, kind=kind)
    if seen.stopped is not None and not step.job.adopted:
        step.stop_job(seen.stopped)
