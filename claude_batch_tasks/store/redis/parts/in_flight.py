"""What is known of an account at Anthropic, in Redis. The API can be asked for it again."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from claude_batch_tasks.records import Flight, Unit
from claude_batch_tasks.store.record_encoding import _encode
from claude_batch_tasks.store.redis.connection import Part, answering
from claude_batch_tasks.store.redis.keys import (
    ASKED,
    DUE,
    FAILED,
    FLIGHTS,
    HELD,
    LISTED,
    LISTING,
    PAST,
    SINCE,
    TAKEN_AT,
    WAITING,
    account_key,
    past_key,
    unit_of,
)
from claude_batch_tasks.store.retention import ACCOUNT_TTL, LIST_TTL, PAST_BATCHES

_decode_flight = msgspec.json.Decoder(Flight).decode
_decode_past = msgspec.json.Decoder(tuple[int, float]).decode


class RedisInFlight(Part):
    """``interface.InFlight`` on a Redis server."""

    @answering
    def count_batches(self, account: str, most: int) -> int:
        return min(int(self._redis.hlen(account_key(account, FLIGHTS))), most)

    @answering
    def list_batches(self, account: str) -> dict[Unit, tuple[Flight, float]]:
        key = account_key(account, FLIGHTS)
        found = {name.decode(): value for name, value in self._redis.hgetall(key).items()}
        if not found:
            return {}
        dues = dict(zip(found, self._redis.zmscore(WAITING, list(found)), strict=True))
        self._remove_gone(key, [name for name, due in dues.items() if due is None])
        return {
            unit_of(name): (_decode_flight(found[name]), float(due)) for name, due in dues.items() if due is not None
        }

    def _remove_gone(self, key: str, names: list[str]) -> None:
        """Remove those of a job that was deleted, or has expired: nothing stands for them in either index."""
        if names and (
            gone := [name for name, due in zip(names, self._redis.zmscore(DUE, names), strict=True) if due is None]
        ):
            self._redis.hdel(key, *gone)

    @answering
    def lock_list_call(self, account: str, owner: str, ttl: float) -> bool:
        key, milliseconds = account_key(account, LISTING), int(ttl * 1000)
        if self._redis.set(key, owner, nx=True, px=milliseconds):
            self._redis.delete(account_key(account, ASKED))
            return True
        if self._redis.get(key) != owner.encode():
            return False
        return bool(self._redis.pexpire(key, milliseconds))

    @answering
    def unlock_list_call(self, account: str, owner: str) -> None:
        key = account_key(account, LISTING)
        if self._redis.get(key) == owner.encode():
            self._redis.delete(key)

    @answering
    def record_list_call(self, account: str, *, failed: bool) -> int:
        key = account_key(account, FAILED)
        if not failed:
            self._redis.delete(key)
            return 0
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.incr(key)
            pipe.expire(key, ACCOUNT_TTL)
            return int(pipe.execute()[0])

    @answering
    def add_page(
        self, account: str, entries: Mapping[str, bytes], *, taken_at: float, since: float, first: bool
    ) -> None:
        key = account_key(account, LISTED)
        with self._redis.pipeline(transaction=True) as pipe:
            if first:
                pipe.delete(key)
            pipe.hset(key, mapping={**entries, TAKEN_AT: repr(taken_at), SINCE: repr(since)})
            pipe.expire(key, LIST_TTL)
            pipe.execute()

    @answering
    def find_listed(self, account: str, batch_id: str) -> tuple[bytes | None, float, float]:
        entry, taken_at, since = self._redis.hmget(account_key(account, LISTED), batch_id, TAKEN_AT, SINCE)
        return entry, float(taken_at or 0), float(since or "inf")

    @answering
    def pause_calls(self, name: str, until: float) -> None:
        self._redis.zadd(HELD, {name: until}, gt=True)
        self._redis.zremrangebyscore(HELD, "-inf", self._connection.now() - 3600)

    @answering
    def paused_until(self, *names: str) -> float:
        return max(float(until or 0) for until in self._redis.zmscore(HELD, list(names)))

    @answering
    def add_duration(self, account: str, requests: int, seconds: float, *, kind: str | None = None) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            for key in (account_key(account, PAST), *([] if kind is None else [past_key(kind)])):
                pipe.lpush(key, _encode((requests, round(seconds, 1))))
                pipe.ltrim(key, 0, PAST_BATCHES - 1)
                pipe.expire(key, ACCOUNT_TTL)
            pipe.execute()

    @answering
    def past_durations(self, account: str) -> list[tuple[int, float]]:
        return [_decode_past(entry) for entry in self._redis.lrange(account_key(account, PAST), 0, -1)]
