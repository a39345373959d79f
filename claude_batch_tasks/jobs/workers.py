"""The workers that run."""

from __future__ import annotations

from celery import Celery

from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.records import WorkerPresence
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import open_store


def list_workers(app: Celery | None = None) -> list[WorkerPresence]:
    """Return the workers that run, as they reported to the store in the last minute; none of them is asked.

    Workers before 0.3 do not report.

    Args:
        app: the Celery app whose settings say where the store is; default: the current one.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    return open_store(Settings.of(app or configured_app())).presence.list_workers()
