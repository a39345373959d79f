"""The report of a worker to the store that it runs, and from which queues it takes messages."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from claude_batch_tasks._version import __version__
from claude_batch_tasks.checks import broker_address, presence
from claude_batch_tasks.errors import BatchTasksError, StoreUnavailable
from claude_batch_tasks.records import WorkerPresence
from claude_batch_tasks.settings import Settings, display
from claude_batch_tasks.steps import dispatch
from claude_batch_tasks.store import open_store

#: Queues and characters of a name that a report has at most.
_MOST_QUEUES, _LONGEST = 200, 200


class Reporter:
    """What reports a worker again and again. A store that does not answer is reported by others."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._started_at: datetime | None = None

    def report_worker(self) -> float:
        """Report the worker, and return the seconds until the next report."""
        with suppress(StoreUnavailable), dispatch.no_fork:
            settings = Settings.of(self._worker.app)
            store = open_store(settings)
            now = datetime.fromtimestamp(store.now(), timezone.utc)
            self._started_at = self._started_at or now
            store.presence.report_worker(self._describe(settings, now), presence.REPORT_TTL)
        return presence.REPORT_EVERY

    def remove_worker(self) -> None:
        """Report that the worker stops."""
        with suppress(BatchTasksError), dispatch.no_fork:
            open_store(Settings.of(self._worker.app)).presence.remove_worker(self._hostname)

    @property
    def _hostname(self) -> str:
        return str(self._worker.hostname)[:_LONGEST]

    def _describe(self, settings: Settings, now: datetime) -> WorkerPresence:
        app: Any = self._worker.app
        # What it takes messages from now: remote control adds and cancels queues.
        queues = sorted(str(name)[:_LONGEST] for name in list(app.amqp.queues.consume_from))
        return WorkerPresence(
            hostname=self._hostname,
            queues=tuple(queues[:_MOST_QUEUES]),
            version=__version__,
            broker=broker_address.describe_broker(app),
            pool=str(getattr(self._worker.pool_cls, "__module__", "")).rpartition(".")[2] or None,
            processes=getattr(self._worker, "concurrency", None),
            settings=display.list_changes(settings),
            started_at=self._started_at or now,
            last_seen=now,
        )
