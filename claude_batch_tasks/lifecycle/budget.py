"""The job's budget, ``max_cost``: a cost is reserved before a batch is created, and recorded when it is known."""

from __future__ import annotations

import logging

from claude_batch_tasks.lifecycle import resubmission
from claude_batch_tasks.pricing import request_bounds, spending
from claude_batch_tasks.records import BatchRecord
from claude_batch_tasks.steps import Done, Step, Wait
from claude_batch_tasks.wire import result_rows


def reserve_cost(step: Step) -> Done | Wait | None:
    """Reserve what the batch may cost; return None if it may be created, and what follows if not.

    If it may not, its requests keep their outcomes, or end as errored. While the cost of the batches that are running
    must be known first, it waits.
    """
    record, limit = step.batch, step.settings.max_cost
    if limit is None:
        return None
    if (unknown := _estimate_cost(step)) is not None:
        return _end_uncreated(step, f"max_cost cannot be guaranteed: {unknown}")
    assert record.least is not None
    assert record.most is not None
    answer = step.store.budget.reserve_cost(
        step.unit, len(record.rounds), record.least, record.most, spending.to_nano_dollars(limit)
    )
    if answer == "yes":
        return None
    if answer == "wait":
        pause = 2 * step.settings.poll_min
        return Wait("waiting for the cost of the job's other batches (max_cost)", pause, spread=0.25, tried=False)
    if answer == "lost":
        return _end_uncreated(step, "what the job has spent is gone from the store, so max_cost cannot be guaranteed")
    return _end_uncreated(step, f"the rest of max_cost (${limit:,.4g}) does not cover its input")


def _estimate_cost(step: Step) -> str | None:
    """Record what the batch may cost, if that was not done; return why it cannot be known, None if it can."""
    record = step.batch
    if record.least is None or record.most is None:
        params = resubmission.read_params_sent(step.store, step.unit.job_id, step.job, step.unit.batch or 0, record)
        found = request_bounds.batch_need(params, step.settings.price_list)
        if not isinstance(found, request_bounds.BatchNeed):
            return found[1].why
        step.update_record(least=found.input, most=found.most)
    return None


def _end_uncreated(step: Step, note: str) -> Done:
    """End a batch that is not created because of the budget."""
    record = step.batch
    step.record_event("unsent", f"not created: {note}", level=logging.WARNING)
    outcome = {
        "outcome": result_rows.errored_row("budget_exceeded", note, None),
        "counts": {"errored": record.count},
    }
    step.update_record(state="unsent", note=note, **({"not_sent_again": note} if record.rounds else outcome))
    return Done("max_cost leaves no money for it")


def record_cost(step: Step) -> None:
    """Record the known cost of the batch: the most it may have cost if it may exist and has no results."""
    record = step.batch
    if step.settings.max_cost is None or record.most is None:
        return
    spent = _known_cost(record)
    if _may_cost_more(record):
        spent = max(spent, record.most)
    step.store.budget.record_cost(step.unit, len(record.rounds), spent)


def _known_cost(record: BatchRecord) -> int:
    """Return what the results of the batch's last round have cost, in nano-dollars."""
    past = record.rounds[-1].costs if record.rounds else {}
    now = record.costs if record.published is not None else past
    return spending.to_nano_dollars(spending.total_known_cost(now) - spending.total_known_cost(past))


def _may_cost_more(record: BatchRecord) -> bool:
    """Return whether a cost is unknown, which may be as high as the reservation."""
    if record.published is not None and None in record.costs.values():
        return True
    exists = record.batch_id is not None or record.intent_at is not None
    return exists and (record.published is None or record.state == "failed")
