"""The senders of a batch together: who they are, when all have finished, and what they have left behind."""

from __future__ import annotations

import logging

from claude_batch_tasks import rules
from claude_batch_tasks.lifecycle import resubmission, unsaved_answers
from claude_batch_tasks.lifecycle.messages_fallback.outcomes import LOST
from claude_batch_tasks.records import Unit
from claude_batch_tasks.results.stored.messages_outcomes import error_outcome, kept_outcome
from claude_batch_tasks.steps import Step, Wait, message_chain
from claude_batch_tasks.wire import result_rows

_GONE = (
    "the store has lost the outcome of its call through the Messages API, if one was made; it may have been billed, so "
    "it is not sent again"
)


def list_senders(step: Step) -> list[Unit]:
    """Return the senders of the step's batch."""
    record = step.batch
    count = min(rules.SENDERS, record.granted or 0)
    return [Unit(step.unit.job_id, step.unit.batch, record.first_lane + number) for number in range(count)]


def all_ended(step: Step) -> bool:
    """Return whether no sender of the step's batch has anything left to do or to report."""
    found = list_senders(step)
    # If the record of the senders is gone, one that nobody awaits has ended too.
    return all(
        position >= message_chain.DONE or (position < 0 and not awaited)
        for position, awaited in zip(
            map(step.store.records.read_position, found), step.store.schedule.are_scheduled(found), strict=True
        )
    )


def fail_abandoned_calls(step: Step) -> bool:
    """Give up calls of ended senders whose answers no process awaits; return whether requests still wait to be sent."""
    unsaved_answers.bring_in(step.settings, step.store)
    for sender in list_senders(step):
        for place in step.store.message_queue.list_abandoned(sender):
            step.store.message_queue.save_outcome(
                sender, place, kept_outcome(LOST, tried=True, billed=True), given_up=True
            )
    return bool(step.store.message_queue.count_unfinished(step.unit.job_id, step.unit.batch or 0))


def end_unaccounted_requests(step: Step) -> int:
    """End the requests of which no record says whether and how they were answered; return how many.

    They may have been answered and billed. So they are not sent again, and their earlier outcomes are not shown as
    their final ones.
    """
    store, job_id, batch = step.store, step.unit.job_id, step.unit.batch or 0
    granted = step.batch.granted or 0
    if not _lacks_outcomes(step, granted):
        return 0
    known = store.message_queue.list_known(job_id, batch)
    wanted = resubmission.positions_left(store, job_id, batch, step.batch)[:granted]
    unknown = [place for place in wanted if place not in known]
    for place in unknown:
        store.message_queue.save_outcome(step.unit, place, error_outcome(result_rows.ANSWER_LOST, _GONE, None))
    if unknown:
        step.update_record(
            stored=store.results.count_outcomes(job_id, batch)
        )  # outcomes that are gone are not counted any more
        step.record_event("unsent", f"{len(unknown):,} requests: {_GONE}", level=logging.ERROR)
    return len(unknown)


def _lacks_outcomes(step: Step, granted: int) -> bool:
    """Return whether the store has lost outcomes, or requests that were still to be sent."""
    store, job_id, batch = step.store, step.unit.job_id, step.unit.batch or 0
    stored = store.results.count_outcomes(job_id, batch)
    record, job = store.records.read_batch(job_id, batch) or step.batch, store.jobs.read_job(job_id) or step.job
    if record.stored > stored:
        return True
    if job.cancel_requested or job.stopped is not None or step.past_deadline:
        return False  # what was still to be sent was dropped on purpose
    return stored + store.message_queue.count_unfinished(job_id, batch) < granted


def send_rest(step: Step) -> Wait | None:
    """Have the rest sent through the Messages API, up to the job's limit; None if all of it has an outcome."""
    record, store, settings = step.batch, step.store, step.settings
    job_id, batch = step.unit.job_id, step.unit.batch or 0
    if record.granted is None:
        record.granted = store.budget.reserve_quota(job_id, batch, record.eligible, settings.max_fallback_requests)
    if record.granted < record.eligible:
        step.update_record(note=f"max_fallback_requests ({settings.max_fallback_requests:,}) are reached for this job")
        step.note_limit(
            f"max_fallback_requests ({settings.max_fallback_requests:,}) are used up. What is not sent keeps its "
            "outcome and costs nothing. To allow more in later jobs: the option max_fallback_requests of run_batch, or "
            "the setting claude_batch_max_fallback_requests"
        )
    if not record.granted:
        return None
    if step.job.cancel_requested:
        store.message_queue.drop_waiting(job_id, batch)
    if record.messages_out and all_ended(step):
        left = fail_abandoned_calls(step)
        end_unaccounted_requests(step)
        if not left:
            return None
        # All senders have finished, and left some requests: the sender that had these died, or put them back too late.
        step.update_record(messages_out=False, first_lane=record.first_lane + rules.SENDERS)
    if not record.messages_out:
        _start_senders(step, record.granted)
    return _wait_for_senders(step, record.granted)


def _start_senders(step: Step, granted: int) -> None:
    record, store = step.batch, step.store
    job_id, batch = step.unit.job_id, step.unit.batch or 0
    text = f"{granted:,} of {record.eligible:,} requests go through the Messages API"
    step.record_event("messages", text, requests=granted)
    store.message_queue.add_requests(job_id, batch, resubmission.positions_left(store, job_id, batch, record)[:granted])
    units = list_senders(step)[: 1 if step.task.request.is_eager else None]
    store.schedule.add_units(units, step.now())
    for unit in units:
        message_chain.make_sender_message(step.task.app, step.job, unit).apply_async()
    step.update_record(messages_out=True)


def _wait_for_senders(step: Step, granted: int) -> Wait | None:
    left = step.store.message_queue.count_unfinished(step.unit.job_id, step.unit.batch or 0)
    if not left and step.task.request.is_eager:
        return None
    if not left:  # senders that wait have nothing to wait for
        step.store.schedule.wake_units(list_senders(step))
    return Wait(f"fallback: {granted - left:,} of {granted:,} sent through the Messages API")
