"""Work that a thread repeats as long as its worker runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from kombu.exceptions import OperationalError

from claude_batch_tasks import errors, rules
from claude_batch_tasks.logs import get_logger

log = get_logger(__name__)


class Work(NamedTuple):
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
    #: Set: the next time has come, whatever the pause is.
    woken: threading.Event | None = None


def keep_doing(work: Work, over: threading.Event) -> None:
    """Repeat the work in a thread of the worker's main process until ``over`` is set, and ``woken`` then too."""

    def run() -> None:
        pause, failures, since = 0.0, 0, 0.0
        while not _is_over(pause, over, work.woken):
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


def _is_over(pause: float, over: threading.Event, woken: threading.Event | None) -> bool:
    """Wait as long as the pause is, or until the work is woken; return whether it is to end."""
    if woken is None:
        return over.wait(pause)
    woken.wait(pause)
    woken.clear()
    return over.is_set()
