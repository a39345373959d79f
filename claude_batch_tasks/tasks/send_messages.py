"""The task ``send_messages``, which sends requests through the Messages API."""

from __future__ import annotations

from contextlib import suppress
from typing import NoReturn

from celery.exceptions import Ignore

from claude_batch_tasks import errors
from claude_batch_tasks.formatting import format_counts
from claude_batch_tasks.lifecycle import delivery, messages_fallback
from claude_batch_tasks.records import Unit
from claude_batch_tasks.steps import DONE, NAME, Decision, Done, StepTask, Wait, job_task


class SendMessages(StepTask):
    """The task ``send_messages``: its unit is a sender.

    Its arguments are job id, batch number, sender, sequence number: the sender stands where other steps have the
    generation.
    """

    abstract = True
    last = True
    waits = False

    def unit(self, job_id: str, batch: int, turn: int) -> Unit:
        """Return the unit of the sender."""
        return Unit(job_id, batch, turn)

    def position(self, turn: int, seq: int) -> int:
        """Return the message's own sequence number, which alone counts."""
        return seq

    def position_after(self, turn: int) -> int:
        """Return the position at the end of the sender's life."""
        return DONE

    def due_time(self) -> float | None:
        """Return when the sender may send again."""
        return self.step.store.records.read_sender(self.step.unit).due_at

    def count_failures(self) -> int:
        """Return the failures of the store or the broker in a row."""
        return self.step.store.records.read_sender(self.step.unit).failures

    def show_progress(self, line: str, due_at: float | None = None) -> None:
        """Skip the report: ``fall_back`` reports for all senders."""

    def end_without_job(self, job_id: str) -> NoReturn:
        """End the message quietly: ``fall_back`` reports it to the job's caller."""
        raise Ignore("the job is gone from the store")

    def end_failed(self, error: errors.BatchTasksError) -> str:
        """Stop the job, and leave unsent requests with their earlier outcomes: an error here must not end the batch."""
        step = self.step
        with self.ending_batch():
            step.stop_job(str(error))
            step.store.message_queue.drop_waiting(step.unit.job_id, step.unit.batch or 0)
        return f"stopped: {error}"

    def release_lease(self) -> None:
        """Release the lease; the last sender to finish wakes ``fall_back`` and the other senders.

        These have nothing left to wait for.
        """
        super().release_lease()
        if step := getattr(self.request, "step", None):
            with suppress(errors.StoreUnavailable):
                if not step.store.message_queue.count_unfinished(step.unit.job_id, step.unit.batch or 0):
                    step.store.schedule.wake_units(
                        [*messages_fallback.list_senders(step), Unit(step.unit.job_id, step.unit.batch)]
                    )


@job_task(base=SendMessages, name=NAME + "send_messages")
def send_messages(self: SendMessages, job_id: str, batch: int, lane: int, seq: int = 0) -> Decision:
    """Send requests through the Messages API, as many as may be sent now, and store each outcome as it arrives.

    A call whose answer was lost may have been answered and billed, so it is not made a second time: the outcome of the
    request stays unchanged.
    """
    step = self.step
    if step.store.message_queue.count_unfinished(job_id, batch) and (early := self.wait_until_due()) is not None:
        return early
    run = messages_fallback.Sender(step)
    pause = run.send_allowed()
    if run.final:
        delivery.announce_results(step, run.final)
    sent = format_counts(run.done)
    if pause is not None and not step.past_deadline:
        return Wait(f"sent: {sent}", pause)
    if pause is not None:
        step.store.message_queue.drop_waiting(job_id, batch)
    return Done(f"sent: {sent}")
