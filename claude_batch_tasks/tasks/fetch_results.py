"""The task ``fetch_results``, which downloads, checks and publishes the results."""

from __future__ import annotations

import logging
from typing import Any

from claude_batch_tasks import api, errors, metrics, rules, signals
from claude_batch_tasks.formatting import format_counts
from claude_batch_tasks.lifecycle import not_found, record_repair, resubmission
from claude_batch_tasks.pricing import spending
from claude_batch_tasks.steps.decisions import Decision, Done, Fail, StartOver
from claude_batch_tasks.steps.message_chain import NAME
from claude_batch_tasks.steps.step import LeaseLost, Step
from claude_batch_tasks.steps.step_task import StepTask
from claude_batch_tasks.steps.task_classes import job_task
from claude_batch_tasks.wire import completeness


@job_task(base=StepTask, rank=2, last_look=rules.LAST_POLL_SECONDS, name=NAME + "fetch_results")
def fetch_results(self: StepTask, job_id: str, batch: int, turn: int = 0, seq: int = 0) -> Decision:
    """Download, check and publish the batch's results; download them again if they do not add up."""
    step, record = self.step, self.step.batch
    if record.turn > turn:
        return StartOver()
    if record.state != "ended":
        return Done(f"nothing to fetch: {record.state}")
    if (early := self.wait_until_due()) is not None:
        return early
    assert record.batch_id is not None
    if record.rounds:
        record_repair.repair_records(step)
    step.pace.check()
    step.record(attempt=record.attempt + 1)
    checked = completeness.AdoptedCompleteness if step.job.adopted else completeness.Completeness
    seen = checked(
        resubmission.nonce_of_round(step.job, record),
        record.first,
        record.count,
        places=resubmission.positions_in_batch(step.store, job_id, batch, record) if record.rounds else None,
        prices=step.settings.price_list,
        at=record.created_at,
    )
    try:
        with step.pace.observing(), api.results(step.client, record.batch_id, timeout=step.settings.timeout) as chunks:
            pieces = seen.keep(step.while_held(chunks))
            step.store.results.write_rows(job_id, batch, record.attempt, pieces)
    except errors.NotFoundError as exc:
        ended = not_found.handle_not_found(step, exc, "results")
        return StartOver() if record.turn > turn else ended
    if record.provisional and seen.all_foreign:
        step.store.results.discard_rows(job_id, batch, record.attempt)
        not_found.release_batch(step, "every row is foreign")
        return StartOver()
    step.record(sighting=step.now(), refused_since=None)
    try:
        seen.check(record.told)
        metrics.count("downloads", result="complete")
    except errors.ResultsIncomplete as exc:
        metrics.count("downloads", result="incomplete")
        step.note("incomplete", f"download {record.attempt}: {exc}", level=logging.WARNING)
        limit, downloads = step.settings.results_limit, record.attempt - record.attempts_before
        if downloads < (min(limit, rules.TALLY_DOWNLOADS) if seen.complete else limit):
            step.store.results.discard_rows(job_id, batch, record.attempt)
            raise
        if not seen.complete:
            _publish_results(step, seen)
            return Fail(errors.ResultsMissing(f"{exc}, in each of {downloads} downloads"))
    _publish_results(step, seen)
    step.tell(signals.results_published, batch_id=record.batch_id, counts=dict(seen.tallies), round=len(record.rounds))
    counts = dict(seen.tallies)
    step.note("fetched", f"fetched, {format_counts(counts)}", counts=counts, round=len(record.rounds))
    return Done(f"fetched: {format_counts(seen.tallies)}")


def _publish_results(step: Step, seen: completeness.Completeness) -> None:
    record = step.batch
    changes = {"state": "fetched", "provisional": False, "intent_at": None, **resubmission.merge_rows(record, seen)}
    rows: dict[str, Any] = {"pieces": seen.pieces.tobytes(), "eligible_places": seen.eligible.tobytes()}
    if isinstance(seen, completeness.AdoptedCompleteness):
        rows["index"] = seen.index.parts()
    earlier = [round.attempt for round in record.rounds]
    if not step.store.results.publish_rows(step.unit, step.owner, record.attempt, keep=earlier, **rows, **changes):
        raise LeaseLost
    for name, value in {"published": record.attempt, **changes}.items():
        setattr(record, name, value)
    source = "resubmitted" if record.rounds else "batch"
    metrics.count("cost_dollars", float(spending.total_known_cost(seen.meter.costs())), source=source)
    if seen.stopped is not None and not step.job.adopted:
        step.stop(seen.stopped)
