"""What happens to a job, said once: as a line in the log with fields, and as an entry of its history in the store."""

from __future__ import annotations

import logging
import traceback
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, Literal, Protocol, get_args

from claude_batch_tasks import logs
from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.records import HistoryEvent, JobRecord, Unit
from claude_batch_tasks.store.interface import HasJobs, Journal

log = logs.get_logger("claude_batch_tasks")

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
    "output_changed",
    "resubmitted",
    "messages",
    "limited",
    "stopped",
    "cancel",
    "failed",
    "resumed",
    "retried",
    "recovered",
    "not_sent",
    "delivered",
    "delivery_failed",
    "redelivered",
    "finished",
]

#: The words for an event in the log, and the template of its line: the unit, and what follows those words.
_KINDS: dict[Event, str] = {
    **{event: event.replace("_", " ") for event in get_args(Event)},
    "given_back": "released",
}
_TEMPLATES: dict[Event, str] = {event: f"job %s: {kind}%s" for event, kind in _KINDS.items()}

#: What is done about a step's message that cannot be made, and what is to be done about it.
_KEEPS_TRYING = (
    "Nothing is lost: the job continues when the message can be sent. Correct the cause in the workers' settings, and "
    "restart them"
)


class JournalOfJobs(HasJobs, Journal, Protocol):
    """What it takes to record an event that the status of a job shows."""


def note(
    store: Journal,
    unit: Unit,
    event: Event,
    text: str,
    *,
    level: int = logging.INFO,
    job: JobRecord | None = None,
    **details: Any,
) -> None:
    """Record what happened, in the log and in the history.

    The history is a courtesy: no failure of the store here stops a step, and a worker that is killed in the middle of
    one leaves a gap, or an entry twice.

    Args:
        text: what happened, without a prompt, an answer or a key.
        job: the job's record, where the caller has it: the line in the log has its label.
        details: values of JSON's types, ``batch_id`` among them; None is left out.
    """
    details = {name: value for name, value in details.items() if value is not None}
    extra = fields(unit, event, job=job, **details)
    said = text if text.startswith(kind := _KINDS[event]) else f"{kind}: {text}"
    # Error trackers group lines by the template alone, so each kind of event has its own.
    template = _TEMPLATES[event]
    log.log(level, template, where(unit, details.get("batch_id")), said.removeprefix(kind), extra=extra)
    with suppress(StoreUnavailable):
        at = datetime.fromtimestamp(store.now(), timezone.utc)
        store.history.append_event(
            unit.job_id, HistoryEvent(at=at, event=event, batch=unit.number, text=text, details=details)
        )


def note_not_sent(store: JournalOfJobs, unit: Unit, task: str, exc: Exception, job: JobRecord) -> None:
    """Record that a message of a job cannot be made, once for each reason; ``BatchJob.status()`` shows it meanwhile.

    Args:
        unit: which the message is for.
        task: that it calls.
        job: as it was read last.
    """
    text = f"{unit}: the message of {task} cannot be sent: {type(exc).__name__}: {exc}. {_KEEPS_TRYING}"
    if job.not_sent != text:
        trace = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
        log.warning("job %s: a message cannot be sent\n%s", unit.name, trace, extra=fields(unit, "not_sent", job=job))
        with suppress(StoreUnavailable):
            store.jobs.update_job(unit.job_id, not_sent=text)
        note(
            store,
            unit,
            "not_sent",
            text.removeprefix(f"{unit}: "),
            level=logging.ERROR,
            job=job,
            error=type(exc).__name__,
        )


def forget_not_sent(store: HasJobs, job_id: str) -> None:
    """Record that messages of a job can be made again."""
    with suppress(StoreUnavailable):
        store.jobs.update_job(job_id, not_sent=None)


def where(unit: Unit, batch_id: str | None) -> str:
    """Return the name of a unit in logs, with its batch's id, after the word "job"."""
    return f"{unit.name} ({batch_id})" if batch_id else unit.name


def fields(unit: Unit, event: str, *, job: JobRecord | None = None, **details: Any) -> dict[str, Any]:
    """Return the ``extra`` of a line about a unit.

    Args:
        job: the job's record, where the caller has it: its label is one of the fields.
    """
    known = {"job_id": unit.job_id, "label": job and job.label, "batch": unit.number, "lane": unit.lane}
    return logs.fields(event, **{**known, **details})
