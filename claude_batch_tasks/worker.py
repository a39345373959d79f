"""What a worker does beside its tasks: checks at its start, the watch for lost messages, and what a revoke means."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any

from celery import signals

from claude_batch_tasks import checks, errors, recovery
from claude_batch_tasks.line import NAME
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import Unit

log = logging.getLogger(__name__)

#: The tasks that carry a job's own id.
_OF_THE_JOB = (NAME + "run_batch", NAME + "finish_job")


def connect() -> None:
    """Have Celery call what is here; in a process that is no worker, it never does."""
    signals.worker_init.connect(_check_settings)
    signals.celeryd_after_setup.connect(_check_servers)  # worker_init comes before the worker's log is set up
    signals.worker_ready.connect(_watch)
    signals.task_revoked.connect(_revoked)


def _check_settings(sender: Any = None, **_: Any) -> None:
    """Refuse to start on settings that make no sense, rather than fail at the first job."""
    try:
        Settings.of(sender.app)
    except errors.InvalidSettings as exc:
        raise SystemExit(f"claude_batch_tasks: {exc}") from None


def _check_servers(instance: Any = None, **_: Any) -> None:
    checks.warn(instance)


def _watch(sender: Any = None, **_: Any) -> None:
    watch = recovery.Watch(sender.app)
    signals.worker_shutting_down.connect(lambda **_: watch.stop(), weak=False)
    watch.start()


def _revoked(sender: Any = None, request: Any = None, signum: Any = None, **_: Any) -> None:
    """A revoked job is at its end: what it has stored expires, its batches go on at Anthropic, nobody looks at them."""
    if getattr(sender, "name", None) not in _OF_THE_JOB:
        return
    if isinstance(signum, str):
        # Nobody revoked it. Celery (5.7) says so of a step that it killed when the broker's connection was lost, if the
        # result back end did not answer either: there signum is the text of an exception, not a number.
        log.warning("job %s: a lost connection ended its step; it goes on when that is found lost", request.id)
        return
    with suppress(errors.BatchTasksError):
        store, settings, _record = sender.open(request.id)
        store.update_job(request.id, state="revoked", ended_at=time.time())
        store.unschedule(Unit(request.id))
        store.expire(request.id, settings.result_ttl)
