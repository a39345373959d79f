"""Events about asks for Flower, if the worker was started with events (``-E``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from celery import Celery

from claude_batch_tasks.lifecycle.pools import ask_run
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.pool_records import AskPlace
from claude_batch_tasks.steps import message_chain, publishing

log = get_logger(__name__)

#: Events in one message.
_TOGETHER = 100

#: Whether this worker sends events about tasks.
_enabled = False


def remember_events(instance: Any = None, **_: Any) -> None:
    """Remember whether the worker that starts sends events about tasks."""
    global _enabled
    _enabled = bool(getattr(instance, "task_events", False))


def report_ends(app: Celery, asks: Sequence[tuple[str, AskPlace, Any]], hostname: str | None, now: float) -> None:
    """Report how asks ended.

    Args:
        asks: their ids, where they are, and their answers or errors.
        now: epoch seconds, by the clock of the store.
    """
    if _enabled:
        _report(app, hostname, [_event_of(*ask, now) for ask in asks])


def report_revoked(app: Celery, ask_id: str, place: AskPlace, hostname: str | None, how: Mapping[str, Any]) -> None:
    """Report an ask that was revoked.

    Args:
        how: what Celery's event says of that.
    """
    _report(app, hostname, [("task-revoked", {**_describe_ask(ask_id, place), **how})])


def _describe_ask(ask_id: str, place: AskPlace) -> dict[str, Any]:
    """Return what an event about a received task says: nobody receives an ask, so the event of its end says it."""
    request = message_chain.request_of(place, ask_id)
    known = {"name": ask_run.ASK, "args": "()", "kwargs": "{}", "retries": 0, "eta": None}
    family = {"root_id": request.root_id, "parent_id": request.parent_id}
    return {"uuid": ask_id, **known, **family, "received": place.asked_at}


def _event_of(ask_id: str, place: AskPlace, end: Any, now: float) -> tuple[str, dict[str, Any]]:
    known = _describe_ask(ask_id, place)
    if isinstance(end, Exception):
        return "task-failed", {**known, "exception": repr(end), "traceback": ""}
    return "task-succeeded", {**known, "result": repr(end), "runtime": max(now - place.asked_at, 0.0)}


def _report(app: Celery, hostname: str | None, found: Sequence[tuple[str, dict[str, Any]]]) -> None:
    if not _enabled or not hostname:
        return
    try:
        with publishing.event_dispatcher(app, hostname, _TOGETHER) as events:
            for kind, fields in found:
                events.send(kind, **fields)
    except Exception as exc:  # noqa: BLE001 - any broker; a courtesy
        log.warning("events of asks were not sent: %s: %s", type(exc).__name__, exc)
