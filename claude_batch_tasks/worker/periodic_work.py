"""What a worker's main process does all the time: it sends due messages, and searches for lost ones."""

from __future__ import annotations

import threading
from typing import Any

from celery import bootsteps
from celery.concurrency.prefork import TaskPool as Prefork

from claude_batch_tasks import instruments
from claude_batch_tasks.checks import inspection
from claude_batch_tasks.lifecycle import record_repair, recovery
from claude_batch_tasks.lifecycle.pools import due_pools
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.steps import dispatch
from claude_batch_tasks.worker import log_lines, presence_report, repeated_work, revoked_asks, start_checks

log = get_logger(__name__)


class WhatIsDue(bootsteps.StartStopStep):
    """A worker step that sends due messages, and recovers lost ones, in threads of the worker's main process.

    It is a step and not a signal handler, because not every worker sends ``worker_ready`` (that of
    ``celery.contrib.testing`` does not).
    """

    requires = ("celery.worker.components:Pool",)  # its processes are forked before the threads start

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        inspection.register_command()
        log_lines.leave_out_repeated()
        revoked_asks.follow_revokes()
        self._over = threading.Event()
        self._woken = (threading.Event(), threading.Event())

    def start(self, worker: Any) -> None:
        app, over = worker.app, self._over
        units_due, pools_due = self._woken
        instruments.begin_instruments()
        if not issubclass(worker.pool_cls, Prefork):
            start_checks.check_clients_of_pool()
        reporter = presence_report.Reporter(worker)
        watch = record_repair.Watch()
        for work in (
            repeated_work.Work(
                "claude-batch-ticker",
                lambda: dispatch.send_due(app),
                "sending due messages",
                lambda: log.exception("messages that are due could not be sent"),
                woken=units_due,
            ),
            repeated_work.Work(
                "claude-batch-pools",
                lambda: due_pools.send_due(app),
                "sealing pools of asks",
                lambda: log.exception("pools of asks that are due could not be sealed"),
                woken=pools_due,
            ),
            repeated_work.Work(
                "claude-batch-wakeups",
                lambda: dispatch.follow_wakeups(app, over, self._woken),
                "listening for messages that become due",
                lambda: log.exception("listening for messages that become due failed"),
            ),
            repeated_work.Work(
                "claude-batch-recovery",
                lambda: recovery.watch_records(app),
                "searching for lost messages",
                lambda: log.exception("the search for lost messages failed"),
            ),
            repeated_work.Work(
                "claude-batch-records",
                lambda: watch.start_repairs(app),
                "searching for lost records",
                lambda: log.exception("the search for lost records failed"),
            ),
            repeated_work.Work(
                "claude-batch-revokes",
                lambda: revoked_asks.withdraw_revoked(app, worker.hostname),
                "taking revoked asks out of their pools",
                lambda: log.exception("revoked asks could not be taken out of their pools"),
            ),
            repeated_work.Work(
                "claude-batch-presence",
                reporter.report_worker,
                "reporting the worker",
                lambda: log.exception("the worker could not report itself"),
                reporter.remove_worker,
            ),
        ):
            repeated_work.keep_doing(work, over)

    def close(self, worker: Any) -> None:
        """Stop the threads, because the worker is about to stop, warm or cold."""
        self._over.set()
        for woken in self._woken:
            woken.set()
