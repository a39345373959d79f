"""What is checked when a worker starts: settings, the store, the servers, and the clients of its accounts."""

from __future__ import annotations

import logging
import mmap
import threading
from typing import Any

from celery import Celery, current_app

from claude_batch_tasks import api, errors, instruments
from claude_batch_tasks.checks import configuration, problems, unread_settings
from claude_batch_tasks.lifecycle import unsaved_answers
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import open_store

log = get_logger(__name__)

#: A byte that a worker's main process shares with its pool: whether one of them has checked the clients.
_checked: mmap.mmap | None = None


def check_settings(sender: Any = None, **_: Any) -> None:
    """Refuse to start if settings are not valid, rather than fail at the first job."""
    try:
        settings = Settings.of(sender.app)
        unread = unread_settings.find_unread(sender.app, settings)
        if wrong := [str(finding) for finding in unread if finding.level >= logging.ERROR]:
            raise errors.InvalidSettings("\n".join(wrong))
        unsaved_answers.check_folder(settings)
        instruments.set_up(sender, settings.instruments)
        api.load_sdk()  # once, before the pool is forked
    except errors.InvalidSettings as exc:
        raise SystemExit(f"claude_batch_tasks: {exc}") from None


def check_store(instance: Any = None, **_: Any) -> None:
    """Refuse to start on the store of a newer release, on one that was moved, or that somebody must migrate first.

    A store that migrates itself is brought up to date.
    """
    try:
        open_store(Settings.of(instance.app)).check_schema()
    except (errors.StoreTooNew, errors.StoreMoved, errors.StoreNotMigrated, errors.InvalidSettings) as exc:
        raise SystemExit(f"claude_batch_tasks: {exc}") from None
    except errors.StoreUnavailable as exc:
        log.warning("claude_batch_tasks: %s; tasks wait until it answers", exc)


def check_servers(instance: Any = None, **_: Any) -> None:
    """Log the problems that the settings and the servers show."""
    global _checked
    _checked = mmap.mmap(-1, 1)
    configuration.log_findings(instance)


def check_clients_of_pool(**_: Any) -> None:
    """Check the clients in one of the pool's processes: what a factory makes may not survive a fork."""
    if _checked is not None and not _checked[0]:
        _checked[0] = 1
        app: Celery = current_app._get_current_object()  # type: ignore[attr-defined]
        threading.Thread(target=_check_clients, args=(app,), name="claude-batch-clients", daemon=True).start()


def _check_clients(app: Celery) -> None:
    """Log which clients have no Message Batches: their jobs are refused before anything is created."""
    factories = configuration.readable_settings(app).client_factories
    for alias in factories:
        try:
            api.get_client(alias, factories)
        except errors.BatchesUnsupported as exc:
            found = problems.NO_BATCHES.found(alias=alias, error=exc)
            log.error(found.template, found)
        except errors.BatchTasksError:
            log.debug("client %r cannot be made on this worker", alias)  # other workers may have what it needs
