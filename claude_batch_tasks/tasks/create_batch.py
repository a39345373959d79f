"""The task ``create_batch``, which creates the batch at Anthropic, once."""

from __future__ import annotations

import logging
from typing import Any

from claude_batch_tasks import errors
from claude_batch_tasks.lifecycle import (
    budget,
    creation,
    gateway_errors,
    lost_results,
    not_found,
    polling,
    reconciliation,
)
from claude_batch_tasks.lifecycle.pools import dividing
from claude_batch_tasks.steps import NAME, Decision, Done, Fail, Step, credentials, job_task
from claude_batch_tasks.tasks.in_flight import InFlightTask


class CreateBatch(InFlightTask):
    """The task ``create_batch``: the first poll comes a while after it."""

    abstract = True
    rank = 0

    def end_failed(self, error: errors.BatchTasksError) -> str:
        """Handle a batch that cannot be created, without harm to what the job already has.

        A refusal that all creates of the account meet stops the job; its outcomes are stored, and it can be resumed.
        """
        step = self.step
        if step.batch.intent_at is not None:
            return super().end_failed(error)
        if dividing.may_be_divided(step, error):
            with self.ending_batch():
                dividing.set_apart(step, error)
        if isinstance(error, errors.BatchesUnsupported) and error.status is not None:
            return self._give_up_batches(error)
        refused, smaller = credentials.concerns_account(error), bool(step.batch.rounds)
        with self.ending_batch():
            if refused or (smaller and isinstance(error, errors.AccountChanged)):
                step.stop_job(str(error))
            if not smaller:
                return super().end_failed(error)
            step.update_record(state="unsent", not_sent_again=f"another batch was not created: {error}")
            step.record_event("unsent", f"not created: {error}", level=logging.WARNING)
        return f"unsent: {error}"

    def _give_up_batches(self, error: errors.BatchesUnsupported) -> str:
        with self.ending_batch():
            gateway_errors.remember_gateway(self.step)
            decided = not_found.handle_missing_batch(self.step, "unsent", error)
        return super().end_failed(error) if isinstance(decided, Fail) else str(decided.value)

    def publish_next_step(self, value: Any) -> None:
        """Publish the chain's next message, after what the create means for a pool of asks."""
        if self.step.job.pool is not None:
            try:
                dividing.finish_create(self.step)
            except errors.StoreUnavailable as exc:
                self.retry_later(exc)
        super().publish_next_step(value)

    def pause(self) -> float:
        """Return the seconds until the first scheduled poll; 0 if there is no batch to poll."""
        return (
            max(polling.next_poll_at(self.step) - self.step.now(), 0) if self.step.batch.state == "in_progress" else 0.0
        )


@job_task(base=CreateBatch, name=NAME + "create_batch")
def create_batch(self: CreateBatch, job_id: str, batch: int, turn: int = 0, seq: int = 0) -> Decision:
    """Create the batch at Anthropic, once: write the intent first, and search for the batch after an unclear answer."""
    step, record = self.step, self.step.batch
    if record.state not in ("staged", "creating"):
        if dividing.is_being_divided(step):
            dividing.finish_division(step)
        return Done(f"nothing to create: {record.state}")
    if (early := self.wait_until_due()) is not None:
        return early
    waited = _has_waited(step)
    if record.intent_at is not None and reconciliation.reconcile_create(step):
        return Done(f"adopted {record.batch_id}")
    if (stopped := _check_stopped(step)) is not None:
        return stopped
    if waited:
        step.check_deadline()
    gateway_errors.check_gateway(step)
    account = credentials.check_to_spend(step)
    lost_results.refetch_rows(step)
    if (missing := creation.find_missing(step)) is not None:
        return Fail(missing)
    if (unpaid := budget.reserve_cost(step)) is not None:
        return unpaid
    step.rate_limits.check_pause("create")
    return creation.send_create(step, account)


def _has_waited(step: Step) -> bool:
    """Return whether the batch had to wait, so that it need not be created after the job's deadline.

    However long a job's first message was in a queue, the job is started.
    """
    record = step.batch
    return bool(record.due_at or record.intent_at or (step.unit.batch or 0) >= step.settings.max_batches_in_flight)


def _check_stopped(step: Step) -> Done | Fail | None:
    """Return how the batch ends without a create: its job is canceled, stopped, or goes without this batch."""
    record, job = step.batch, step.job
    if job.cancel_requested or (record.rounds and job.stopped):
        outcome = {} if record.rounds else {"outcome": {"type": "canceled"}, "counts": {"canceled": record.count}}
        step.update_record(state="unsent", not_sent_again=job.stopped, **outcome)
        return Done(f"not created: the job is {'canceled' if job.cancel_requested else 'stopped'}")
    if job.stopped is not None and job.stopped.startswith("create:"):
        return Fail(errors.PermanentError(job.stopped))  # the account refused another batch of the job
    return not_found.skip_batch(step)
