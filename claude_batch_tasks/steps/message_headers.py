"""Message headers of a job's ``run_batch``: every message of the job, and every task that follows it, gets them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from celery.app.task import Context
from celery.signals import after_task_publish
from kombu.utils import json

from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import JobRecord, Unit
from claude_batch_tasks.store import history

log = get_logger(__name__)

#: The most bytes of headers, as JSON, that a job carries.
MOST = 65_536

#: Celery's own headers, and those that brokers add on the way.
_PROTOCOL = {
    *vars(Context),
    "lang",
    "task",
    "argsrepr",
    "kwargsrepr",
    "compression",
    "step",
    "unsaved",
    "attempt",
    "comes_back",
    "not_followed",
    "ends_here",
    "failing_since",
}
_FOREIGN = (
    "claude_batch_",
    "x-death",
    "x-first-death-",
    "x-last-death-",
    "x-delivery-count",
    "x-acquired-count",
    "x-opt-",
)


class Headed(Protocol):
    """What was sent with message headers: a job, or an ask."""

    headers: str | None


#: Collects the headers of a message of ``run_batch`` once it was sent.
_sent: ContextVar[list[Mapping[str, Any]] | None] = ContextVar("claude_batch_sent", default=None)


def encode_headers(headers: Mapping[str, Any] | None) -> str | None:
    """Encode a caller's headers in the form in which they are stored with a job.

    Raises:
        InvalidSettings: the headers are too large, or hold what JSON cannot carry.
    """
    if not headers:
        return None
    try:
        text = json.dumps(dict(headers))
    except (TypeError, ValueError) as exc:
        text = f"run_batch option headers must be a mapping that JSON can carry: {exc}. Nothing was stored or sent"
        raise InvalidSettings(text) from None
    if (size := len(text.encode())) > MOST:
        raise InvalidSettings(
            f"run_batch option headers has {size:,} bytes as JSON; every message of the job carries them, and "
            f"{MOST:,} is the most. Nothing was stored or sent"
        )
    return text


def headers_of(job: Headed) -> dict[str, Any]:
    """Return the headers of a job."""
    found: dict[str, Any] = json.loads(job.headers) if job.headers else {}
    return found


def headers_option(job: JobRecord) -> dict[str, Any]:
    """Return the option of ``apply_async`` that gives a message the job's headers."""
    found = headers_of(job)
    return {"headers": found} if found else {}


def add_headers(job_id: str, job: JobRecord, message: Mapping[str, Any] | Context) -> str | None:
    """Return a job's headers with those that signal handlers of Celery added to its message.

    Args:
        message: the headers that were sent, or the request that a worker received.
    """
    found = {**headers_of(job), **_foreign_headers(vars(message) if isinstance(message, Context) else message)}
    try:
        return encode_headers(found)
    except InvalidSettings as exc:
        extra = history.fields(Unit(job_id), "headers")
        log.warning("job %s: its later messages lack headers that its first one has: %s", job_id, exc, extra=extra)
        return job.headers


def carry_headers(message: Mapping[str, Any] | Context) -> str | None:
    """Return the headers of a message that are neither Celery's nor ours, as ``encode_headers`` encodes them.

    Args:
        message: the headers that are sent, or the request that a worker received.

    Raises:
        InvalidSettings: the headers are too large.
    """
    return encode_headers(_foreign_headers(vars(message) if isinstance(message, Context) else message))


def hand_on_headers(request: Any) -> None:
    """Give the headers of a task's message to the tasks that are linked to it."""
    headers = _foreign_headers(vars(request))
    if headers:
        request.callbacks = [_with_headers(headers, task) for task in request.callbacks or ()] or None
        request.errbacks = [_with_headers(headers, task) for task in request.errbacks or ()] or None


@contextmanager
def observe_headers() -> Iterator[list[Mapping[str, Any]]]:
    """Yield a list that collects the headers of the messages of ``run_batch`` that are sent in the meantime."""
    seen: list[Mapping[str, Any]] = []
    around, token = _sent.get(), _sent.set(seen)
    try:
        yield seen
    finally:
        _sent.reset(token)
        if around is not None:
            around.extend(seen)


@after_task_publish.connect(sender="claude_batch_tasks.run_batch")
def _note_headers(headers: Mapping[str, Any] | None = None, **_: Any) -> None:
    if (seen := _sent.get()) is not None:
        seen.append(dict(headers or {}))


def _foreign_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers that are neither Celery's, a broker's, nor ours; Sentry nests its own under ``headers``."""
    nested = headers.get("headers")
    found = {**headers, **(nested if isinstance(nested, Mapping) else {})}
    stamps = headers.get("stamped_headers") or ()
    own = {}
    for name, value in found.items():
        if name not in _PROTOCOL and name not in stamps and not name.startswith(("_protected", "__", *_FOREIGN)):
            try:
                json.dumps(value)
            except (TypeError, ValueError):
                continue
            own[name] = value
    return own


def _with_headers(headers: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    options = task.get("options") or {}
    return {**task, "options": {**options, "headers": {**headers, **(options.get("headers") or {})}}}
