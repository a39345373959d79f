"""The recovery of messages that the broker lost.

Examples: a worker that is killed in the moment in which it takes a message from Redis, a broker that is flushed, a
queue that is purged. The ledger knows which message should have acted by when. A copy of a message that was merely late
ends quietly, because of its position.
"""

from __future__ import annotations

import logging
import math

from celery import Celery
from kombu.exceptions import OperationalError

from claude_batch_tasks import metrics
from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.lifecycle import unsaved_answers
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import dispatch
from claude_batch_tasks.store import history, open_store

log = get_logger(__name__)

#: Messages that the workers' watch sends again at a time; the rest follows in the next round.
_AT_ONCE = 1000

#: Answers on disk that are brought into the store at a time: forks wait for that.
_FILES_AT_ONCE = 100


def recover_messages(app: Celery, after: float = 0, limit: int | None = None) -> int:
    """Send messages again that seem lost; return how many were sent.

    Args:
        after: seconds a message must be overdue; 0: every message that the broker should have, with the rest of its
            countdown.
        limit: the number of units to check, the longest overdue first; default: all.

    Raises:
        StoreUnavailable: the store does not answer.
        kombu.exceptions.OperationalError: the broker does not answer.
    """
    sent = 0
    with dispatch.no_fork:
        store = open_store(Settings.of(app))
        overdue = store.schedule.list_overdue(store.now() - after if after else math.inf, limit or 1_000_000_000)
    for unit in overdue:
        with dispatch.no_fork:  # one unit at a time: forks wait no longer than one message takes
            if (lost := store.schedule.find_lost(unit, after)) is None:
                continue
            try:
                again = dispatch.send_message(app, store, unit, lost.position, due_at=lost.due_at)
                metrics.count("lost_messages", int(again))
            except (StoreUnavailable, OperationalError):
                raise
            except Exception as exc:  # noqa: BLE001 - its own fault; the others are not to wait for it
                dispatch.note_not_sent(store, unit, exc)
                continue
            if again:
                sent += 1
                late = max(store.now() - lost.due_at, 0)
                text = f"a message has been due for {late:.0f} s, and is sent again"
                history.note(store, unit, "recovered", text, level=logging.WARNING)
    return sent


def watch_records(app: Celery) -> float:
    """Run what all workers do as long as they run; the store gives each lost message to only one of them.

    Returns:
        The seconds until the next call.
    """
    settings = Settings.of(app)
    with dispatch.no_fork:
        store = open_store(settings)
        store.storage.forget_expired()
        unsaved_answers.bring_in(settings, store, _FILES_AT_ONCE)
    recover_messages(app, settings.recover_after, _AT_ONCE)
    return settings.recover_every
