"""What is recorded when a task of a call of ``on_result`` ends, in whatever process it ran.

It is recorded only: nothing here advances a job or sends a message.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Protocol

from celery import Celery

from claude_batch_tasks.formatting import format_count
from claude_batch_tasks.lifecycle.delivery.tracking import BEFORE_END, Tracked
from claude_batch_tasks.records import Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import HasDeliveries, Journal, history, open_store


class ConfirmingStore(Journal, HasDeliveries, Protocol):
    """What it takes to record how a call ended."""


def record_success(app: Celery, tracked: Tracked, task: str) -> None:
    """Record that a task of a call ended well, and report the moment in which all of the job is delivered.

    Args:
        task: its name.
    """
    if tracked.part == BEFORE_END:
        return
    store = open_store(Settings.of(app))
    found = store.deliveries.record_delivered(tracked.job_id, tracked.runs, tracked.part, tracked.parts)
    if found is not None and found.complete:
        history.note(store, Unit(tracked.job_id), "delivered", f"delivered: all answers were handed over to {task}")


def record_failure(app: Celery, tracked: Tracked, task: str, reason: Any) -> None:
    """Record that a task of a call failed permanently, and report that once for each reason.

    Args:
        task: its name.
        reason: the exception, or what else ended it. Of an exception only the type is stored: its text may hold
            answers.
    """
    record_failed_call(open_store(Settings.of(app)), tracked.job_id, tracked.runs, task, reason)


def record_failed_call(
    store: ConfirmingStore, job_id: str, runs: Iterable[tuple[int, int]], task: str, reason: Any
) -> None:
    """Record that a call failed permanently."""
    runs = list(runs)
    kind = reason if isinstance(reason, str) else type(reason).__name__
    found = store.deliveries.record_failed(job_id, runs, f"{task}: {kind}")
    if found is None or not found.new_reason:
        return
    count = format_count(sum(count for _, count in runs), "answer")
    text = (
        f"delivery failed: on_result ({task}) ended with {kind}; {count} of this call are not delivered, and are in "
        f"the store. Further calls that end so are counted, and not logged. When the task is repaired, hand them over "
        f"again: BatchJob({job_id!r}).redeliver()"
    )
    history.note(store, Unit(job_id), "delivery_failed", text, level=logging.ERROR, task=task, error=kind)


def record_activity(app: Celery, tracked: Tracked) -> None:
    """Record that a task of a call is tried again later."""
    open_store(Settings.of(app)).deliveries.note_activity(tracked.job_id)
