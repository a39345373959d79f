"""What a worker's main process does all the time: it sends what is due, and looks for what was lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from celery import bootsteps
from celery.concurrency.prefork import TaskPool as Prefork
from kombu.exceptions import OperationalError

from claude_batch_tasks import errors, instruments, rules
from claude_batch_tasks.checks import inspection
from claude_batch_tasks.lifecycle import record_repair, recovery
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.steps import dispatch
from claude_batch_tasks.worker import start_checks

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
        self._over = threading.Event()

    def start(self, worker: Any) -> None:
        app, over = worker.app, self._over
        instruments.begin_instruments()
        if not issubclass(worker.pool_cls, Prefork):
            start_checks.check_clients_of_pool()
        _keep_doing("claude-batch-ticker", lambda: dispatch.send_due(app), over, "what is due could not be sent")
        _keep_doing(
            "claude-batch-recovery", lambda: recovery.watch_records(app), over, "lost messages could not be looked for"
        )
        watch = record_repair.Watch()
        _keep_doing(
            "claude-batch-records", lambda: watch.start_repairs(app), over, "lost records could not be looked for"
        )

    def close(self, worker: Any) -> None:
        """Stop the threads, because the worker is about to stop, warm or cold."""
        self._over.set()


def _keep_doing(name: str, work: Callable[[], float], over: threading.Event, failed: str) -> None:
    """Call ``work`` in a thread of the worker's main process until ``over`` is set, and wait the seconds it returns."""

    def run() -> None:
        pause, failures, since = 0.0, 0, 0.0
        while not over.wait(pause):
            begun = time.monotonic()
            try:
                pause = work()
            except (errors.StoreUnavailable, OperationalError) as exc:
                failures += 1
                pause = min(2.0**failures, rules.OUTAGE_RETRY_MAX)
                if failures == 1:  # logged once for each outage, however long it is
                    since = begun
                    log.warning(f"{failed}: %s; it is tried again until it can be", exc)
            except Exception:
                pause = rules.OUTAGE_RETRY_MAX
                log.exception(failed)
            else:
                if failures:
                    log.warning(f"{failed} for %.0f s; now it can be again", time.monotonic() - since)
                failures = 0

    threading.Thread(target=run, name=name, daemon=True).start()
