"""kombu's Redis transport, for workers that outlive a restart of their Redis, a full one, and one that falls silent.

When its connection is lost, a worker of Celery 5.7 closes it twice. The second time kombu has no address any more for
giving back what the worker holds, or for acknowledging it later: an AttributeError ends the worker, and what it held
stays unseen for the whole visibility timeout. Here that is one more connection error, which the worker survives, and
what it held goes back into its queues as soon as the broker answers again.

A Redis that refuses commands for a while (its memory or its disk is full, it is a replica during a failover, it is
loading) ends a worker of any Celery: for kombu that is no connection error. Here it is one, so the worker connects
again, at growing intervals, until the Redis accepts writes.

And a connection from which nothing comes any more, because packets vanish, holds up a worker for ever. Here every
connection has time-outs and keep-alive, unless ``broker_transport_options`` says otherwise.

The ready-made app uses it. An app of your own does with one line, beside ``Celery(...)``::

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

#: Keep-alive for connections on which nothing is asked: after 15 s of silence the peer has 15 s to show a sign of life.
KEEPALIVE = {
    getattr(socket, name): value
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}

#: Time-outs of a Redis broker's connections, as ``broker_transport_options`` has them.
TIMEOUTS: dict[str, Any] = {
    "socket_timeout": ANSWER_TIMEOUT,
    "socket_connect_timeout": CONNECT_TIMEOUT,
    "socket_keepalive": True,
    "socket_keepalive_options": KEEPALIVE,
    "health_check_interval": 10,
}

#: Seconds between two checks whether the answer to a consumer's BRPOP is overdue.
_CHECK_BRPOP_EVERY = 2.0

#: How a Redis says that it refuses a command for a while. What redis-py has a class for, it says without that word.
_REFUSED = re.compile(r"\b(OOM|MISCONF|NOREPLICAS|READONLY|UNBLOCKED|LOADING|CLUSTERDOWN|MASTERDOWN|TRYAGAIN|BUSY)\b")
_REFUSED_CLASSES = {"OutOfMemoryError", "ReadOnlyError", "ClusterDownError", "MasterDownError", "TryAgainError"}


def is_refused_for_now(exc: ResponseError) -> bool:
    """Return whether a Redis refused a command for a reason that passes: it is full, read-only, loading or busy."""
    return type(exc).__name__ in _REFUSED_CLASSES or _REFUSED.search(str(exc)) is not None


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
        # A forked child has no business with what its parent held.
        self._kept = _kept[(*channel._address(), channel.global_keyprefix, channel.unacked_key)]
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


def distrustful(base: Any, *, replaced: bool = True) -> Any:
    """Return a class of redis-py connections that does not trust one on which nothing came for long.

    Where packets vanished, all connections there were are dead, and each would take a time-out to find out. A new one
    costs a millisecond.

    Args:
        base: the class of redis-py.
        replaced: whether it may be replaced before a command; kombu has to know of each that it polls.
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
    """A channel that never waits for ever, and for which a refusal that passes is a lost connection."""

    socket_timeout: Any = TIMEOUTS["socket_timeout"]
    socket_connect_timeout: Any = TIMEOUTS["socket_connect_timeout"]
    socket_keepalive: Any = TIMEOUTS["socket_keepalive"]
    socket_keepalive_options: Any = TIMEOUTS["socket_keepalive_options"]
    health_check_interval: Any = TIMEOUTS["health_check_interval"]
    _brpop_sent_at: float | None = None

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # kombu has asked for a sign of life on a connection that only consumers need again, who make it anew.
        if self._async_pool is not None:
            self._async_pool.disconnect()
        try:
            self._check_writable()
        except BaseException:
            self.connection.cycle.discard(self)
            self._disconnect_pools()
            raise

    def _address(self: Any) -> tuple[Any, ...]:
        broker = self.connection.client
        return os.getpid(), broker.hostname, broker.port, broker.virtual_host

    def _check_writable(self: Any) -> None:
        """Refuse to connect as long as the broker refuses writes, so that the worker tries at growing intervals."""
        if (address := self._address()) not in _refusing:
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
        if broker.transport_cls == "valkeys" and not broker.ssl:  # kombu knows this of rediss:// only
            broker.ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
        params: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[misc]
        address = self._address()
        base = distrustful(params["connection_class"], replaced=not asynchronous)

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
                    log.warning("the broker refuses commands, and is waited for: %s", reason)
                raise RedisConnectionError(f"the broker refuses commands: {reason}")

        params["connection_class"] = Connection
        return params

    def _brpop_start(self: Any, timeout: float | None = None) -> None:
        # In a worker's loop only, which comes back here by itself; a caller that drains its own connection does not.
        if self.client.connection.doubtful and hasattr(self.connection.cycle, "_claude_batch_check"):
            self.client.connection.disconnect()
            if not hasattr(self.connection.cycle, "maybe_check_brpop_health"):  # before kombu 5.7
                raise RedisConnectionError("the connection to the broker was idle for long; it is made anew")
            return  # kombu connects again, and comes back here
        super()._brpop_start(*(() if timeout is None else (timeout,)))  # type: ignore[misc]
        self._brpop_sent_at = time.monotonic()

    def check_brpop(self: Any) -> None:
        """Raise if the answer to BRPOP is overdue; for versions of kombu that do not look (before 5.7)."""
        limit = getattr(self, "brpop_timeout", 1) + (self.health_check_interval or 0)
        if self._in_poll and limit and self._brpop_sent_at and time.monotonic() - self._brpop_sent_at > limit:
            raise RedisConnectionError(f"the broker has not answered for more than {limit:.0f} s")


class _Watched:
    """A transport that notices a consumer's connection from which nothing comes any more."""

    def register_with_event_loop(self: Any, connection: Any, loop: Any) -> None:
        super().register_with_event_loop(connection, loop)  # type: ignore[misc]
        check = getattr(self.cycle, "maybe_check_brpop_health", self._check_brpop)
        # With the connection, Celery ends what was registered for it; the versions before 5.7 do not.
        if (earlier := getattr(self.cycle, "_claude_batch_check", None)) is not None:
            earlier.cancel()
        self.cycle._claude_batch_check = loop.call_repeatedly(_CHECK_BRPOP_EVERY, check)

    def _check_brpop(self: Any) -> None:
        for channel in list(self.cycle._channels):
            channel.check_brpop()


class BoundedChannel(Bounded, redis.Channel):
    """kombu's, with time-outs."""


class BoundedTransport(_Watched, redis.Transport):
    """kombu's, with time-outs; for Celery before 5.7."""

    Channel = BoundedChannel


class BoundedSentinelChannel(Bounded, redis.SentinelChannel):
    """kombu's, with time-outs."""


class BoundedSentinelTransport(_Watched, redis.SentinelTransport):
    """kombu's, with time-outs; for Celery before 5.7."""

    Channel = BoundedSentinelChannel


class _Guarded(Bounded):
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
        super()._brpop_start(timeout)


class Channel(_Guarded, redis.Channel):
    """kombu's, guarded."""


class Transport(_Watched, redis.Transport):
    """kombu's, with guarded channels."""

    Channel = Channel


class SentinelChannel(_Guarded, redis.SentinelChannel):
    """kombu's, guarded."""


class SentinelTransport(_Watched, redis.SentinelTransport):
    """kombu's, with guarded channels."""

    Channel = SentinelChannel


class ValkeyBackend(RedisBackend):
    """Celery's, for ``valkey://`` and ``valkeys://`` too."""

    def _params_from_url(self, url: str, defaults: Any) -> Any:
        return super()._params_from_url(_as_redis(url), defaults)  # type: ignore[misc]


def _as_redis(url: str) -> str:
    return url.replace("valkey", "redis", 1) if url.startswith(("valkey://", "valkeys://")) else url


#: The schemes of a Redis that is no Sentinel.
_PLAIN = ("redis", "rediss", "valkey", "valkeys")


def install() -> None:
    """Have every Redis URL of this process mean these transports; call it before the worker connects.

    ``broker_transport`` would do for ``redis://`` only: with it ``rediss://`` loses its TLS, ``redis+socket://``
    ignores it, and Flower takes it for the scheme of the broker's URL.

    ``valkey://`` and ``valkeys://`` (with TLS) become schemes of brokers and result back ends, too.

    Before Celery 5.7 they give nothing back: there a worker keeps its countdowns through a lost connection, and a
    message given back would run twice.
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
