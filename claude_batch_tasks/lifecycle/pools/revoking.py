"""Asks that end without an answer: their callers revoked them, or they expired while they waited."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from celery import Celery
from celery.signals import task_revoked
from celery.states import REVOKED

from claude_batch_tasks.lifecycle.pools import ask_events, ask_run
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.pool_records import AskPlace
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import HasAsks, open_store

log = get_logger(__name__)


def revoke_asks(
    app: Celery, ask_ids: Sequence[str], *, hostname: str | None = None, terminate: bool = False
) -> list[bool]:
    """Take asks out of their pools, and end them as revoked; return of each whether it will never be sent.

    Args:
        ask_ids: ids of asks; of ids of anything else, nothing is done.
        hostname: the name of the worker; None: this process is none.
        terminate: end those as revoked, too, that are in a job: their requests are sent, and nothing follows them.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    settings = Settings.of(app)
    store = open_store(settings)
    withdrawn = store.asks.withdraw(ask_ids, settings.result_ttl, terminate=terminate)
    gone = [ask_id for ask_id, done in zip(ask_ids, withdrawn, strict=True) if done]
    announce_revoked(app, store, gone, hostname=hostname)
    if terminate:
        others = [ask_id for ask_id, done in zip(ask_ids, withdrawn, strict=True) if not done]
        announce_revoked(app, store, others, hostname=hostname, reason="terminated")
    return withdrawn


def forget_late_revokes(app: Celery, ask_ids: Sequence[str]) -> None:
    """Take back what Celery's workers stored of asks that were revoked too late: these are sent, and end by themselves.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    backend: Any = app.backend
    for ask_id, place in zip(ask_ids, open_store(Settings.of(app)).asks.read_places(ask_ids), strict=True):
        if place is not None and place.state == "waiting":
            with suppress(Exception):  # a courtesy
                if backend.get_state(ask_id) == REVOKED:
                    backend.forget(ask_id)


def announce_revoked(
    app: Celery, store: HasAsks, ask_ids: Sequence[str], *, hostname: str | None = None, reason: str = "revoked"
) -> None:
    """End those of these asks that were revoked in Celery's terms, as a worker ends such a task.

    Args:
        reason: ``revoked``, ``terminated`` or ``expired``.
    """
    if not ask_ids:
        return
    for ask_id, place in zip(ask_ids, store.asks.read_places(ask_ids, with_canvas=True), strict=True):
        if place is not None and place.state == "revoked":
            _end_revoked(app, ask_id, place, hostname, reason)


def _end_revoked(app: Celery, ask_id: str, place: AskPlace, hostname: str | None, reason: str) -> None:
    task: Any = app.tasks[ask_run.ASK]
    request = ask_run.make_request(ask_id, place, hostname)
    try:
        task.backend.mark_as_revoked(ask_id, reason, request=request, store_result=not request.ignore_result)
    except Exception as exc:  # noqa: BLE001 - any back end; the store has that it is revoked
        log.warning("ask %s: its result back end does not show that it is %s: %s", ask_id, reason, exc)
    how = {"terminated": reason == "terminated", "signum": None, "expired": reason == "expired"}
    ask_events.report_revoked(app, ask_id, place, hostname, how)
    task_revoked.send(sender=task, request=request, **how)
