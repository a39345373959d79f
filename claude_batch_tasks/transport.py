"""kombu's Redis transport for workers that survive a restart of their Redis, a full Redis, and one that falls silent.

When its connection is lost, a worker of Celery 5.7 closes it twice. The second time kombu no longer has the address
that it needs to return what the worker has received, or to acknowledge it later: an AttributeError ends the worker,
and the messages that it held are invisible for the whole visibility timeout. With this transport that is one more
connection error, which the worker survives, and the messages go back into their queues as soon as the broker answers
again.

A Redis that refuses commands for a while (its memory or its disk is full, it is a replica during a failover, it is
loading) ends a worker of any Celery, because kombu does not treat that as a connection error. This transport does, so
the worker connects again, at growing intervals, until the Redis accepts writes.

A connection on which nothing arrives any more, because packets vanish, blocks a worker without limit. With this
transport every connection has time-outs and keep-alive, unless ``broker_transport_options`` says otherwise.

The ready-made app uses it. An app of your own uses it with one line, beside ``Celery(...)``::

    claude_batch_tasks.transport.install()
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import celery
from celery.app import backends
from celery.backends.redis import RedisBackend
from kombu import transport as kombu_transport
from kombu.transport import redis
from redis.exceptions import ConnectionError as RedisConnectionError, ResponseError

from claude_batch_tasks import steady
from claude_batch_tasks.logs import get_logger

log = get_logger(__name__)

#: Seconds that a Redis may take to answer one command, and to accept a connection.
ANSWER_TIMEOUT = 10.0
CONNECT_TIMEOUT = 5.0

#: Keep-alive for connections without traffic: after 15 s of silence the peer has 15 s to answer a probe.
KEEPALIVE = {
    getattr(socket, name): value
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}

#: Time-outs of a Redis broker's connections, under their names in ``broker_transport_options``.
TIMEOUTS: dict[str, Any] = {
    "socket_timeout": ANSWER_TIMEOUT,
    "socket_connect_timeout": CONNECT_TIMEOUT,
    "socket_keepalive": True,
    "socket_keepalive_options": KEEPALIVE,
    "health_check_interval": 10,
}

#: Seconds between two checks whether the answer to a consumer's BRPOP is overdue.
_CHECK_BRPOP_EVERY = 2.0

#: Words by which a Redis says that it refuses a command for a while. Errors for which redis-py has a class lack that
#: word.
_REFUSED = re.compile(r"\b(OOM|MISCONF|NOREPLICAS|READONLY|UNBLOCKED|LOADING|CLUSTERDOWN|MASTERDOWN|TRYAGAIN|BUSY)\b")
_REFUSED_CLASSES = {"OutOfMemoryError", "ReadOnlyError", "ClusterDownError", "MasterDownError", "TryAgainError"}


def is_refused_for_now(exc: ResponseError) -> bool:
    """Return whether a Redis refused a command for a reason that passes: it is full, read-only, loading or busy."""
    return type(exc).__name__ in _REFUSED_CLASSES or _REFUSED.search(str(exc)) is not None


@dataclass
class _Kept:
    """The messages that are to be returned, by delivery tag."""

    held: dict[str, float] = field(default_factory=dict)  # since when
    popped: dict[str, Any] = field(default_factory=dict)  # the message, which may be nowhere else by now


#: The messages by process and broker. They outlive the connection: a new connection has new objects throughout.
_kept: defaultdict[tuple[Any, ...], _Kept] = defaultdict(_Kept)


class QoS(redis.QoS):
    """The messages that a channel holds; none of them is dropped because the broker does not answer."""

    channel: Any
    _delivered: Any

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        # The process is a part of the key, so that a forked child does not give back what its parent held.
        self._kept = _kept[(*channel._broker_address(), channel.global_keyprefix, channel.unacked_key)]
        self._broker_errors = (*channel.connection_errors, channel.ResponseError)

    def append(self, message: Any, delivery_tag: str) -> None:
        """Record a message as held.

        A message that was already popped and cannot be recorded would be lost, so it stays in this process.
        """
        message.held_since = steady.monotonic_now()
        try:
            super().append(message, delivery_tag)
        except self._broker_errors:
            self._kept.popped[delivery_tag] = message
            raise

    def restore_unacked(self, client: Any = None) -> None:
        """Return all received messages to the broker, now or later."""
        try:
            with self.channel.conn_or_acquire(client) as connected:
                for tag in list(self._delivered):
                    self.restore_by_tag(tag, connected)
                    self._delivered.pop(tag, None)
        except self._broker_errors as exc:
            log.warning("%d messages are returned to the broker when it answers again: %r", len(self._delivered), exc)
            self._kept.held.update({tag: message.held_since for tag, message in self._delivered.items()})
            self._delivered.clear()

    def catch_up(self: Any) -> None:
        """Return the messages that could not be returned when an earlier connection was lost."""
        kept, count = self._kept, len(self._kept.held) + len(self._kept.popped)
        if not count:
            return
        with self.channel.conn_or_acquire() as client:
            for tag, since in list(kept.held.items()):
                # After the visibility timeout any worker may have the message, under the same tag.
                if steady.monotonic_now() - since < self.visibility_timeout:
                    self.restore_by_tag(tag, client)
                kept.held.pop(tag, None)
            while kept.popped:
                tag, message = kept.popped.popitem()  # before the call: with gevent, another may run meanwhile
                try:
                    self._push(tag, message, client)
                except BaseException:
                    kept.popped[tag] = message
                    raise
        log.warning("%d messages of the lost connection are returned to the broker", count)

    def _push(self: Any, tag: str, message: Any, client: Any) -> None:
        info = message.delivery_info
        with client.pipeline() as pipe:
            self._remove_from_indices(tag, pipe)  # the last try may have worked, and only its answer was lost
            self.channel._do_restore_message(message._raw, info["exchange"], info["routing_key"], pipe)
            pipe.execute()


def make_distrustful(base: Any, *, replaced: bool = True) -> Any:
    """Return a class of redis-py connections that does not trust a connection after a long silence.

    After packets have vanished, all existing connections are dead, and each would need a time-out to notice it. A new
    connection costs a millisecond.

    Args:
        base: the connection class of redis-py.
        replaced: whether a connection may be replaced before a command; kombu must know each connection that it polls.
    """

    class Connection(base):  # type: ignore[misc]
        heard = 0.0
        """When the server last sent something, by ``time.monotonic``."""

        @property
        def doubtful(self) -> bool:
            """Whether the connection may be dead without this process knowing."""
            return time.monotonic() - self.heard > ANSWER_TIMEOUT

        def _connect(self) -> Any:
            sock = super()._connect()
            self.heard = time.monotonic()
            return sock

        def read_response(self, *args: Any, **kwargs: Any) -> Any:
            response = super().read_response(*args, **kwargs)
            self.heard = time.monotonic()
            return response

        def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
            if replaced and self._sock is not None and self.doubtful:
                self.disconnect()
            super().send_packed_command(*args, **kwargs)

    return Connection


#: When a broker began to refuse commands, by process and address.
_refusing: dict[tuple[Any, ...], float] = {}


class Bounded:
    """A channel that never waits without limit, and that treats a temporary refusal as a lost connection."""

    socket_timeout: Any = TIMEOUTS["socket_timeout"]
    socket_connect_timeout: Any = TIMEOUTS["socket_connect_timeout"]
    socket_keepalive: Any = TIMEOUTS["socket_keepalive"]
    socket_keepalive_options: Any = TIMEOUTS["socket_keepalive_options"]
    health_check_interval: Any = TIMEOUTS["health_check_interval"]
    _brpop_sent_at: float | None = None

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # kombu has tested a connection that only consumers need, and they make a new one.
        if self._async_pool is not None:
            self._async_pool.disconnect()
        try:
            self._check_writable()
        except BaseException:
            self.connection.cycle.discard(self)
            self._disconnect_pools()
            raise

    def _broker_address(self: Any) -> tuple[Any, ...]:
        broker = self.connection.client
        return os.getpid(), broker.hostname, broker.port, broker.virtual_host

    def _check_writable(self: Any) -> None:
        """Refuse to connect while the broker refuses writes, so that the worker tries again at growing intervals."""
        if (address := self._broker_address()) not in _refusing:
            return
        with self.conn_or_acquire() as client:
            try:
                client.setrange(self.unacked_mutex_key, 0, b"")  # a write that changes nothing
            except self.ResponseError as exc:
                log.debug("the broker does not permit the check: %s", exc)
        if (since := _refusing.pop(address, None)) is not None:
            log.warning("the broker accepts commands again, after %.0f s", time.monotonic() - since)

    def _connparams(self: Any, asynchronous: bool = False) -> dict[str, Any]:
        broker = self.connection.client
        if broker.transport_cls == "valkeys" and not broker.ssl:  # kombu does this for rediss:// only
            broker.ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
        params: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[misc]
        address = self._broker_address()
        base = make_distrustful(params["connection_class"], replaced=not asynchronous)

        class Connection(base):  # type: ignore[misc, valid-type]
            def read_response(self, *args: Any, **kwargs: Any) -> Any:
                try:
                    return super().read_response(*args, **kwargs)
                except ResponseError as exc:
                    if not is_refused_for_now(exc):
                        raise
                    reason = str(exc)
                if address not in _refusing:
                    _refusing[address] = time.monotonic()
                    log.warning("the broker refuses commands; the worker waits until it accepts them: %s", reason)
                raise RedisConnectionError(f"the broker refuses commands: {reason}")

        params["connection_class"] = Connection
        return params

    def _brpop_start(self: Any, timeout: float | None = None) -> None:
        # Only in a worker's event loop, which calls this method again by itself; a caller that drains its own
        # connection does not.
        if self.client.connection.doubtful and hasattr(self.connection.cycle, "_claude_batch_check"):
            self.client.connection.disconnect()
            if not hasattr(self.connection.cycle, "maybe_check_brpop_health"):  # before kombu 5.7
                raise RedisConnectionError("the connection to the broker was idle for long; it is opened again")
            return  # kombu connects again, and calls this method again
        super()._brpop_start(*(() if timeout is None else (timeout,)))  # type: ignore[misc]
        self._brpop_sent_at = time.monotonic()

    def check_brpop(self: Any) -> None:
        """Raise if the answer to BRPOP is overdue; for versions of kombu that do not check it (before 5.7)."""
        limit = getattr(self, "brpop_timeout", 1) + (self.health_check_interval or 0)
        if self._in_poll and limit and self._brpop_sent_at and time.monotonic() - self._brpop_sent_at > limit:
            raise RedisConnectionError(f"the broker has not answered for more than {limit:.0f} s")


class _Watched:
    """A transport that notices when nothing arrives any more on a consumer's connection."""

    def register_with_event_loop(self: Any, connection: Any, loop: Any) -> None:
        super().register_with_event_loop(connection, loop)  # type: ignore[misc]
        check = getattr(self.cycle, "maybe_check_brpop_health", self._check_brpop)
        # Celery cancels what was registered for a connection when that ends; versions before 5.7 do not.
        if (earlier := getattr(self.cycle, "_claude_batch_check", None)) is not None:
            earlier.cancel()
        self.cycle._claude_batch_check = loop.call_repeatedly(_CHECK_BRPOP_EVERY, check)

    def _check_brpop(self: Any) -> None:
        for channel in list(self.cycle._channels):
            channel.check_brpop()


class BoundedChannel(Bounded, redis.Channel):
    """kombu's channel, with time-outs."""


class BoundedTransport(_Watched, redis.Transport):
    """kombu's transport, with time-outs; for Celery before 5.7."""

    Channel = BoundedChannel


class BoundedSentinelChannel(Bounded, redis.SentinelChannel):
    """kombu's channel for Sentinels, with time-outs."""


class BoundedSentinelTransport(_Watched, redis.SentinelTransport):
    """kombu's transport for Sentinels, with time-outs; for Celery before 5.7."""

    Channel = BoundedSentinelChannel


class _Guarded(Bounded):
    """A channel that survives a second close and gives messages back, in addition to the time-outs."""

    QoS: Any = QoS

    def _get_pool(self: Any, asynchronous: bool = False) -> Any:
        """Return connections to the broker; raise a connection error if the channel was already closed."""
        if self.connection is None or self.connection.client is None:
            raise ConnectionError("the connection to the broker was lost, and is closed")
        return super()._get_pool(asynchronous)  # type: ignore[misc]

    def _brpop_start(self: Any, timeout: float | None = None) -> None:
        """Ask for messages. By then the consumer's queues are declared, and the broker is known to answer."""
        try:
            if isinstance(self.qos, QoS):  # not with the option ack_emulation=False: then no messages are held
                self.qos.catch_up()
        except self.ResponseError as exc:
            log.warning("the broker answers, but does not accept returned messages: %s", exc)
        super()._brpop_start(timeout)


class Channel(_Guarded, redis.Channel):
    """kombu's channel, guarded."""


class Transport(_Watched, redis.Transport):
    """kombu's transport, with guarded channels."""

    Channel = Channel


class SentinelChannel(_Guarded, redis.SentinelChannel):
    """kombu's channel for Sentinels, guarded."""


class SentinelTransport(_Watched, redis.SentinelTransport):
    """kombu's transport for Sentinels, with guarded channels."""

    Channel = SentinelChannel


class ValkeyBackend(RedisBackend):
    """Celery's Redis result back end, for ``valkey://`` and ``valkeys://`` too."""

    def _params_from_url(self, url: str, defaults: Any) -> Any:
        return super()._params_from_url(_as_redis(url), defaults)  # type: ignore[misc]


def _as_redis(url: str) -> str:
    return url.replace("valkey", "redis", 1) if url.startswith(("valkey://", "valkeys://")) else url


#: The schemes of a Redis without Sentinels.
_PLAIN = ("redis", "rediss", "valkey", "valkeys")


def install() -> None:
    """Register these transports for every Redis URL in this process; call it before the worker connects.

    ``broker_transport`` would work for ``redis://`` only: with it ``rediss://`` loses its TLS, ``redis+socket://``
    ignores it, and Flower takes it for the scheme of the broker's URL.

    ``valkey://`` and ``valkeys://`` (with TLS) become schemes of brokers and result back ends, too.

    Before Celery 5.7 the transports do not give messages back: such a worker keeps its countdowns through a lost
    connection, and a message that was returned would run twice.
    """
    plain: type[Any] = Transport
    sentinel: type[Any] = SentinelTransport
    if celery.VERSION[:2] < (5, 7):
        plain, sentinel = BoundedTransport, BoundedSentinelTransport
    for scheme, transport in (*((scheme, plain) for scheme in _PLAIN), ("sentinel", sentinel)):
        kombu_transport.TRANSPORT_ALIASES[scheme] = f"{__name__}:{transport.__name__}"
        kombu_transport._transport_cache.pop(scheme, None)  # type: ignore[attr-defined]
    for scheme in ("valkey", "valkeys"):
        backends.BACKEND_ALIASES[scheme] = f"{__name__}:{ValkeyBackend.__name__}"
