"""The work of a worker besides its tasks: checks at its start, due and lost messages, and revoked jobs."""

from __future__ import annotations

import logging
import mmap
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery import Celery, _state, bootsteps, current_app, signals
from celery.concurrency.prefork import TaskPool as Prefork
from celery.states import IGNORED, RETRY
from kombu.exceptions import OperationalError

from claude_batch_tasks import api, errors, instruments, metrics, rules
from claude_batch_tasks.checks import configuration, inspection, problems, silent_broker, unread_settings
from claude_batch_tasks.lifecycle import record_repair, recovery, unsaved_answers
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import dispatch
from claude_batch_tasks.steps.message_chain import NAME
from claude_batch_tasks.store import history, open_store

log = get_logger(__name__)

#: A byte that a worker's main process shares with its pool: whether one of them has checked the clients.
_checked: mmap.mmap | None = None

#: The tasks that carry a job's own id.
_OF_THE_JOB = (NAME + "run_batch", NAME + "finish_job")


def connect() -> None:
    """Connect the functions of this module to Celery's signals.

    In a process that is not a worker, Celery never calls them.
    """
    signals.worker_init.connect(_check_settings)
    # not worker_init, which comes before the worker's log is set up
    signals.celeryd_after_setup.connect(_check_store)
    signals.celeryd_after_setup.connect(_check_servers)
    signals.worker_process_init.connect(_check_clients_of_pool)
    instruments.connect()
    signals.task_revoked.connect(_revoked)
    signals.task_postrun.connect(_let_go)
    # As shared_task does it: for apps that are made later, and for apps that already exist.
    _state.connect_on_app_finalize(_add_step)
    for app in _state._get_active_apps():  # type: ignore[attr-defined]
        if app.finalized:
            _add_step(app)


def _check_settings(sender: Any = None, **_: Any) -> None:
    """Refuse to start if settings make no sense, rather than fail at the first job."""
    try:
        settings = Settings.of(sender.app)
        unread = unread_settings.findings(sender.app, settings)
        if wrong := [str(finding) for finding in unread if finding.level >= logging.ERROR]:
            raise errors.InvalidSettings("\n".join(wrong))
        unsaved_answers.check_folder(settings)
        instruments.set_up(sender, settings.instruments)
        api.load_sdk()  # once, before the pool is forked
    except errors.InvalidSettings as exc:
        raise SystemExit(f"claude_batch_tasks: {exc}") from None


def _check_store(instance: Any = None, **_: Any) -> None:
    """Refuse to start on the store of a newer release, and first bring an earlier release's store up to date."""
    try:
        open_store(Settings.of(instance.app)).check_schema()
    except errors.StoreTooNew as exc:
        raise SystemExit(f"claude_batch_tasks: {exc}") from None
    except errors.StoreUnavailable as exc:
        log.warning("%s; tasks wait for it", exc)


def _check_servers(instance: Any = None, **_: Any) -> None:
    global _checked
    _checked = mmap.mmap(-1, 1)
    configuration.warn(instance)


def _check_clients_of_pool(**_: Any) -> None:
    """Check the clients in one of the pool's processes: what a factory makes may not survive a fork."""
    if _checked is not None and not _checked[0]:
        _checked[0] = 1
        app: Celery = current_app._get_current_object()  # type: ignore[attr-defined]
        threading.Thread(target=_check_clients, args=(app,), name="claude-batch-clients", daemon=True).start()


def _check_clients(app: Celery) -> None:
    """Log which clients have no Message Batches: their jobs are refused before anything is created."""
    factories = configuration.readable(app).client_factories
    for alias in factories:
        try:
            api.client(alias, factories)
        except errors.BatchesUnsupported as exc:
            found = problems.NO_BATCHES.found(alias=alias, error=exc)
            log.error(f"claude_batch_tasks: %s ({found.id})", found)
        except errors.BatchTasksError:
            log.debug("client %r cannot be made on this worker", alias)  # other workers may have what it needs


def _add_step(app: Celery) -> None:
    app.steps["worker"].add(WhatIsDue)
    app.steps["consumer"].add(silent_broker.NoticeSilence)


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
        instruments.begin()
        if not issubclass(worker.pool_cls, Prefork):
            _check_clients_of_pool()
        _keep_doing("claude-batch-ticker", lambda: dispatch.send_due(app), over, "what is due could not be sent")
        _keep_doing(
            "claude-batch-recovery", lambda: recovery.watch_records(app), over, "lost messages could not be looked for"
        )
        watch = record_repair.Watch()
        _keep_doing("claude-batch-records", lambda: watch.look(app), over, "lost records could not be looked for")

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


def _let_go(sender: Any = None, retval: Any = None, state: Any = None, **_: Any) -> None:
    """Release the frames of a task that was retried, or that ended as a duplicate.

    The task's exception refers to a frame of Celery in which it is a variable. Both, and what Celery copied of the
    frames (350 KB for one poll), would stay in memory until Python's full garbage collection: processes grew by 200 MB
    (measured with Celery 5.7.0 on Python 3.11).
    """
    if (
        state in (RETRY, IGNORED)
        and isinstance(retval, Exception)
        and str(getattr(sender, "name", "")).startswith(NAME)
    ):
        retval.__traceback__ = retval.__context__ = retval.__cause__ = None


def _revoked(sender: Any = None, request: Any = None, signum: Any = None, **_: Any) -> None:
    """Mark a revoked job as ended: its stored data expires; its batches go on at Anthropic and are no longer polled."""
    if getattr(sender, "name", None) not in _OF_THE_JOB:
        return
    if isinstance(signum, str):
        # This job was not revoked. Celery (5.7) sends this signal for a step that it killed when the broker connection
        # was lost, if the result back end did not answer either: then signum is the text of an exception, not a number.
        extra = history.fields(Unit(request.id), "interrupted")
        log.warning(
            "job %s: a lost connection ended its step; it goes on when that is found lost", request.id, extra=extra
        )
        return
    with suppress(errors.BatchTasksError):
        store, settings, _record = sender.open(request.id)
        store.jobs.update_job(request.id, state="revoked", ended_at=store.now())
        metrics.count("jobs_ended", state="revoked")
        store.schedule.remove_unit(Unit(request.id))
        store.jobs.expire_job(request.id, settings.result_ttl)
