"""The answers of asks that nothing follows: their results are stored many at a time, where the result back end can."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from celery import Celery, Task, signals
from kombu.utils import json

from claude_batch_tasks import errors
from claude_batch_tasks.lifecycle.pools import ask_run
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.pool_records import AskPlace
from claude_batch_tasks.results.answers_by_reference import Answer

log = get_logger(__name__)

#: The parts of a canvas that nothing is done with when the task ends.
_HARMLESS = {"root_id", "parent_id", "shadow", "group_id", "group_index", "ignore_result"}

#: What an app's task class may do when a task runs.
_HOOKS = ("__call__", "before_start", "on_success", "after_return")

#: The signals that Celery sends when a task runs.
_SIGNALS = (signals.task_prerun, signals.task_postrun, signals.task_success)

#: Receivers of these do nothing for one ask that matters for it.
_OWN = ("celery.", "claude_batch_tasks.")

#: Ids that stand in every serializer's texts as they are, and one that stands for any of them.
_PLAIN_ID = re.compile(r"[\w-]{36}", re.ASCII)
_ANY_ID = "00000000-a5c0-4000-8000-00000a5cf0e5"

#: The methods of the Redis result back end that store a result.
_METHODS = ("store_result", "_store_result", "_set_with_state", "set", "_set", "encode", "get_key_for_task")


def is_plain(place: AskPlace) -> bool:
    """Return whether nothing follows an ask, so that its end is only stored."""
    return place.canvas == "{}" or not (set(json.loads(place.canvas)) - _HARMLESS)


def can_store_at_once(app: Celery) -> bool:
    """Return whether results may be stored many at a time: Redis keeps them, and nothing is called for each task."""
    return _keeps_in_redis(app.backend) and not _has_hooks(app) and not _has_receivers()


def _keeps_in_redis(backend: Any) -> bool:
    try:
        from celery.backends.redis import RedisBackend
    except ImportError:
        return False
    return isinstance(backend, RedisBackend) and all(
        getattr(type(backend), name, None) is getattr(RedisBackend, name, None) for name in _METHODS
    )


def _has_hooks(app: Celery) -> bool:
    classes = [cls for cls in app.Task.__mro__ if not issubclass(Task, cls)]
    return any(name in vars(cls) for cls in classes for name in _HOOKS)


def _has_receivers() -> bool:
    """Return whether somebody else's functions are called when a task runs."""
    task: Any = None
    return any(
        not str(getattr(receiver, "__module__", "")).startswith(_OWN)
        for signal in _SIGNALS
        for receiver in signal._live_receivers(task)  # type: ignore[attr-defined]
    )


def store_answers(app: Celery, asks: Sequence[tuple[str, AskPlace, Any]], hostname: str | None) -> None:
    """Store the answers of asks as their results, all in one round trip.

    Args:
        asks: their ids, where they are, and their answers, all of one job.
        hostname: the name of the worker.

    Raises:
        TransientError: the back end does not answer.
    """
    backend: Any = app.backend
    forms = _Forms(backend, hostname)
    entries = [
        (backend.get_key_for_task(ask_id), result)
        for ask_id, place, answer in asks
        if (result := forms.encode_result(ask_id, place, answer)) is not None
    ]
    try:
        if entries:
            backend.ensure(_write_entries, (backend, entries))
    except Exception as exc:  # noqa: BLE001 - whatever the back end's client raises
        log.warning("the result back end did not accept %d asks: %s: %s", len(entries), type(exc).__name__, exc)
        raise errors.TransientError("the result back end did not accept the end of asks") from None


class _Forms:
    """The results of asks as a back end stores them. Asks with the same canvas and headers differ only in their id.

    Args:
        backend: the result back end.
        hostname: the name of the worker.
    """

    def __init__(self, backend: Any, hostname: str | None) -> None:
        self._backend, self._hostname = backend, hostname
        self._found: dict[tuple[str, str | None], list[bytes] | None] = {}

    def encode_result(self, ask_id: str, place: AskPlace, answer: Any) -> Any:
        """Return the result of an ask; None: it must not be stored."""
        if _PLAIN_ID.fullmatch(ask_id) is None or getattr(self._backend, "compression", None):
            return self._encode(ask_id, place, answer)
        kind = place.canvas, place.headers
        if kind not in self._found:
            form = self._encode(_ANY_ID, place, Answer(answer.job_id, _ANY_ID))
            self._found[kind] = None if form is None else _as_bytes(form).split(_ANY_ID.encode())
        form = self._found[kind]
        return None if form is None else ask_id.encode().join(form)

    def _encode(self, ask_id: str, place: AskPlace, answer: Any) -> Any:
        request = ask_run.make_request(ask_id, place, self._hostname)
        if request.ignore_result:
            return None
        meta = self._backend._get_result_meta(result=answer, state="SUCCESS", traceback=None, request=request)
        return self._backend.encode({**meta, "task_id": ask_id})


def _as_bytes(encoded: Any) -> bytes:
    return encoded if isinstance(encoded, bytes) else str(encoded).encode()


def _write_entries(backend: Any, entries: Sequence[tuple[Any, Any]]) -> None:
    """Write each entry, and notify who waits for it, as the back end does for one."""
    with backend.client.pipeline(transaction=False) as pipe:
        for key, value in entries:
            if backend.expires:
                pipe.set(key, value, ex=backend.expires)
            else:
                pipe.set(key, value)
            pipe.publish(key, value)
        pipe.execute()
