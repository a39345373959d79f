"""Asks that end without an answer: their callers revoked them, or they expired while they waited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from celery import Celery
from celery.signals import task_revoked
from celery.states import REVOKED
from kombu.utils.functional import maybe_list

from claude_batch_tasks.lifecycle.pools import ask_events, ask_run
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.pool_records import AskPlace
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import message_chain
from claude_batch_tasks.store import HasAsks, HasStatistics, open_store

log = get_logger(__name__)

#: Seconds for which it is known that an ask has ended as revoked: every worker gets the same revoke.
_ENDED = 3600.0


class _Endable(HasAsks, HasStatistics, Protocol):
    """What it takes to end asks as revoked."""


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


def find_stamped(app: Celery, wanted: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the ids of the asks in pools that have one of these stamps.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    store, found = open_store(Settings.of(app)), list[str]()
    for job_id, _ in store.pools.list_pools() if wanted else ():
        for asks in store.pools.read_asks(job_id, params=False):
            ids = [ask.id for ask in asks if ask is not None]
            places = store.asks.read_places(ids, with_canvas=True)
            found += [one for one, place in zip(ids, places, strict=True) if place and _has_stamp(place, wanted)]
    return found


def _has_stamp(place: AskPlace, wanted: Sequence[Mapping[str, Any]]) -> bool:
    own = message_chain.stamp_options(place)
    return any(
        not set(maybe_list(own.get(name)) or ()).isdisjoint(maybe_list(values) or ())
        for stamps in wanted
        for name, values in stamps.items()
    )


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
    app: Celery, store: _Endable, ask_ids: Sequence[str], *, hostname: str | None = None, reason: str = "revoked"
) -> None:
    """End those of these asks that were revoked in Celery's terms, once, as a worker ends such a task.

    Args:
        reason: ``revoked``, ``terminated`` or ``expired``.
    """
    if not ask_ids:
        return
    for ask_id, place in zip(ask_ids, store.asks.read_places(ask_ids, with_canvas=True), strict=True):
        if place is None or place.state != "revoked":
            continue
        if store.statistics.is_first(f"revoked:{ask_id}", _ENDED):
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
