"""The task ``fall_back``, which sends requests again that are eligible for it, and ends the batch."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from claude_batch_tasks import errors, rules
from claude_batch_tasks.formatting import format_counts
from claude_batch_tasks.lifecycle import (
    budget,
    closing,
    delivery,
    lost_results,
    messages_fallback,
    resubmission,
)
from claude_batch_tasks.records import Unit
from claude_batch_tasks.steps import (
    DONE,
    NAME,
    Decision,
    Done,
    StartOver,
    Step,
    StepTask,
    Wait,
    job_task,
    message_chain,
)

#: The states of a batch whose earlier steps have not all run.
_BEFORE_FALL_BACK = ("staged", "creating", "in_progress", "canceling", "ended")


class FallBack(StepTask):
    """The task ``fall_back``: the last step of a batch."""

    abstract = True
    rank = 3
    last = True
    waits = False

    def position_after(self, turn: int) -> int:
        """Return the position at the end of the batch's life."""
        return DONE

    def wait_until_due(self) -> Wait | None:
        """Return the rest of a countdown, if it is still waited for."""
        record = self.step.batch
        # The last sender to finish has woken it, before its time.
        if record.final or (record.messages_out and messages_fallback.all_ended(self.step)):
            return None
        return super().wait_until_due()

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

    def start_following_batch(self) -> None:
        """Publish the chain of a batch that waits until another has finished, if there is one."""
        step = self.step
        job_id, number = step.unit.job_id, step.unit.batch or 0
        # Once: if the message of the following batch is lost, the ledger knows that it is due.
        if step.batch.made_room or (following := step.store.schedule.start_next_batch(job_id, number)) is None:
            return
        since = step.store.records.read_position(Unit(job_id, following))
        steps = message_chain.make_steps(self.app, job_id, step.job, following, since=since)
        message_chain.publish_chain(step.job, job_id, steps)


@job_task(base=FallBack, name=NAME + "fall_back")
def fall_back(self: FallBack, job_id: str, batch: int, turn: int = 0, seq: int = 0) -> Decision:
    """Send eligible requests again, as a smaller batch, then through the Messages API; wait for their outcomes."""
    step, record = self.step, self.step.batch
    _repeat_skipped_steps(step, turn)
    if record.turn > turn:
        return StartOver()
    if (early := self.wait_until_due()) is not None:
        return early
    attempt = "none" if record.final else _choose_attempt(step)
    if attempt == "resubmit":
        resubmission.start_round(step)
        return StartOver()
    self.start_following_batch()
    if record.done:
        return Done("done")
    if attempt == "messages" and (sending := messages_fallback.send_rest(step)) is not None:
        return sending
    closing.close_batch(step)
    done = f"done: {format_counts(record.counts)}"
    return Done(f"{done}; {record.answered:,} through the Messages API" if record.granted else done)


def _repeat_skipped_steps(step: Step, turn: int) -> None:
    """Begin another generation of a batch that a worker of an earlier release advanced past a step not run."""
    record = step.batch
    if record.turn <= turn and record.state in _BEFORE_FALL_BACK:
        step.record_event("retry", f"not finished: {record.state}; its steps run again", level=logging.WARNING)
        step.update_record(turn=turn + 1)


def _choose_attempt(step: Step) -> str:
    """Decide how the open requests are sent again, and announce the outcomes that are final already."""
    record = step.batch
    lost_results.refetch_rows(step)
    budget.record_cost(step)
    if record.granted is not None:
        return "messages"
    attempt = _choose_next_attempt(step)
    if delivery.is_wanted(step.job) and record.state != "failed" and record.layers:
        delivery.announce_results(step, resubmission.final_positions(step))
    return attempt


def _choose_next_attempt(step: Step) -> str:
    """Decide how requests of the batch are sent again: ``resubmit``, ``messages`` or ``none``."""
    record, settings, job = step.batch, step.settings, step.job
    again = _count_again(step)
    barred = record.state == "failed" or job.adopted or job.cancel_requested
    if not barred and (record.eligible or again):
        if record.read_only:
            barred = True
            step.update_record(note="the store had lost its record, and with it which requests were already sent again")
        elif job.stopped is not None:
            barred = True
            step.update_record(note=job.stopped, not_sent_again=job.stopped)
    in_time = not again or barred or _ends_in_time(step, again)
    if not in_time:
        step.update_record(not_sent_again="another batch would probably not end before the deadline")
    return rules.choose_next_attempt(
        barred=barred,
        again=again,
        eligible=record.eligible,
        fallback="messages" if job.direct else settings.fallback,
        in_time=in_time,
    )


def _count_again(step: Step) -> int:
    """Return how many of the batch's requests are to be sent again in a smaller batch."""
    record = step.batch
    if record.published is None:  # there are no rows: the API did not accept the batch, or lost it
        return 0
    if record.again is not None:
        return record.again.count
    return record.eligible if len(record.rounds) < step.settings.retries else 0  # 0.2.0 fetched them


def _ends_in_time(step: Step, again: int) -> bool:
    """Return whether a smaller batch of so many requests is likely to end before the deadlines of the job."""
    settings, job, now = step.settings, step.job, step.now()
    deadline = None if settings.deadline is None else job.submitted_at + settings.deadline
    limits = [limit - now for limit in (deadline, step.deadline, job.answer_by) if limit is not None]
    return not step.batch.cut_short and (not limits or rules.ends_in_time(min(limits), step.past_batches, again))
