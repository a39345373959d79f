"""Messages that the broker lost are sent again.

A worker that is killed in the moment in which it takes a message from Redis, a broker that is flushed, a queue that is
purged: the ledger knows which message should have acted by when. A copy of one that was merely late ends quietly, by
its position.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time

from celery import Celery
from kombu.exceptions import OperationalError

from claude_batch_tasks import errors, line
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import Lost, Store, Unit, open_store

log = logging.getLogger(__name__)

#: Held while the watch does anything: a pool child forked in the middle of it would inherit locks that nobody in the
#: child ever releases (of the event dispatcher, of connection pools), and hang for good.
_no_fork = threading.Lock()
os.register_at_fork(before=_no_fork.acquire, after_in_parent=_no_fork.release, after_in_child=_no_fork.release)

#: Messages sent again in one go by the workers' own watch; the rest follows in the next.
_AT_ONCE = 1000


def recover(app: Celery, after: float = 0, limit: int | None = None) -> int:
    """Send again what seems lost; returns the number of messages sent.

    Args:
        after: seconds a message must be overdue; 0: all that nobody is at work on, with what is left of its countdown.
        limit: the number of units looked at, the longest overdue first; default: all.

    Raises:
        StoreUnavailable: the store does not answer.
        kombu.exceptions.OperationalError: the broker does not.
    """
    url = Settings.of(app).store_url
    assert url is not None
    sent = 0
    with _no_fork:
        store = open_store(url)
        overdue = store.overdue(time.time() - after if after else math.inf, limit or 1_000_000_000)
    for unit in overdue:
        with _no_fork:  # for each by itself: forks wait no longer than one message takes
            if (lost := store.lost(unit, after)) is not None and _send_again(app, store, unit, lost):
                sent += 1
    return sent


def _send_again(app: Celery, store: Store, unit: Unit, lost: Lost) -> bool:
    job = store.job(unit.job_id)
    over = lost.position >= (line.ENDED if unit.batch is None else line.DONE)
    if job is None or job.state == "revoked" or over:
        store.unschedule(unit)
        return False
    if job.state == "staged" and unit.batch is not None:
        return False  # the message its job begins with comes first
    countdown = line.until(lost.due_at)
    if unit.batch is None:
        if job.state == "staged":
            line.beginning(app, job, unit.job_id, countdown).apply_async()
        elif all(batch.done for batch in store.batches(unit.job_id)):
            line.publish(job, unit.job_id, line.steps(app, unit.job_id, job, 0, since=line.DONE))
        else:
            return False  # it waits for its batches, not for a message
    elif unit.place is not None:
        line.message(app, job, unit, lost.position, countdown).apply_async()
    else:
        batch = store.batch(unit.job_id, unit.batch)
        turn = batch.turn if batch else 0
        rest = line.steps(app, unit.job_id, job, unit.batch, since=lost.position, turn=turn, countdown=countdown)
        line.publish(job, unit.job_id, rest)
    late = time.time() - lost.due_at
    log.warning("%s: a message was due %.0f s ago; sent again", unit, max(late, 0))
    return True


class Watch:
    """Looks for lost messages as long as a worker runs, in a thread of its main process.

    All workers do: the store tells only one of them of each message.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._over = threading.Event()

    def start(self) -> None:
        """Look now, and then every ``recover_every`` seconds."""
        threading.Thread(target=self._run, name="claude-batch-recovery", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()

    def _run(self) -> None:
        settings = Settings.of(self._app)
        while True:
            try:
                recover(self._app, settings.recover_after, _AT_ONCE)
            except (errors.StoreUnavailable, OperationalError) as exc:
                log.warning("lost messages could not be looked for: %s", exc)
            except Exception:
                log.exception("lost messages could not be looked for")
            if self._over.wait(settings.recover_every):
                return
