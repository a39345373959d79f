"""The messages of waiting units, made from the ledger: when a unit is due, and again if the broker lost its message."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Protocol

from celery import Celery
from celery.states import READY_STATES
from kombu.exceptions import OperationalError

from claude_batch_tasks import rules
from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import JobRecord, Unit
from claude_batch_tasks.settings import Settings, visibility_timeout
from claude_batch_tasks.steps import message_chain, message_headers, publishing
from claude_batch_tasks.store import HasSchedule, HasStatistics, Ledger, history, open_store

log = get_logger(__name__)

#: Held while a worker's threads do anything. A pool child that is forked in the middle of it would inherit locks (of
#: the event dispatcher, of connection pools) that nobody in the child ever releases, and would hang for good.
no_fork = threading.Lock()
os.register_at_fork(before=no_fork.acquire, after_in_parent=no_fork.release, after_in_child=no_fork.release)

#: Messages sent between two queries for due units. Few: the first of many due polls may spare the others theirs.
_AT_ONCE = 50

#: Seconds between two queries, at least: while more units are due than are sent at once, and for wake-ups.
_BETWEEN = 0.1

#: Seconds before a message that cannot be made is tried again.
_PAUSE = 60.0

#: Seconds that a unit waits whose job's record is gone: workers that knew the record report it before.
_GONE = 30.0

#: Seconds for which it is remembered that such a unit has waited.
_REPORTED = 3600.0

#: The longest wait for a wake-up, seconds: a worker that stops waits no longer for the thread that listens.
_LISTENING = 1.0

#: Seconds until a store that wakes nobody is asked again.
_NEVER = 3600.0


def send_due(app: Celery) -> float:
    """Send the messages of some of the units that are due now; return the seconds until the next call of this function.

    Raises:
        StoreUnavailable: the store does not answer.
        kombu.exceptions.OperationalError: the broker does not answer; units whose messages were not sent wait again.
    """
    with no_fork:
        store = open_store(Settings.of(app))
        units, pause = store.schedule.take_due(_AT_ONCE)
    for number, unit in enumerate(units):
        try:
            with no_fork:  # one unit at a time: forks wait no longer than one message takes
                send_message(app, store, unit, store.records.read_position(unit))
        except OperationalError:
            store.schedule.wait_again(units[number:], rules.LONGEST_IN_BROKER)
            raise
        except StoreUnavailable:
            raise
        except Exception as exc:  # noqa: BLE001 - its own fault, such as an unknown queue; not that of the others
            note_not_sent(store, unit, exc)
            store.schedule.wait_again([unit], _PAUSE)
    if len(units) == _AT_ONCE:
        return 0.0
    # A unit that begins to wait in the meantime waits at least as long.
    return min(rules.LONGEST_IN_BROKER, rules.LONGEST_IN_BROKER if pause is None else max(pause, _BETWEEN))


def follow_wakeups(app: Celery, over: threading.Event, woken: Iterable[threading.Event]) -> float:
    """Set the events whenever something becomes due, until ``over`` is set; return the seconds until the next call.

    Raises:
        StoreUnavailable: the store does not answer (any more).
    """
    with ExitStack() as stack:
        with no_fork:
            listener = stack.enter_context(open_store(Settings.of(app)).wakeups.listen())
        if listener is None:
            return _NEVER
        due = True  # what became due before may have been missed
        while not over.is_set():
            if due:
                for each in woken:
                    each.set()
                over.wait(_BETWEEN)
            due = listener.wait(_LISTENING)
    return 0.0


class _Sendable(Ledger, HasSchedule, HasStatistics, Protocol):
    """What it takes to send the message of a unit."""


def send_message(app: Celery, store: _Sendable, unit: Unit, position: int, *, due_at: float | None = None) -> bool:
    """Send the message that a unit at this position waits for; return False if it waits for none.

    The message is tried once, so that ``no_fork`` is locked for no longer than one timeout. The next call
    of ``send_due`` tries again.

    Args:
        due_at: of a lost message, when it was due: the time left until then is its countdown. A unit that waited
            without a message continues under the id of the waiting task.
    """
    job = store.jobs.read_job(unit.job_id)
    over = position >= (message_chain.ENDED if unit.batch is None else message_chain.DONE)
    if job is None:
        return _report_gone(app, store, unit)
    if job.state == "revoked" or over:
        store.schedule.remove_unit(unit)
        return False
    if job.state == "staged" and unit.batch is not None:
        return False  # the first message of its job comes first
    with publishing.fixed_headers(message_headers.headers_of(job)):
        sent = _send_once(app, store, job, unit, position, due_at)
    if sent and job.not_sent is not None:
        history.forget_not_sent(store, unit.job_id)
    return sent


def has_ended(app: Celery, job_id: str) -> bool:
    """Return whether the job's AsyncResult is known to have ended."""
    try:
        return str(app.AsyncResult(job_id).state) in READY_STATES
    except Exception:  # noqa: BLE001 - there is no result back end, or it does not answer
        return False


def _report_gone(app: Celery, store: _Sendable, unit: Unit) -> bool:
    """Send the last task of a job whose record is gone: it fails, and the caller learns why.

    The units wait again before that. A worker that knew the record reports it sooner (``record_repair``), with the
    tasks that are linked to the job. The unit stays in the schedule until the message is sent; a second message ends
    quietly.
    """
    job_id = unit.job_id
    reported = store.jobs.was_deleted(job_id) or has_ended(app, job_id)
    if not reported and store.statistics.is_first(f"gone:{unit.name}", _REPORTED):
        store.schedule.wait_again([unit], _GONE)
        return False
    if not reported:
        unknown = JobRecord(nonce="", requests=0, batches=0, submitted_at=store.now())
        last = message_chain.make_steps(app, job_id, unknown, 0, since=message_chain.DONE)
        message_chain.publish_chain(unknown, job_id, last, retry=False)
    store.schedule.remove_unit(unit)
    return not reported


def note_not_sent(store: history.JournalOfJobs, unit: Unit, exc: Exception) -> None:
    """Record that a unit's message cannot be made."""
    if (job := store.jobs.read_job(unit.job_id)) is not None:
        history.note_not_sent(store, unit, "its next step", exc, job)


def _send_once(app: Celery, store: Ledger, job: JobRecord, unit: Unit, position: int, due_at: float | None) -> bool:
    countdown = 0.0 if due_at is None else max(due_at - store.now(), 0.0)
    if unit.batch is None:
        if job.state == "staged" and countdown > rules.longest_countdown(visibility_timeout(app)):
            return False  # started early, it would be paid early; if it does not come when it is due, it counts as lost
        if job.state == "staged":
            message_chain.make_first_message(app, job, unit.job_id, countdown).apply_async(retry=False)
        elif job.through >= job.batches:
            message_chain.publish_chain(
                job,
                unit.job_id,
                message_chain.make_steps(app, unit.job_id, job, 0, since=message_chain.DONE),
                retry=False,
            )
        else:
            return False  # it waits for its batches, not for a message
    elif unit.lane is not None:
        message_chain.make_sender_message(app, job, unit, position, countdown).apply_async(retry=False)
    else:
        batch = store.records.read_batch(unit.job_id, unit.batch)
        rest = message_chain.make_steps(app, unit.job_id, job, unit.batch, since=position, countdown=countdown)
        same_task = batch.task_id if batch and due_at is None else None
        message_chain.publish_chain(job, unit.job_id, rest, task_id=same_task, retry=False)
    return True
