"""How messages are sent: in bounded time, whatever the app's own connections allow, and with one error for all brokers.

A connection from which nothing comes any more must hold up neither a step nor the worker's main process. An app's
connections have no time-outs unless its settings say so; those that our messages go over always have.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from amqp.exceptions import MessageNacked
from celery import Celery
from kombu import pools
from kombu.exceptions import OperationalError

from claude_batch_tasks import transport

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
                yield {**options, "producer": producer}
    except OperationalError:
        raise
    except refused as exc:
        raise OperationalError(str(exc) or type(exc).__name__) from exc


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
