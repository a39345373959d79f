"""The task ``poll_batch``, which polls the batch until it has ended."""

from __future__ import annotations

import math
from contextlib import suppress

from claude_batch_tasks import api, errors, metrics, rules, signals
from claude_batch_tasks.formatting import format_counts
from claude_batch_tasks.lifecycle import not_found, polling, reconciliation
from claude_batch_tasks.steps import credentials
from claude_batch_tasks.steps.decisions import Decision, Done, Wait
from claude_batch_tasks.steps.message_chain import NAME
from claude_batch_tasks.steps.step import Step
from claude_batch_tasks.steps.task_classes import job_task
from claude_batch_tasks.tasks.in_flight import InFlightTask
from claude_batch_tasks.wire import result_rows


class PollBatch(InFlightTask):
    """The task ``poll_batch``: one poll of a batch, and the wait for the next."""

    abstract = True
    rank = 1
    last_look = rules.LAST_POLL_SECONDS

    def look_interval(self, now: float) -> float:
        """Return the seconds until the next poll by the schedule."""
        return max(polling.next_poll_at(self.step) - now, 0)


@job_task(base=PollBatch, name=NAME + "poll_batch")
def poll_batch(self: PollBatch, job_id: str, batch: int, turn: int = 0, seq: int = 0) -> Decision:
    """Poll the batch; wait for the next poll until it has ended."""
    step, record = self.step, self.step.batch
    if record.state not in ("in_progress", "canceling"):
        return Done(f"nothing to look at: {record.state}")
    assert record.batch_id is not None
    not_canceled = None
    # Not before the results have confirmed the batch: it may be another application's.
    if step.job.cancel_requested and not record.cancel_sent and not record.provisional:
        not_canceled = _cancel_batch(step, record.batch_id)
    try:
        seen, seen_at = polling.poll_or_list(step)
    except errors.NotFoundError as exc:
        return not_found.handle_not_found(step, exc, "retrieve")
    if step.job.adopted:
        _learn_adopted_batch(step, seen)
    step.record(
        looks=record.looks + 1,
        sighting=seen_at,
        absences=0,
        refused_since=None,
        not_before=record.not_before if seen.retry_after is None else seen_at + seen.retry_after,
        unidentified=0,
        state="canceling" if seen.processing_status == "canceling" else "in_progress",
    )
    if record.looks == 1:
        step.note("seen", f"seen, {seen.processing_status.replace('_', ' ')}", **seen.call)
    if not record.provisional:
        credentials.remember_credential(step, seen.account)
    elif step.store.batch_ids.find_owner(seen.id) != step.unit:
        return not_found.release_batch(step, "another job knows that it is its own")
    elif seen.processing_status != "ended":
        with suppress(errors.ApiError):
            reconciliation.search_again(step)
    if seen.processing_status != "ended":
        waited = sum(seen.request_counts.get(name, 0) for name in result_rows.OUTCOMES)
        status = seen.processing_status.replace("_", " ")
        if not_canceled is not None:
            raise not_canceled
        return Wait(f"{status}: {waited:,} of {record.sending:,}")
    if seen.archived_at is not None and record.provisional:
        return not_found.release_batch(step, "it is archived")
    if seen.archived_at is not None:
        return not_found.handle_missing_batch(
            step, "lost", errors.BatchArchived(f"batch {seen.id} is archived; its results are gone")
        )
    if record.provisional and reconciliation.is_ours(step, seen) is False:
        return not_found.release_batch(step, "its rows are another's")
    told: dict[str, int] = {name: seen.request_counts.get(name, 0) for name in result_rows.OUTCOMES}
    step.record(state="ended", told=told, **({} if record.rounds else {"counts": told}))
    in_time = step.now() + record.api_ahead < (record.expires_at or math.inf)
    if seen.ended_at is not None and not step.job.cancel_requested and in_time:
        took = (seen.ended_at - seen.created_at).total_seconds()
        step.store.in_flight.add_duration(step.account, record.sending, max(took, 0.0))
        metrics.observe("batch_seconds", max(took, 0.0))
    step.tell(signals.batch_ended, batch_id=seen.id, counts=told, round=len(record.rounds))
    step.note("ended", f"ended, {format_counts(told)}", counts=told, round=len(record.rounds), **seen.call)
    return Done(f"ended: {format_counts(told)}")


def _cancel_batch(step: Step, batch_id: str) -> errors.ApiError | None:
    """Cancel the batch; return the error after which that must be tried again, if the batch has not ended by itself.

    A permanent refusal means that the batch has ended, or the poll meets it too.
    """
    step.pace.check()
    try:
        with suppress(errors.PermanentError), step.pace.observing():
            api.cancel(step.client, batch_id, timeout=step.settings.timeout)
    except (errors.TransientError, errors.NotFoundError) as exc:
        return exc
    step.record(cancel_sent=True)
    return None


def _learn_adopted_batch(step: Step, seen: api.Batch) -> None:
    """Learn from a poll of a batch created elsewhere how many requests it has, and when it was created."""
    record, count = step.batch, sum(seen.request_counts.values())
    if record.created_at is None:
        step.store.jobs.persist_job(step.unit.job_id)
        if not step.claim(
            seen.id, created_at=seen.created_at.timestamp(), api_ahead=reconciliation.api_ahead(step, seen)
        ):
            holder = step.store.batch_ids.find_owner(seen.id)
            raise errors.BatchTasksError(f"batch {seen.id} is that of job {holder.job_id if holder else 'another'}")
        step.record(expires_at=seen.expires_at.timestamp() if seen.expires_at else None)
    if count not in (0, record.count):
        step.store.jobs.update_job(step.unit.job_id, requests=count)
        step.job.requests = count
        step.record(count=count)
    if not record.count and not seen.running:
        error = f"retrieve: {seen.id} has ended, and is shown without its requests"
        if record.failures + 1 >= step.settings.results_limit:
            raise errors.ResultsMissing(error)
        raise errors.TransientError(error)
