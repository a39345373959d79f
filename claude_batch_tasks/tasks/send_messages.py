"""``send_messages``: sends requests through the Messages API."""

from __future__ import annotations

from contextlib import suppress
from typing import NoReturn

from celery.exceptions import Ignore

from claude_batch_tasks import errors
from claude_batch_tasks.formatting import words
from claude_batch_tasks.lifecycle import messages_fallback, result_hooks
from claude_batch_tasks.records import Unit
from claude_batch_tasks.steps.message_chain import DONE, NAME
from claude_batch_tasks.steps.step_task import StepTask
from claude_batch_tasks.steps.task_classes import job_task


class SendMessages(StepTask):
    """``send_messages``: its unit is a lane, its arguments job id, batch number, lane, sequence number.

    The lane stands where other steps have the turn.
    """

    abstract = True
    last = True
    waits = False

    def unit(self, job_id: str, batch: int, turn: int) -> Unit:
        """The lane."""
        return Unit(job_id, batch, turn)

    def position(self, turn: int, seq: int) -> int:
        """Only its own sequence number counts."""
        return seq

    def after(self, turn: int) -> int:
        """The end of the lane's life."""
        return DONE

    def due(self) -> float | None:
        """When the lane may send again."""
        return self.step.store.lane(self.step.unit).due_at

    def failures(self) -> int:
        """Of the store or the broker, in a row."""
        return self.step.store.lane(self.step.unit).failures

    def report(self, line: str, due_at: float | None = None) -> None:
        """``fall_back`` reports for all of them."""

    def gone(self, job_id: str) -> NoReturn:
        """``fall_back`` tells whoever waits for the job."""
        raise Ignore("the job is gone from the store")

    def failed(self, error: errors.BatchTasksError) -> str:
        """What is left keeps the outcomes it had: an error here must not end the batch."""
        step = self.step
        try:
            step.stop(str(error))
            step.store.drop(step.unit.job_id, step.unit.batch or 0)
        except errors.StoreUnavailable as exc:
            self.later(exc)
        return f"stopped: {error}"

    def move_on(self) -> None:
        """The last lane to end wakes the others, which have nothing left to wait for, and ``fall_back``."""
        super().move_on()
        if step := getattr(self.request, "step", None):
            with suppress(errors.StoreUnavailable):
                if not step.store.under_way(step.unit.job_id, step.unit.batch or 0):
                    step.store.wake([*messages_fallback.units(step), Unit(step.unit.job_id, step.unit.batch)])


@job_task(base=SendMessages, name=NAME + "send_messages")
def send_messages(self: SendMessages, job_id: str, batch: int, lane: int, seq: int = 0) -> str:
    """Send requests through the Messages API, as many as may be sent now, and store each outcome as it arrives.

    A call whose answer was lost may have been answered and billed, so it is not made a second time: the request keeps
    the outcome it had.
    """
    step = self.step
    if step.store.under_way(job_id, batch):
        self.not_yet_due()
    run = messages_fallback.Lane(step)
    pause = run.run()
    if run.final:
        result_hooks.announce(step, run.final)
    sent = words(run.done)
    if pause is not None and step.deadline is not None and step.now() >= step.deadline:
        step.store.drop(job_id, batch)
    elif pause is not None:
        raise errors.MoreToSend(f"sent: {sent}", pause)
    return f"sent: {sent}"
