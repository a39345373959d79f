"""kombu's Redis transport, for workers that outlive a restart of their Redis.

When its connection is lost, a worker of Celery 5.7 closes it twice. The second time kombu has no address any more for
giving back what the worker holds, or for acknowledging it later: an AttributeError ends the worker, and what it held
stays unseen for the whole visibility timeout. Here that is one more connection error, which the worker survives, and
what it held goes back into its queues as soon as the broker answers again.

The ready-made app uses it. An app of your own does with one line, beside ``Celery(...)``::

    claude_batch_tasks.transport.install()
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import celery
from kombu import transport as kombu_transport
from kombu.transport import redis

from claude_batch_tasks import steady

log = logging.getLogger(__name__)


@dataclass
class _Kept:
    """What is to be given back, by delivery tag."""

    held: dict[str, float] = field(default_factory=dict)  # since when
    popped: dict[str, Any] = field(default_factory=dict)  # the message, which may be nowhere else by now


#: By process and broker. It outlives the connection: a new one has new objects throughout.
_kept: defaultdict[tuple[Any, ...], _Kept] = defaultdict(_Kept)


class QoS(redis.QoS):
    """The messages a channel holds, none of which is dropped because the broker does not answer."""

    channel: Any
    _delivered: Any

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        broker = channel.connection.client
        # A forked child has no business with what its parent held.
        place = (os.getpid(), broker.hostname, broker.port, broker.virtual_host)
        self._kept = _kept[(*place, channel.global_keyprefix, channel.unacked_key)]
        self._broker_errors = (*channel.connection_errors, channel.ResponseError)

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message as held. One that is popped already and cannot be noted would be lost."""
        message.held_since = steady.now()
        try:
            super().append(message, delivery_tag)
        except self._broker_errors:
            self._kept.popped[delivery_tag] = message
            raise

    def restore_unacked(self, client: Any = None) -> None:
        """Give back all that is held, now or later."""
        try:
            with self.channel.conn_or_acquire(client) as connected:
                for tag in list(self._delivered):
                    self.restore_by_tag(tag, connected)
                    self._delivered.pop(tag, None)
        except self._broker_errors as exc:
            log.warning("%d messages are given back when the broker answers again: %r", len(self._delivered), exc)
            self._kept.held.update({tag: message.held_since for tag, message in self._delivered.items()})
            self._delivered.clear()

    def catch_up(self: Any) -> None:
        """Give back what could not be given back when an earlier connection was lost."""
        kept, count = self._kept, len(self._kept.held) + len(self._kept.popped)
        if not count:
            return
        with self.channel.conn_or_acquire() as client:
            for tag, since in list(kept.held.items()):
                # When the visibility timeout is over, any worker may have it, under the same tag.
                if steady.now() - since < self.visibility_timeout:
                    self.restore_by_tag(tag, client)
                kept.held.pop(tag, None)
            while kept.popped:
                tag, message = kept.popped.popitem()  # before the call: with gevent, others may come along meanwhile
                try:
                    self._push(tag, message, client)
                except BaseException:
                    kept.popped[tag] = message
                    raise
        log.warning("%d messages of the lost connection are given back", count)

    def _push(self: Any, tag: str, message: Any, client: Any) -> None:
        info = message.delivery_info
        with client.pipeline() as pipe:
            self._remove_from_indices(tag, pipe)  # perhaps only the answer was lost
            self.channel._do_restore_message(message._raw, info["exchange"], info["routing_key"], pipe)
            pipe.execute()


class _Guarded:
    """What a channel does besides kombu's."""

    QoS: Any = QoS

    def _get_pool(self: Any, asynchronous: bool = False) -> Any:
        """Connections to the broker: refused in the way that every caller knows when the channel was closed before."""
        if self.connection is None or self.connection.client is None:
            raise ConnectionError("the connection to the broker was lost, and is closed")
        return super()._get_pool(asynchronous)  # type: ignore[misc]

    def _brpop_start(self: Any, timeout: float | None = None) -> None:
        """Ask for messages: the consumer's queues are declared by then, and the broker is known to be there."""
        try:
            if isinstance(self.qos, QoS):  # not with the option ack_emulation=False: it holds nothing
                self.qos.catch_up()
        except self.ResponseError as exc:
            log.warning("the broker answers, but takes nothing back: %s", exc)
        super()._brpop_start(timeout)  # type: ignore[misc]


class Channel(_Guarded, redis.Channel):
    """kombu's, guarded."""


class Transport(redis.Transport):
    """kombu's, with guarded channels."""

    Channel = Channel


class SentinelChannel(_Guarded, redis.SentinelChannel):
    """kombu's, guarded."""


class SentinelTransport(redis.SentinelTransport):
    """kombu's, with guarded channels."""

    Channel = SentinelChannel


def install() -> None:
    """Have every Redis URL of this process mean these transports; call it before the worker connects.

    ``broker_transport`` would do for ``redis://`` only: with it ``rediss://`` loses its TLS, ``redis+socket://``
    ignores it, and Flower takes it for the scheme of the broker's URL.

    Before Celery 5.7 it does nothing: there a worker keeps its countdowns through a lost connection, and a message
    given back would run twice.
    """
    if celery.VERSION[:2] < (5, 7):
        return
    for scheme, transport in (("redis", Transport), ("rediss", Transport), ("sentinel", SentinelTransport)):
        kombu_transport.TRANSPORT_ALIASES[scheme] = f"{__name__}:{transport.__name__}"
        kombu_transport._transport_cache.pop(scheme, None)  # type: ignore[attr-defined]
