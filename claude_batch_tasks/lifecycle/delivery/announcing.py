"""What is done when outcomes become final: asks end, and ``on_result`` is called, also again on request."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from celery import Celery
from kombu.exceptions import OperationalError

from claude_batch_tasks import errors
from claude_batch_tasks.lifecycle import pools
from claude_batch_tasks.lifecycle.delivery import calls, confirming
from claude_batch_tasks.lifecycle.delivery.calls import Call, CallableStore, Hook
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import BatchRecord, JobRecord, Unit
from claude_batch_tasks.steps import message_headers, publishing
from claude_batch_tasks.store import HasHistory, HasRecords, history

if TYPE_CHECKING:  # it needs the SDK, which takes a second to import
    from claude_batch_tasks.steps.step import Step

log = get_logger(__name__)


def is_wanted(job: JobRecord) -> bool:
    """Return whether somebody waits for single outcomes of a job: its asks, or its ``on_result``."""
    return job.pool is not None or job.on_result is not None


def announce_results(step: Step, places: Iterable[int]) -> None:
    """End the asks of those of the batch's requests that have not ended, and call ``on_result`` with those not
    announced.

    Args:
        places: the positions of requests whose outcome is final, ascending.

    Raises:
        TransientError: the broker does not take the messages, or the result back end the ends of asks; what they took
            is not repeated.
        JobNotFound: the job is gone.
        ResultsMissing: its custom_ids are gone.
    """
    if step.job.pool is not None:
        places = array("I", places)
        pools.end_final_asks(step, places)
    if step.job.on_result is None or step.job.on_result_error is not None:
        return
    job_id, batch = step.unit.job_id, step.unit.batch or 0
    bits = step.store.results.read_announced(job_id, batch)
    if new := [place for place in places if not is_set(bits, place)]:
        _call_with(step, batch, new)


def _call_with(step: Step, batch: int, new: list[int]) -> None:
    hook = Hook(step.task.app, step.store, step.unit.job_id, step.job)
    called = 0
    try:
        for call in hook.make_calls(batch, step.batch, new):
            if call.size > calls.MOST:
                _give_up(step, hook, describe_size(call))
                return
            try:
                hook.send_call(call)
            except Exception as exc:
                if not isinstance(exc, OperationalError) and step.task.request.is_eager:
                    # The task ran here; how it ends does not concern the job.
                    log.exception("job %s: on_result failed", step.where, extra=step.fields("on_result"))
                    confirming.record_failed_call(step.store, step.unit.job_id, call.runs, hook.task, exc)
                    continue
                _check_outage(step, hook, exc)
                return
            hook.mark_called(call)
            called += len(call.places)
    finally:
        if called:
            with suppress(errors.StoreUnavailable):  # a courtesy
                step.store.deliveries.note_activity(step.unit.job_id)
            log.info("job %s: on_result called with %d ids", step.where, called, extra=step.fields("on_result"))


def _check_outage(step: Step, hook: Hook, exc: Exception) -> None:
    """Stop calling ``on_result`` if its message cannot be sent however often that is tried.

    Raises:
        TransientError: it may be sent later.
    """
    outage = publishing.is_outage(step.task.app, exc)
    if outage or (outage is None and step.batch.failures < step.settings.max_step_failures):
        # Any error that the broker's client raises.
        raise errors.TransientError(f"on_result was not called: {type(exc).__name__}") from None
    _give_up(step, hook, f"{type(exc).__name__}: {exc}")


def _give_up(step: Step, hook: Hook, reason: str) -> None:
    """Stop calling the job's ``on_result``, and report that once."""
    text = (
        f"{step.unit}: on_result ({hook.task}) cannot be called: {reason}. It is not called again for this job, which "
        f"continues. Its outcomes are in the store: BatchJob({step.unit.job_id!r}).results()"
    )
    step.job.on_result_error = step.store.jobs.set_once(step.unit.job_id, "on_result_error", text)
    if step.job.on_result_error == text:  # otherwise another batch reported it before
        step.record_event("not_sent", text.removeprefix(f"{step.unit}: "), level=logging.ERROR)


def describe_size(call: Call) -> str:
    """Return why a call is too large for a message."""
    what = f"with one custom_id of {len(call.custom_ids[0]):,} characters its message has some {call.size:,} bytes"
    return f"{what}, and {calls.MOST:,} is the most"


class DeliverableStore(CallableStore, HasRecords, HasHistory, Protocol):
    """What it takes to hand over the answers of a job again."""


def redeliver_results(app: Celery, store: DeliverableStore, job_id: str, job: JobRecord, *, everything: bool) -> int:
    """Call a job's ``on_result`` again; return with how many requests it was called.

    Args:
        everything: with all whose outcome is final; else with those that are not known to be delivered.

    Raises:
        NotDeliverable: the job has no ``on_result``, or the call cannot be made.
        kombu.exceptions.OperationalError: the broker does not answer; what was not called stays as it is.
    """
    if job.on_result is None:
        raise errors.NotDeliverable(
            f"job {job_id} has no on_result, so nothing was called. Its answers: BatchJob({job_id!r}).results()"
        )
    hook, delivered, called = Hook(app, store, job_id, job), store.deliveries.read_delivered(job_id), 0
    store.jobs.update_job(job_id, delivery_errors=[])  # what fails from now on is reported again
    with publishing.fixed_headers(message_headers.headers_of(job)):
        for number, record in enumerate(store.records.find_batches(job_id)):
            if record is not None:
                places = _final_places(store, job_id, number, record)
                wanted = [place for place in places if everything or not is_set(delivered, record.first + place)]
                called += _call_again(app, store, job_id, hook, number, record, wanted) if wanted else 0
    store.jobs.update_job(job_id, on_result_error=None)
    if called:
        text = f"redelivered: on_result ({hook.task}) was called again with {called:,} ids"
        history.note(store, Unit(job_id), "redelivered", text, requests=called)
    return called


def _final_places(store: CallableStore, job_id: str, number: int, record: BatchRecord) -> Sequence[int]:
    """Return the positions of a batch's requests that ``on_result`` was, or should have been, called with."""
    if record.done and record.state != "failed":
        return range(record.count)
    bits = store.results.read_announced(job_id, number)
    return [place for place in range(record.count) if is_set(bits, place)]


def _call_again(
    app: Celery,
    store: DeliverableStore,
    job_id: str,
    hook: Hook,
    number: int,
    record: BatchRecord,
    places: Sequence[int],
) -> int:
    for call in hook.make_calls(number, record, places):
        if call.size > calls.MOST:
            raise errors.NotDeliverable(f"on_result ({hook.task}) cannot be called: {describe_size(call)}")
        # First: the call may end before the next line.
        hook.clear_outcome(call)
        try:
            hook.send_call(call)
        except Exception as exc:  # noqa: BLE001 - whatever keeps it from being sent
            _explain_refusal(app, store, job_id, hook, call, exc)
        hook.mark_called(call)
    return len(places)


def _explain_refusal(app: Celery, store: DeliverableStore, job_id: str, hook: Hook, call: Call, exc: Exception) -> None:
    """Record that the task failed, if it ran here (eager mode).

    Raises:
        NotDeliverable: the message cannot be made.
        Exception: the broker does not answer, or another error of its client.
    """
    if app.conf.task_always_eager and not isinstance(exc, OperationalError):
        confirming.record_failed_call(store, job_id, call.runs, hook.task, exc)
    elif publishing.is_outage(app, exc) is False:
        raise errors.NotDeliverable(f"on_result ({hook.task}) cannot be called: {type(exc).__name__}: {exc}") from None
    else:
        raise exc


def is_set(bits: bytes, place: int) -> bool:
    """Return whether the bit at a position is set; the first of a byte is its highest."""
    return place // 8 < len(bits) and bool(bits[place // 8] >> (7 - place % 8) & 1)
