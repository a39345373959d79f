"""The task ``fall_back``, which sends requests again that are eligible for it, and ends the batch."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from claude_batch_tasks import errors, metrics, rules
from claude_batch_tasks.formatting import format_counts, format_duration
from claude_batch_tasks.lifecycle import messages_fallback, record_repair, resubmission, result_hooks
from claude_batch_tasks.pricing import spending
from claude_batch_tasks.records import Unit
from claude_batch_tasks.results import reader
from claude_batch_tasks.steps import message_chain
from claude_batch_tasks.steps.decisions import Decision, Done, StartOver, Wait
from claude_batch_tasks.steps.message_chain import DONE, NAME
from claude_batch_tasks.steps.step import Step
from claude_batch_tasks.steps.step_task import StepTask
from claude_batch_tasks.steps.task_classes import job_task
from claude_batch_tasks.wire import result_rows

#: The states of a batch whose earlier steps have not all run.
_BEFORE_FALL_BACK = ("staged", "creating", "in_progress", "canceling", "ended")


class FallBack(StepTask):
    """The task ``fall_back``: the last step of a batch."""

    abstract = True
    rank = 3
    last = True
    waits = False

    def after(self, turn: int) -> int:
        """Return the position at the end of the batch's life."""
        return DONE

    def publish_next(self, value: Any, pause: float = 0) -> None:
        """Publish the message that ends the job, unless other batches are still running.

        That message has the job's id, under which signal handlers, tracers and Flask keep what belongs to a task: two
        such messages at once would take each other's data.
        """
        if not self.request.is_eager and not self._is_last():
            self.request.chain = None
        super().publish_next(value, pause)

    def _is_last(self) -> bool:
        """Return whether the batch is the last of its job to finish; if two may both be the last, both are."""
        step = self.step
        through = step.through or None
        if through is None and step.job.batches > 1:  # it finished in an earlier run of this step, or the job is gone
            with suppress(errors.StoreUnavailable):
                job = step.store.jobs.read_job(step.unit.job_id)
                through = None if job is None else job.through
        return through is None or through >= step.job.batches


@job_task(base=FallBack, name=NAME + "fall_back")
def fall_back(self: FallBack, job_id: str, batch: int, turn: int = 0, seq: int = 0) -> Decision:
    """Send eligible requests again, as a smaller batch, then through the Messages API; wait for their outcomes."""
    step, record = self.step, self.step.batch
    if record.turn <= turn and record.state in _BEFORE_FALL_BACK:
        # A worker of an earlier release advanced it past a step that had not run.
        step.note("retry", f"not through: {record.state}; going through its steps again", level=logging.WARNING)
        step.record(turn=turn + 1)
    if record.turn > turn:
        return StartOver()
    chance = "none"
    if not record.final:
        # The last sender to finish has woken it, before its time.
        if not (record.messages_out and messages_fallback.all_ended(step)) and (early := self.wait_until_due()):
            return early
        record_repair.repair_records(step)
        _record_cost(step)
        chance = "messages" if record.granted is not None else _choose_next_attempt(step)
        if step.job.on_result is not None and record.state != "failed" and record.layers and record.granted is None:
            result_hooks.announce_results(step, _final_positions(step))
        if chance == "resubmit":
            _begin_round(step)
            return StartOver()
    # Once: if the message of the following batch is lost, the ledger knows that it is due.
    if not record.made_room and (following := step.store.schedule.start_next_batch(job_id, batch)) is not None:
        since = step.store.records.read_position(Unit(job_id, following))
        message_chain.publish_chain(
            step.job, job_id, message_chain.make_steps(self.app, job_id, step.job, following, since=since)
        )
    if record.done:
        return Done("done")
    if chance == "messages" and (sending := _send_the_rest(self, step)) is not None:
        return sending
    _close_batch(step)
    return Done(f"done: {format_counts(record.counts)}; {record.answered:,} through the Messages API")


def _record_cost(step: Step) -> None:
    """Record the known cost of the batch: the most it may have cost if it may exist and has no results."""
    record = step.batch
    if step.settings.max_cost is None or record.most is None:
        return
    past = record.rounds[-1].costs if record.rounds else {}
    now = record.costs if record.published is not None else past
    spent = spending.to_nano_dollars(spending.total_known_cost(now) - spending.total_known_cost(past))
    exists = record.batch_id is not None or record.intent_at is not None
    unpriced = record.published is not None and None in record.costs.values()
    if unpriced or (exists and (record.published is None or record.state == "failed")):
        # An unknown cost may be as high as the reservation.
        spent = max(spent, record.most or 0)
    step.store.budget.record_cost(step.unit, len(record.rounds), spent)


def _choose_next_attempt(step: Step) -> str:
    """Decide how the open requests of the batch are sent again: ``resubmit``, ``messages`` or ``none``."""
    record, settings, now = step.batch, step.settings, step.now()
    if record.state == "failed" or step.job.adopted or not record.eligible or step.job.cancel_requested:
        return "none"
    if record.read_only:
        step.record(note="the store had lost its record, and with it what was sent again of it already")
        return "none"
    if step.job.stopped is not None:
        step.record(note=step.job.stopped)
        return "none"
    deadline = None if settings.deadline is None else step.job.submitted_at + settings.deadline
    limits = [limit - now for limit in (deadline, step.deadline) if limit is not None]
    return rules.choose_next_attempt(
        # If there are no rows, the API did not accept the batch, or lost it.
        rounds=len(record.rounds) if record.published is not None else settings.retries,
        retries=settings.retries,
        fallback=settings.fallback,
        in_time=not limits or rules.ends_in_time(min(limits), step.past, record.eligible),
    )


def _final_positions(step: Step) -> Iterator[int]:
    """Return the positions of the batch's requests that are not sent again."""
    left = bytearray(step.batch.count)
    for place in resubmission.positions_left(step.store, step.unit.job_id, step.unit.batch or 0, step.batch):
        left[place] = True
    return (place for place in range(step.batch.count) if not left[place])


def _begin_round(step: Step) -> None:
    """Begin the next round: resubmit the open requests as a smaller batch."""
    record, store, settings = step.batch, step.store, step.settings
    job_id, batch = step.unit.job_id, step.unit.batch or 0
    changes = resubmission.begin_round(store, job_id, step.job, batch, record)
    wait = rules.retry_countdown(
        len(record.rounds) + rules.RESUBMIT_AFTER,
        retry_min=settings.retry_min,
        retry_max=settings.retry_max,
        at_least=None,
        rand=random.random(),
    )
    wait = step.bound_wait(wait)
    text = f"{changes['smaller']:,} of its requests go into a smaller batch in {format_duration(wait)}"
    step.note("resubmitted", text, requests=changes["smaller"], round=len(changes["rounds"]), countdown=round(wait, 1))
    step.record(**changes, failures=0, due_at=step.now() + wait)
    metrics.count("smaller_batches")


def _send_the_rest(task: FallBack, step: Step) -> Wait | None:
    """Have the rest sent through the Messages API, up to the job's limit; None if all of it has an outcome."""
    record, store, settings = step.batch, step.store, step.settings
    job_id, batch = step.unit.job_id, step.unit.batch or 0
    if record.granted is None:
        record.granted = store.budget.reserve_quota(job_id, batch, record.eligible, settings.max_fallback_requests)
    if record.granted < record.eligible:
        step.record(note=f"max_fallback_requests ({settings.max_fallback_requests:,}) are used up for this job")
    if not record.granted:
        return None
    if step.job.cancel_requested:
        store.message_queue.drop_waiting(job_id, batch)
    if record.messages_out and messages_fallback.all_ended(step):
        if not messages_fallback.fail_abandoned_calls(step):
            messages_fallback.end_unaccounted_requests(step)
            return None
        messages_fallback.end_unaccounted_requests(step)
        # All senders have finished, and left some requests: the sender that had these died, or put them back too late.
        step.record(messages_out=False, first_lane=record.first_lane + rules.SENDERS)
    if not record.messages_out:
        text = f"{record.granted:,} of {record.eligible:,} requests go through the Messages API"
        step.note("messages", text, requests=record.granted)
        store.message_queue.add_requests(
            job_id, batch, resubmission.positions_left(store, job_id, batch, record)[: record.granted]
        )
        units = messages_fallback.list_senders(step)[: 1 if task.request.is_eager else None]
        store.schedule.add_units(units, step.now())
        for unit in units:
            message_chain.make_sender_message(task.app, step.job, unit).apply_async()
        step.record(messages_out=True)
    left = store.message_queue.count_unfinished(job_id, batch)
    if not left and task.request.is_eager:
        return None
    if not left:  # senders that wait have nothing to wait for
        store.schedule.wake_units(messages_fallback.list_senders(step))
    return Wait(f"fallback: {record.granted - left:,} of {record.granted:,} through")


def _close_batch(step: Step) -> None:
    """Close the batch with its final outcomes, and count these as a reader will see them."""
    record = step.batch
    if not record.final:
        figures, sources = _final_figures(step)
        step.record(final=True, **figures)
        for (outcome, source), count in sources.items():
            metrics.count("requests", count, outcome=outcome, source=source)
    if record.state != "failed":
        result_hooks.announce_results(step, range(record.count))
    step.record(done=True)


def _final_figures(step: Step) -> tuple[dict[str, Any], Mapping[tuple[str, str], int]]:
    """Return the changes in the batch's record, and the number of requests by outcome and source."""
    record = step.batch
    if not record.granted and not record.read_only:
        return {"skipped": record.eligible} if record.note is not None else {}, resubmission.count_sources(record)
    job_id, batch = step.unit.job_id, step.unit.batch or 0
    sources: Counter[tuple[str, str]] = Counter()
    usage: Counter[str] = Counter(record.usage)
    answered = tried = 0
    meter = spending.Meter(step.settings.price_list, batch=False)
    for outcome in reader.Reader(step.store, job_id, step.job, batch, record).outcomes():
        sources[outcome.row.type, outcome.source] += 1
        if outcome.source == "messages":
            answered += 1
            usage.update(outcome.row.usage)
            if outcome.row.type == "succeeded":
                result_rows.count_answers(meter, [outcome.row.result.message])
    for _, stored in step.store.results.read_outcomes(job_id, batch):
        tried += (kept := reader.kept(stored)) is not None and kept.tried
    note = record.note or step.job.stopped
    if note is None and step.deadline is not None and step.now() >= step.deadline:
        note = f"the job waited longer than max_wait ({step.settings.max_wait:g} s)"
    counts: Counter[str] = Counter()
    for (ended, _), count in sources.items():
        counts[ended] += count
    changes = {
        "counts": dict(counts),
        "usage": dict(usage),
        "costs": spending.merge_costs(record.costs, meter.costs()),
        "unpriced": dict(Counter(record.unpriced) + Counter(meter.unpriced())),
        "answered": answered,
        "resubmitted": max(record.resubmitted - answered, 0),
        "skipped": record.eligible - answered - tried,
        "note": note,
    }
    return changes, sources
