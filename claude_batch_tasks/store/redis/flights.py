"""What waits in Redis without a message, and what is known of an account's batches in flight.

Everything here is about all jobs at once, and can be had again: the waits follow from the ledger, the rest from the
API.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec
import redis

from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.records import Flight, Unit
from claude_batch_tasks.store.redis import lua
from claude_batch_tasks.store.redis.clock import StoreClock
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
    batch_key,
    member,
    unit_of,
)
from claude_batch_tasks.store.redis.schema import open_schema

#: Past batches of an account that are remembered, and for how long nothing is said of it before it is forgotten.
_PAST = 100
_ACCOUNT_TTL = 30 * 86_400

_encode = msgspec.json.encode
_decode_flight = msgspec.json.Decoder(Flight).decode
_decode_past = msgspec.json.Decoder(tuple[int, float]).decode
_Method = TypeVar("_Method", bound=Callable[..., Any])


def answering(method: _Method) -> _Method:
    """Turn whatever keeps the server from answering into StoreUnavailable, in a method or a generator.

    The first of all sees that the store is one for this release.
    """

    def unavailable(store: Flights, exc: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"the store at {store.where} did not answer: {type(exc).__name__}: {exc}")

    if inspect.isgeneratorfunction(method):

        @functools.wraps(method)
        def iterate(self: Flights, *args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                self._open()
                yield from method(self, *args, **kwargs)
            except redis.RedisError as exc:
                raise unavailable(self, exc) from exc

        return iterate  # type: ignore[return-value]

    @functools.wraps(method)
    def call(self: Flights, *args: Any, **kwargs: Any) -> Any:
        try:
            self._open()
            return method(self, *args, **kwargs)
        except redis.RedisError as exc:
            raise unavailable(self, exc) from exc

    return call  # type: ignore[return-value]


class Flights:
    """The part of the Redis store that concerns all jobs at once; an account is named by a text without colons."""

    _due = lua.Script("due")
    _postpone = lua.Script("postpone")

    def __init__(self, client: redis.Redis, where: str) -> None:
        # Typed loosely: redis-py types each reply as bytes or str, whichever the client decodes.
        self._redis: Any = client
        self.where = where
        self._opened = False
        #: What the client puts in front of all keys but those in arguments of scripts.
        self._prefix: str = getattr(client, "key_prefix", "")
        self._clock = StoreClock(self._time)

    def _open(self) -> None:
        if not self._opened:
            open_schema(self._redis, self.where)
            self._opened = True

    @answering
    def check_schema(self) -> None:
        """As every call does when it is the first."""

    def now(self) -> float:
        """The time by Redis' clock."""
        return self._clock.now()

    @answering
    def _time(self) -> float:
        seconds, microseconds = self._redis.time()
        return float(seconds + microseconds / 1e6)

    # -- what waits

    @answering
    def due(self, limit: int) -> tuple[list[Unit], float | None]:
        members, following, now = self._due(keys=[WAITING, DUE, HELD], args=[limit])
        pause = max(float(following) - float(now), 0) if following else None
        return [unit_of(found.decode()) for found in members], pause

    @answering
    def wake(self, units: Iterable[Unit]) -> None:
        self._postponed(((unit, 0) for unit in units), lua.WOKEN)

    @answering
    def wait_again(self, units: Iterable[Unit], seconds: float) -> None:
        at = self._redis.time()[0] + seconds
        if members := {member(unit): at for unit in units}:
            self._redis.zadd(WAITING, members)
            self._redis.zadd(DUE, members, xx=True)

    @answering
    def postpone(self, due: Mapping[Unit, float], *, alone: bool = False, shown: float | None = None) -> None:
        self._postponed(due.items(), lua.ALONE if alone else lua.LISTED, "" if shown is None else repr(shown))

    def _postponed(self, changes: Iterable[tuple[Unit, float]], how: str, shown: str = "") -> None:
        args = [
            part
            for unit, at in changes
            for part in (member(unit), self._prefix + batch_key(unit.job_id, unit.batch), repr(at), how, shown)
        ]
        for start in range(0, len(args), 4000):
            self._postpone(keys=[WAITING, DUE], args=args[start : start + 4000])

    # -- batches in flight

    @answering
    def in_flight(self, account: str) -> int:
        return int(self._redis.hlen(account_key(account, FLIGHTS)))

    @answering
    def flights(self, account: str) -> dict[Unit, tuple[Flight, float]]:
        key = account_key(account, FLIGHTS)
        found = {name.decode(): value for name, value in self._redis.hgetall(key).items()}
        if not found:
            return {}
        waiting = dict(zip(found, self._redis.zmscore(WAITING, list(found)), strict=True))
        if left := [name for name, due in waiting.items() if due is None]:
            # Of a job that was deleted, or has expired: nothing stands for it in either index.
            gone = [name for name, due in zip(left, self._redis.zmscore(DUE, left), strict=True) if due is None]
            if gone:
                self._redis.hdel(key, *gone)
        return {
            unit_of(name): (_decode_flight(found[name]), float(due)) for name, due in waiting.items() if due is not None
        }

    # -- the shared listing

    @answering
    def hold_listing(self, account: str, owner: str, ttl: float) -> bool:
        key, milliseconds = account_key(account, LISTING), int(ttl * 1000)
        if self._redis.set(key, owner, nx=True, px=milliseconds):
            self._redis.delete(account_key(account, ASKED))
            return True
        if self._redis.get(key) != owner.encode():
            return False
        return bool(self._redis.pexpire(key, milliseconds))

    @answering
    def end_listing(self, account: str, owner: str) -> None:
        key = account_key(account, LISTING)
        if self._redis.get(key) == owner.encode():
            self._redis.delete(key)

    @answering
    def note_listing(self, account: str, *, failed: bool) -> int:
        key = account_key(account, FAILED)
        if not failed:
            self._redis.delete(key)
            return 0
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.incr(key)
            pipe.expire(key, _ACCOUNT_TTL)
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
            pipe.expire(key, 86_400)
            pipe.execute()

    @answering
    def listed(self, account: str, batch_id: str) -> tuple[bytes | None, float, float]:
        entry, taken_at, since = self._redis.hmget(account_key(account, LISTED), batch_id, TAKEN_AT, SINCE)
        return entry, float(taken_at or 0), float(since or "inf")

    # -- what the account's calls have shown

    @answering
    def hold_back(self, name: str, until: float) -> None:
        self._redis.zadd(HELD, {name: until}, gt=True)
        self._redis.zremrangebyscore(HELD, "-inf", self.now() - 3600)

    @answering
    def held_back(self, *names: str) -> float:
        return max(float(until or 0) for until in self._redis.zmscore(HELD, list(names)))

    @answering
    def note_end(self, account: str, requests: int, seconds: float) -> None:
        key = account_key(account, PAST)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.lpush(key, _encode((requests, round(seconds, 1))))
            pipe.ltrim(key, 0, _PAST - 1)
            pipe.expire(key, _ACCOUNT_TTL)
            pipe.execute()

    @answering
    def past(self, account: str) -> list[tuple[int, float]]:
        return [_decode_past(entry) for entry in self._redis.lrange(account_key(account, PAST), 0, -1)]
