"""Where asks are, in Redis, and how they ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import redis

from claude_batch_tasks import steady
from claude_batch_tasks.pool_records import AskEnd, AskPlace
from claude_batch_tasks.store.interface import AskListener
from claude_batch_tasks.store.record_encoding import _encode
from claude_batch_tasks.store.redis.ask_encoding import read_places, window_text
from claude_batch_tasks.store.redis.connection import Connection, Part, answering
from claude_batch_tasks.store.redis.keys import (
    ASK_PREFIX,
    COST_PREFIX,
    ENDED_CHANNEL,
    POOL_PREFIX,
    job_key,
    pool_keys,
)
from claude_batch_tasks.store.redis.scripts import Script

#: Asks in one call of a script.
_PAGE = 500

_decode_ids = msgspec.json.Decoder(list[str]).decode


class RedisAsks(Part):
    """``interface.Asks`` on a Redis server.

    Args:
        connect_listener: makes the client of a subscription.
    """

    _read = Script("read_places")
    _withdraw = Script("cost", "withdraw")
    _end = Script("end_asks")
    _settle = Script("cost", "settle_cost")

    def __init__(self, connection: Connection, connect_listener: Callable[[], Any]) -> None:
        super().__init__(connection)
        self._connect_listener = connect_listener

    @answering
    def withdraw(
        self, ask_ids: Sequence[str], ttl: float, *, sealing: bool = False, terminate: bool = False
    ) -> list[bool]:
        found: list[bool] = []
        how = [_whole(ttl), 1 if sealing else "", 1 if terminate else "", self._channel]
        for start in range(0, len(ask_ids), _PAGE):
            args = [*how, *ask_ids[start : start + _PAGE]]
            found += map(bool, self._withdraw(keys=[ASK_PREFIX, COST_PREFIX, POOL_PREFIX], args=args))
        return found

    @answering
    def read_places(self, ask_ids: Sequence[str], *, with_canvas: bool = False) -> list[AskPlace | None]:
        found: list[AskPlace | None] = []
        for start in range(0, len(ask_ids), _PAGE):
            some = ask_ids[start : start + _PAGE]
            encoded = self._read(keys=[ASK_PREFIX], args=[1 if with_canvas else "", *some])
            found += read_places(encoded, some, self._connection.cipher)
        return found

    @answering
    def read_ended(self, job_id: str) -> bytes:
        return self._redis.get(pool_keys(job_id)[2]) or b""

    @answering
    def end_asks(self, job_id: str, ends: Mapping[int, AskEnd], ttl: float, *, final: bool = True) -> None:
        keys, items = [job_key(job_id), pool_keys(job_id)[2], ASK_PREFIX], list(ends.items())
        for start in range(0, len(items), _PAGE):
            some = items[start : start + _PAGE]
            ids = _encode([end.ask_id for _, end in some])
            args: list[Any] = [_whole(ttl), 1 if final else "", job_id, self._channel, ids]
            for position, end in some:
                args += [position, end.ask_id, end.state]
            self._end(keys=keys, args=args)

    @answering
    def settle_cost(self, spent: Mapping[str, int]) -> None:
        args = [part for item in spent.items() for part in item]
        for start in range(0, len(args), 2 * _PAGE):
            self._settle(keys=[ASK_PREFIX, COST_PREFIX], args=args[start : start + 2 * _PAGE])

    @answering
    def read_cost(self, name: str, window: float) -> int:
        start = self._connection.now() // window * window
        return int(self._redis.get(f"{COST_PREFIX}{window_text(window)}:{start:.0f}:{name}") or 0)

    @contextmanager
    def listen(self) -> Iterator[AskListener]:
        listener = RedisAskListener(self._connection, self._connect_listener(), self._channel)
        try:
            listener.subscribe()
            yield listener
        finally:
            listener.close()

    @property
    def _channel(self) -> str:
        return self._connection.prefix + ENDED_CHANNEL


class RedisAskListener(Part):
    """``interface.AskListener`` on a Redis server."""

    def __init__(self, connection: Connection, client: Any, channel: str) -> None:
        super().__init__(connection)
        self._channel = channel
        self._client = client
        self._subscription = client.pubsub()

    @answering
    def subscribe(self) -> None:
        """Subscribe; what ends from now on is reported."""
        self._subscription.subscribe(self._channel)
        deadline = steady.monotonic_now() + _SUBSCRIBE_SECONDS
        while steady.monotonic_now() < deadline:
            message = self._subscription.get_message(timeout=deadline - steady.monotonic_now())
            if message is not None and message["type"] == "subscribe":
                return
        raise redis.TimeoutError("no answer to SUBSCRIBE")

    @answering
    def wait(self, timeout: float) -> list[str]:
        """As ``AskListener.wait``."""
        found: list[str] = []
        deadline = steady.monotonic_now() + timeout
        while True:
            left = max(deadline - steady.monotonic_now(), 0.0)
            message = self._subscription.get_message(timeout=0.0 if found else left)
            if message is None and (found or left == 0.0):
                return found
            if message is not None and message["type"] == "message":
                found += _decode_ids(message["data"])
            if len(found) >= _FOUND:
                return found

    def close(self) -> None:
        """Give the connection back."""
        self._subscription.close()


#: Seconds for which the server may take to subscribe.
_SUBSCRIBE_SECONDS = 10.0

#: Ids that are reported at once, about.
_FOUND = 10_000


def _whole(seconds: float) -> int:
    return max(int(seconds), 1)
