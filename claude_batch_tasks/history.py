"""What happens to a job, told once: as a line in the log with fields, and as an entry of its history in the store."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, Literal

from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.store import HistoryEvent, Store, Unit

log = logging.getLogger("claude_batch_tasks")

Event = Literal[
    "submitted",
    "started",
    "created",
    "adopted",
    "seen",
    "not_found",
    "retry",
    "unsent",
    "lost",
    "given_back",
    "ended",
    "fetched",
    "incomplete",
    "resubmitted",
    "messages",
    "stopped",
    "cancel",
    "failed",
    "resumed",
    "recovered",
    "finished",
]


def note(store: Store, unit: Unit, event: Event, text: str, *, level: int = logging.INFO, **details: Any) -> None:
    """Tell what happened.

    The history is a courtesy: no failure of the store here stops a step, and a worker that is killed in the middle of
    one leaves a gap, or tells it twice.

    Args:
        text: what happened, without a prompt, an answer or a key.
        details: values of JSON's types, ``batch_id`` among them; None is left out.
    """
    details = {name: value for name, value in details.items() if value is not None}
    log.log(level, "%s: %s", where(unit, details.get("batch_id")), text, extra=fields(unit, event, **details))
    with suppress(StoreUnavailable):
        at = datetime.fromtimestamp(store.now(), timezone.utc)
        store.note(unit.job_id, HistoryEvent(at=at, event=event, batch=unit.batch, text=text, details=details))


def where(unit: Unit, batch_id: str | None) -> str:
    """A unit, and its batch's id, as logs name them."""
    return f"{unit} ({batch_id})" if batch_id else str(unit)


def fields(unit: Unit, event: str, **details: Any) -> dict[str, Any]:
    """The ``extra`` of a line in the log, for whoever writes logs as JSON.

    Without what the application's own record factory says (a ``request_id``, for one): logging raises where it is told
    something twice.
    """
    placed = {"job_id": unit.job_id, "batch": unit.batch, "lane": unit.lane}
    told = {"event": event, **{name: value for name, value in placed.items() if value is not None}, **details}
    taken = vars(logging.makeLogRecord({}))
    return {name: value for name, value in told.items() if name not in taken}
