"""What a worker's main process does all the time: it sends due messages, and searches for lost ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from celery import bootsteps
from celery.concurrency.prefork import TaskPool as Prefork
from kombu.exceptions import OperationalError

from claude_batch_tasks import errors, instruments, rules
from claude_batch_tasks.checks import inspection
from claude_batch_tasks.lifecycle import record_repair, recovery
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.steps import dispatch
from claude_batch_tasks.worker import log_lines, presence_report, start_checks

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
        self._over = threading.Event()

    def start(self, worker: Any) -> None:
        app, over = worker.app, self._over
        instruments.begin_instruments()
        if not issubclass(worker.pool_cls, Prefork):
            start_checks.check_clients_of_pool()
        reporter = presence_report.Reporter(worker)
        watch = record_repair.Watch()
        for work in (
            _Work(
                "claude-batch-ticker",
                lambda: dispatch.send_due(app),
                "sending due messages",
                lambda: log.exception("messages that are due could not be sent"),
            ),
            _Work(
                "claude-batch-recovery",
                lambda: recovery.watch_records(app),
                "searching for lost messages",
                lambda: log.exception("the search for lost messages failed"),
            ),
            _Work(
                "claude-batch-records",
                lambda: watch.start_repairs(app),
                "searching for lost records",
                lambda: log.exception("the search for lost records failed"),
            ),
            _Work(
                "claude-batch-presence",
                reporter.report_worker,
                "reporting the worker",
                lambda: log.exception("the worker could not report itself"),
                reporter.remove_worker,
            ),
        ):
            _keep_doing(work, over)

    def close(self, worker: Any) -> None:
        """Stop the threads, because the worker is about to stop, warm or cold."""
        self._over.set()


class _Work(NamedTuple):
    """Work that a thread of the worker's main process repeats."""

    #: The thread's name.
    thread: str
    #: Does it once; returns the seconds until the next time.
    run: Callable[[], float]
    #: What it does, in logs.
    name: str
    #: Logs an error that nothing is expected to raise.
    log_failure: Callable[[], None]
    #: Called at the end, if the process lasts that long.
    finish: Callable[[], None] = lambda: None


def _keep_doing(work: _Work, over: threading.Event) -> None:
    """Repeat the work in a thread of the worker's main process until ``over`` is set."""

    def run() -> None:
        pause, failures, since = 0.0, 0, 0.0
        while not over.wait(pause):
            begun = time.monotonic()
            try:
                pause = work.run()
            except (errors.StoreUnavailable, OperationalError) as exc:
                failures += 1
                pause = min(2.0**failures, rules.OUTAGE_RETRY_MAX)
                if failures == 1:  # logged once for each outage, however long it is
                    since = begun
                    log.warning("%s failed, and is retried until it succeeds: %s", work.name, exc)
            except Exception:  # noqa: BLE001 - it is logged, with its traceback
                pause = rules.OUTAGE_RETRY_MAX
                work.log_failure()
            else:
                if failures:
                    log.warning("%s works again, after %.0f s", work.name, time.monotonic() - since)
                failures = 0
        work.finish()

    threading.Thread(target=run, name=work.thread, daemon=True).start()
