"""How messages are published: in bounded time in every app, and with one error for all brokers.

A dead connection must block neither a step nor the worker's main process. An app's connections have no time-outs unless
its settings say so; the connections that carry our messages always have.
"""

from __future__ import annotations

import os
import threading
import traceback
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

from amqp.exceptions import MessageNacked
from celery import Celery
from celery.canvas import group, maybe_signature
from celery.exceptions import BackendError, ImproperlyConfigured, TaskError
from kombu import pools
from kombu.exceptions import OperationalError, SerializationError
from kombu.serialization import (  # type: ignore[attr-defined]
    prepare_accept_content,
    registry as serializers,
)

from claude_batch_tasks import transport
from claude_batch_tasks.errors import BatchTasksError, InvalidSettings, Retryable, StepFailed

#: Time-outs of RabbitMQ connections. Only a confirmed message is known to have arrived: a message on a dead connection
#: looks as if it had been sent.
TIMEOUTS = {"read_timeout": transport.ANSWER_TIMEOUT, "write_timeout": transport.ANSWER_TIMEOUT}
_RABBITMQ = {"confirm_publish": True, **TIMEOUTS}

#: A missing argument, a queue or a task that the app does not know, a value that no serializer can carry.
_UNMAKEABLE = (
    TypeError,
    ValueError,
    RecursionError,
    NotImplementedError,
    TaskError,
    ImproperlyConfigured,
    SerializationError,
    BatchTasksError,
)

#: The modules of result back ends whose clients have errors of their own: of SQLAlchemy, of Django's databases.
_BACK_ENDS = ("celery.backends.", "django_celery_results.backends.")

#: For each app: its pool of producers with time-outs, and the errors of its broker.
_pools: WeakKeyDictionary[Celery, tuple[Any, tuple[type[Exception], ...]]] = WeakKeyDictionary()
_lock = threading.Lock()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _pools.clear()


os.register_at_fork(after_in_child=_after_fork)


def choose_serializer(app: Celery) -> str:
    """Return the serializer of our messages: JSON, or that of the app's tasks if its workers accept no JSON.

    Raises:
        InvalidSettings: the workers accept neither, or messages have no place for the rest of a chain.
    """
    conf = app.conf
    if conf.task_protocol == 1:
        raise InvalidSettings(
            "task_protocol = 1 has messages that cannot carry the steps of a job: it would stop when its first "
            "batch is created. Set task_protocol = 2, Celery's default, which its workers read since Celery 4. Nothing "
            "was stored or sent"
        )
    accepted, ours = prepare_accept_content(conf.accept_content), conf.task_serializer
    if accepted is None or "application/json" in accepted:
        return "json"
    encoder: Any = serializers._encoders.get(ours)
    if encoder is None or encoder.content_type not in accepted:
        raise InvalidSettings(
            f"accept_content = {list(conf.accept_content)!r} has neither 'json' nor task_serializer = {ours!r}: "
            "no worker would accept a message of the job. Put one of them into accept_content. Nothing was stored or "
            "sent"
        )
    return str(ours)


def check_serializer(app: Celery, name: str | None) -> None:
    """Refuse the serializer of a call if the app's workers do not accept it.

    Raises:
        InvalidSettings: the workers do not accept it.
    """
    accepted, encoder = prepare_accept_content(app.conf.accept_content), serializers._encoders.get(name)
    if encoder is not None and accepted is not None and encoder.content_type not in accepted:
        raise InvalidSettings(
            f"run_batch option serializer = {name!r} is not in accept_content = {list(app.conf.accept_content)!r}: no "
            "worker would accept the first message of the job. Leave it out, or put it into accept_content of callers "
            "and workers. Nothing was stored or sent"
        )


#: The headers that every message sent now must have, whatever signal handlers change.
_fixed: ContextVar[Mapping[str, Any]] = ContextVar("claude_batch_fixed_headers", default={})  # noqa: B039


@contextmanager
def fixed_headers(headers: Mapping[str, Any]) -> Iterator[None]:
    """Keep these headers on what is sent: outside a job's tasks, signal handlers have another tenant or trace."""
    token = _fixed.set(headers)
    try:
        yield
    finally:
        _fixed.reset(token)


class _Fixing:
    """A producer that restores fixed headers."""

    def __init__(self, producer: Any, headers: Mapping[str, Any]) -> None:
        self._producer, self._headers = producer, headers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(self, body: Any, headers: Any = None, **options: Any) -> Any:
        """Publish as kombu's producer does, with the fixed headers."""
        headers = dict(headers or {})
        if "task" in headers:  # events use this producer too
            headers.update(self._headers)
            if isinstance(headers.get("headers"), Mapping):  # Sentry's
                headers["headers"] = {**headers["headers"], **self._headers}
        return self._producer.publish(body, headers=headers, **options)


@contextmanager
def bounded_options(app: Celery, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the options with which ``apply_async`` sends a message in bounded time.

    Args:
        options: the given options; a producer or a connection among them is used.

    Raises:
        OperationalError: the broker did not take the message, for whatever reason.
    """
    if app.conf.task_always_eager:
        yield dict(options)
        return
    producers, refused = _producer_pool(app)
    try:
        if options.get("producer") or options.get("connection"):
            yield dict(options)
        else:
            with producers.acquire(block=True) as producer:
                fixed = _fixed.get()
                yield {**options, "producer": _Fixing(producer, fixed) if fixed else producer}
    except OperationalError:
        raise
    except refused as exc:
        raise OperationalError(str(exc) or type(exc).__name__) from exc


class _Withheld:
    """A producer that publishes nothing, in the place of one with a connection."""

    channel = None

    def __init__(self) -> None:
        self.connection = self

    def _reraise_as_library_errors(self) -> AbstractContextManager[None]:
        return nullcontext()

    def publish(self, *args: Any, **options: Any) -> None:
        """Publish nothing."""


def withheld_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with which a message is made, and seen by handlers of signals, but not published."""
    return {**{name: value for name, value in options.items() if name != "connection"}, "producer": _Withheld()}


def is_backend_outage(exc: BaseException) -> bool:
    """Return whether Celery gave up waiting for the result back end; it says so with a plain ``RuntimeError``."""
    return isinstance(exc, RuntimeError) and "result store" in str(exc)


def is_backend_error(exc: BaseException) -> bool:
    """Return whether an error is one of the result back end: an outage, or an error of its client, such as SQLAlchemy.

    A database that is a back end is opened by the first message.
    """
    if is_backend_outage(exc):
        return True
    if type(exc).__module__ == "builtins" or isinstance(exc, _UNMAKEABLE):
        return False
    frames = traceback.walk_tb(exc.__traceback__)
    return any(str(frame.f_globals.get("__name__")).startswith(_BACK_ENDS) for frame, _ in frames)


def is_outage(app: Celery, exc: BaseException) -> bool | None:
    """Return whether a message was not sent because the broker or a back end does not answer, and may be sent later.

    False: the message cannot be made, as it is or with these settings, however often it is tried. None: neither is
    certain.
    """
    if isinstance(exc, (OperationalError, Retryable, BackendError, OSError, MemoryError)) or is_backend_outage(exc):
        return True
    if isinstance(exc, _UNMAKEABLE):
        return False
    if is_backend_error(exc):
        return None  # of a database; to open it again would take as long again
    _, refused = _producer_pool(app)
    backend: Any = app.backend
    if isinstance(exc, (*refused, *getattr(backend, "connection_errors", ()))):
        return True
    return None


@contextmanager
def event_dispatcher(app: Celery, hostname: str | None, together: int = 0) -> Iterator[Any]:
    """Yield a dispatcher of events that uses the connection of our messages.

    Args:
        together: how many events about tasks go into one message; 0: each has its own.
    """
    groups = {"buffer_group": {"task"}, "buffer_limit": together} if together else {}
    producers, _ = _producer_pool(app)
    with (
        producers.acquire(block=True) as producer,
        app.events.Dispatcher(producer.connection, hostname, True, producer.channel, False, **groups) as events,
    ):
        yield events
        if together:
            events.flush()


def send_what_follows(app: Celery, request: Any, value: Any, headers: Mapping[str, Any]) -> None:
    """Send the tasks linked to a task that succeeded, and the next task of its chain, as Celery does when a task ends.

    Args:
        request: the task's request.
        value: the task's return value.
        headers: headers for the next task's message; its own come first.
    """
    options: dict[str, Any] = {"parent_id": request.id, "root_id": request.root_id or request.id}
    if app.conf.task_inherit_parent_priority:
        options["priority"] = (request.delivery_info or {}).get("priority")
    for task in _linked_tasks(app, request):
        task.apply_async((value,), **options)
    if request.chain:
        *rest, following = request.chain  # in reverse, as Celery keeps it
        sent: Any = maybe_signature(following, app=app)
        following = sent.clone()
        own = dict(following.options)
        if carried := {**headers, **(own.get("headers") or {})}:
            following.set(headers=carried)
        following.apply_async((value,), chain=rest, **options)


def explain_unsent(exc: Exception, advice: str) -> Exception:
    """Return the error of a task that has succeeded but whose following tasks cannot be sent.

    It has the class of the cause where possible.
    """
    what = str(exc.args[0]) if isinstance(exc, KeyError) and exc.args else str(exc)
    text = f"{what}. {advice}"
    try:
        error = type(exc)(text)
    except Exception:  # noqa: BLE001 - a class whose arguments are others
        return StepFailed(text)
    return error if what in str(error) else StepFailed(text)


def _linked_tasks(app: Celery, request: Any) -> list[Any]:
    """Return the signatures that are linked to a task: groups by themselves, and all others as one group.

    Each has an id that follows from the task's: a worker that sends them again asks, or submits, nothing twice.
    """
    found: list[Any] = [maybe_signature(task, app=app) for task in request.callbacks or ()]
    linked = [task.clone() for task in found]
    for number, task in enumerate(linked):
        if not isinstance(task, group):
            task.options.setdefault("task_id", str(uuid.uuid5(uuid.NAMESPACE_OID, f"{request.id} link {number}")))
    if len(linked) == 1:
        return linked
    groups = [task for task in linked if isinstance(task, group)]
    together = [task for task in linked if not isinstance(task, group)]
    return [*groups, group(together, app=app)] if together else groups


def _producer_pool(app: Celery) -> tuple[Any, tuple[type[Exception], ...]]:
    with _lock:
        if (found := _pools.get(app)) is None:
            options: dict[str, Any] = {}
            driver = app.connection_for_write().get_transport_cls().driver_type
            if driver == "redis":
                options = transport.TIMEOUTS
            elif driver == "amqp":
                options = _RABBITMQ
            connection = app.connection_for_write(
                transport_options={**options, **(app.conf.broker_transport_options or {})}
            )
            pool = pools.producers[connection]
            pool.limit = app.pool.limit
            errors = {*connection.connection_errors, *connection.channel_errors, MessageNacked}
            # kombu's Redis transport counts it as a connection error, but it may also be a queue that the app does not
            # know.
            errors.discard(KeyError)
            found = _pools[app] = pool, tuple(errors)
        return found
