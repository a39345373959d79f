"""The task ``poll_batch``, which polls the batch until it has ended."""

from __future__ import annotations

from contextlib import suppress

from claude_batch_tasks import api, errors, rules
from claude_batch_tasks.formatting import format_counts
from claude_batch_tasks.lifecycle import not_found, polling, reconciliation
from claude_batch_tasks.steps import NAME, Decision, Done, Fail, Step, Wait, credentials, job_task
from claude_batch_tasks.tasks.in_flight import InFlightTask


class PollBatch(InFlightTask):
    """The task ``poll_batch``: one poll of a batch, and the wait for the next."""

    abstract = True
    rank = 1
    what_follows = "next poll"
    last_poll_seconds = rules.LAST_POLL_SECONDS

    def draw_next_poll(self, now: float) -> float:
        """Return the seconds until the next poll by the schedule."""
        return max(polling.next_poll_at(self.step) - now, 0)


@job_task(base=PollBatch, name=NAME + "poll_batch")
def poll_batch(self: PollBatch, job_id: str, batch: int, turn: int = 0, seq: int = 0) -> Decision:
    """Poll the batch; wait for the next poll until it has ended."""
    step, record = self.step, self.step.batch
    if record.state not in ("in_progress", "canceling"):
        return Done(f"nothing to poll: {record.state}")
    not_canceled = polling.cancel_if_requested(step)
    try:
        seen, seen_at = polling.poll_or_list(step)
    except errors.NotFoundError as exc:
        return not_found.handle_not_found(step, exc, "retrieve")
    if step.job.adopted:
        reconciliation.learn_adopted_batch(step, seen)
    polling.record_seen(step, seen, seen_at)
    if not record.provisional:
        credentials.remember_credential(step, seen.account)
    elif (foreign := _check_provisional(step, seen)) is not None:
        return foreign
    if seen.processing_status != "ended":
        not_canceled = not_canceled or polling.cancel_if_late(step)
        if not_canceled is not None:
            raise not_canceled
        return Wait(polling.describe_progress(step, seen))
    if (gone := _check_results(step, seen)) is not None:
        return gone
    return Done(f"ended: {format_counts(polling.record_end(step, seen))}")


def _check_provisional(step: Step, seen: api.Batch) -> Done | None:
    """Release a batch found by search if another job has it; while it runs, search on for one that is ours."""
    if step.store.batch_ids.find_owner(seen.id) != step.unit:
        return not_found.release_batch(step, "it belongs to another job")
    if seen.processing_status != "ended":
        with suppress(errors.ApiError):
            reconciliation.search_again(step)
    return None


def _check_results(step: Step, seen: api.Batch) -> Done | Fail | None:
    """Return what follows if the results of a batch that has ended are gone, or are another's."""
    record = step.batch
    if seen.archived_at is not None and record.provisional:
        return not_found.release_batch(step, "it is archived")
    if seen.archived_at is not None:
        error = errors.BatchArchived(f"batch {seen.id} is archived; its results are gone")
        return not_found.handle_missing_batch(step, "lost", error)
    if record.provisional and reconciliation.is_ours(step, seen) is False:
        return not_found.release_batch(step, "its rows belong to another batch")
    return None
