"""The step of a worker that notices a silent RabbitMQ and connects again. Celery's defaults take minutes.

If packets are lost, neither side learns that a connection is dead. Celery's loop would wait for an answer without
limit. The broker would keep the worker's control queue for the dead connection, and so end the worker when it connects
again.
"""

from __future__ import annotations

import time
from typing import Any

from amqp.exceptions import ChannelError, ResourceLocked
from celery import bootsteps
from celery.app.defaults import NAMESPACES
from celery.worker.state import maybe_shutdown

from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.steps import publishing

log = get_logger(__name__)

#: Seconds between two heartbeats if ``broker_heartbeat`` is not set. Either side gives up a connection after two
#: missing heartbeats. Only the worker's loop sends them: connections on which tasks publish keep Celery's default.
HEARTBEAT = 10

#: Seconds to wait for a control queue that the broker keeps for the lost connection.
_LOCKED = 6 * HEARTBEAT


def heartbeat_of(configured: float | None) -> float | None:
    """Return the seconds between two heartbeats of a worker's connection, for a value of ``broker_heartbeat``."""
    return HEARTBEAT if configured == NAMESPACES["broker"]["heartbeat"].default else configured


class NoticeSilence(bootsteps.Step):
    """A bootstep that gives a worker's own connections to RabbitMQ time-outs and shorter heartbeats."""

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        app = consumer.app
        if app.connection_for_read().get_transport_cls().driver_type != "amqp":
            return
        consumer.amqheartbeat = heartbeat_of(consumer.amqheartbeat)
        options = {**publishing.TIMEOUTS, **(app.conf.broker_transport_options or {})}

        def for_read(**kwargs: Any) -> Any:
            made = consumer.ensure_connected(app.connection_for_read(transport_options=options, **kwargs))
            if consumer.restart_count > 1:
                _wait_for_control_queue(made, app.control.mailbox.get_queue(consumer.hostname).name)
            return made

        def for_write(**kwargs: Any) -> Any:
            return consumer.ensure_connected(app.connection_for_write(transport_options=options, **kwargs))

        consumer.connection_for_read, consumer.connection_for_write = for_read, for_write


def _wait_for_control_queue(connection: Any, name: str) -> None:
    """Wait while the broker keeps a worker's control queue for a connection that the worker has lost."""
    begun = time.monotonic()
    while _is_locked(connection, name) and time.monotonic() < begun + _LOCKED:
        if time.monotonic() < begun + 1:
            log.warning(
                "the broker still reserves %s for the lost connection; the worker waits until the broker notices the "
                "loss",
                name,
            )
        maybe_shutdown()
        time.sleep(1)


def _is_locked(connection: Any, name: str) -> bool:
    try:
        with connection.channel() as channel:
            channel.queue_declare(name, passive=True)
    except ResourceLocked:
        return True
    except ChannelError:  # there is no such queue
        return False
    return False
