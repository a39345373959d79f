"""How messages are sent: in bounded time, whatever the app's own connections allow, and with one error for all brokers.

A connection from which nothing comes any more must hold up neither a step nor the worker's main process. An app's
connections have no time-outs unless its settings say so; those that our messages go over always have.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

from amqp.exceptions import MessageNacked
from celery import Celery
from kombu import pools
from kombu.exceptions import OperationalError
from kombu.serialization import prepare_accept_content
from kombu.serialization import registry as serializers  # type: ignore[attr-defined]

from claude_batch_tasks import transport
from claude_batch_tasks.errors import InvalidSettings

#: Time-outs of a RabbitMQ's connections. Only a confirmed message is known to be there: what is sent on a connection
#: from which nothing comes any more seems to have been sent.
TIMEOUTS = {"read_timeout": transport.ANSWER_TIMEOUT, "write_timeout": transport.ANSWER_TIMEOUT}
_RABBITMQ = {"confirm_publish": True, **TIMEOUTS}

#: By app: its pool of producers with time-outs, and the errors of its broker.
_pools: WeakKeyDictionary[Celery, tuple[Any, tuple[type[Exception], ...]]] = WeakKeyDictionary()
_lock = threading.Lock()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _pools.clear()


os.register_at_fork(after_in_child=_after_fork)


def serializer(app: Celery) -> str:
    """Return the serializer of our messages: JSON, or that of the app's tasks where its workers accept no JSON.

    Raises:
        InvalidSettings: they accept neither.
    """
    conf = app.conf
    accepted, ours = prepare_accept_content(conf.accept_content), conf.task_serializer
    if accepted is None or "application/json" in accepted:
        return "json"
    encoder: Any = serializers._encoders.get(ours)
    if encoder is None or encoder.content_type not in accepted:
        raise InvalidSettings(
            f"accept_content = {list(conf.accept_content)!r} has neither 'json' nor task_serializer = {ours!r}: "
            "no worker would take a message of the job. Put one of them into accept_content. Nothing was stored or sent"
        )
    return str(ours)


#: What messages that are sent now have among their headers, whatever handlers of signals make of these.
_fixed: ContextVar[Mapping[str, Any]] = ContextVar("claude_batch_fixed_headers", default={})  # noqa: B039


@contextmanager
def fixed_headers(headers: Mapping[str, Any]) -> Iterator[None]:
    """Keep these headers on what is sent: outside a job's tasks, handlers of signals have another tenant or trace."""
    token = _fixed.set(headers)
    try:
        yield
    finally:
        _fixed.reset(token)


class _Fixing:
    """A producer that puts headers back."""

    def __init__(self, producer: Any, headers: Mapping[str, Any]) -> None:
        self._producer, self._headers = producer, headers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(self, body: Any, headers: Any = None, **options: Any) -> Any:
        """Publish as kombu's producer does."""
        headers = dict(headers or {})
        if "task" in headers:  # an event is sent by it too
            headers.update(self._headers)
            if isinstance(headers.get("headers"), Mapping):  # Sentry's
                headers["headers"] = {**headers["headers"], **self._headers}
        return self._producer.publish(body, headers=headers, **options)


@contextmanager
def bounded(app: Celery, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the options with which ``apply_async`` sends a message in bounded time.

    Args:
        options: those given; a producer or a connection among them is kept.

    Raises:
        OperationalError: the broker did not take the message, for whatever reason.
    """
    if app.conf.task_always_eager:
        yield dict(options)
        return
    producers, refused = _producers(app)
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


@contextmanager
def event_dispatcher(app: Celery, hostname: str | None) -> Iterator[Any]:
    """Yield what sends an event, over the connection that messages are sent over."""
    producers, _ = _producers(app)
    with (
        producers.acquire(block=True) as producer,
        app.events.Dispatcher(producer.connection, hostname, True, producer.channel, False) as events,
    ):
        yield events


def _producers(app: Celery) -> tuple[Any, tuple[type[Exception], ...]]:
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
            # For kombu's Redis transport it is one; but it may also be a queue that the app does not know.
            errors.discard(KeyError)
            found = _pools[app] = pool, tuple(errors)
        return found
