"""What waits in Redis without a message, and what is known of an account's batches in flight.

Everything here is about all jobs at once, and can be had again: the waits follow from the ledger, the rest from the
API.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import redis

from claude_batch_tasks import rules
from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.records import Flight, Unit
from claude_batch_tasks.store.clock import StoreClock
from claude_batch_tasks.store.schema import PREFIX, open_schema

#: Sorted set of all units that wait for a message, by when it is due or, while somebody is at work, the lease ends.
DUE = f"{PREFIX}:due"

#: Sorted set of those whose message is made when it is due; until then there is none.
WAITING = f"{PREFIX}:waiting"

#: Sorted set: until when no call of a name is to be made.
HELD = f"{PREFIX}:held"

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

    def __init__(self, client: redis.Redis, where: str) -> None:
        # Typed loosely: redis-py types each reply as bytes or str, whichever the client decodes.
        self._redis: Any = client
        self.where = where
        self._opened = False
        #: What the client puts in front of all keys but those in arguments of scripts.
        self._prefix: str = getattr(client, "key_prefix", "")
        self._clock = StoreClock(self._time)
        scripts = Path(__file__).parent
        self._due, self._postpone = (
            client.register_script((scripts / f"{name}.lua").read_text()) for name in ("due", "postpone")
        )

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
        numbers = (
            rules.LIST_CALL_FROM,
            rules.LONGEST_IN_BROKER,
            rules.MAX_VAIN_POLLS,
            rules.UNCLAIMED_SECONDS,
            rules.MAX_UNCLAIMED_MESSAGES,
        )
        members, following, now = self._due(keys=[WAITING, DUE, HELD], args=[limit, *numbers])
        pause = max(float(following) - float(now), 0) if following else None
        return [unit_of(found.decode()) for found in members], pause

    @answering
    def wake(self, units: Iterable[Unit]) -> None:
        self._postponed(((unit, 0) for unit in units), "woken")

    @answering
    def wait_again(self, units: Iterable[Unit], seconds: float) -> None:
        at = self._redis.time()[0] + seconds
        if members := {member(unit): at for unit in units}:
            self._redis.zadd(WAITING, members)
            self._redis.zadd(DUE, members, xx=True)

    @answering
    def postpone(self, due: Mapping[Unit, float], *, alone: bool = False, shown: float | None = None) -> None:
        self._postponed(due.items(), "alone" if alone else "listed", "" if shown is None else repr(shown))

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
        return int(self._redis.hlen(flights_key(account)))

    @answering
    def flights(self, account: str) -> dict[Unit, tuple[Flight, float]]:
        key = flights_key(account)
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
        key, milliseconds = _key(account, "listing"), int(ttl * 1000)
        if self._redis.set(key, owner, nx=True, px=milliseconds):
            self._redis.delete(_key(account, "asked"))
            return True
        if self._redis.get(key) != owner.encode():
            return False
        return bool(self._redis.pexpire(key, milliseconds))

    @answering
    def end_listing(self, account: str, owner: str) -> None:
        key = _key(account, "listing")
        if self._redis.get(key) == owner.encode():
            self._redis.delete(key)

    @answering
    def note_listing(self, account: str, *, failed: bool) -> int:
        key = _key(account, "failed")
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
        key = _key(account, "listed")
        with self._redis.pipeline(transaction=True) as pipe:
            if first:
                pipe.delete(key)
            pipe.hset(key, mapping={**entries, "taken_at": repr(taken_at), "since": repr(since)})
            pipe.expire(key, 86_400)
            pipe.execute()

    @answering
    def listed(self, account: str, batch_id: str) -> tuple[bytes | None, float, float]:
        entry, taken_at, since = self._redis.hmget(_key(account, "listed"), batch_id, "taken_at", "since")
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
        key = _key(account, "past")
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.lpush(key, _encode((requests, round(seconds, 1))))
            pipe.ltrim(key, 0, _PAST - 1)
            pipe.expire(key, _ACCOUNT_TTL)
            pipe.execute()

    @answering
    def past(self, account: str) -> list[tuple[int, float]]:
        return [_decode_past(entry) for entry in self._redis.lrange(_key(account, "past"), 0, -1)]


def member(unit: Unit) -> str:
    """What an index calls a unit. The job id comes last: it is the caller's, and may hold anything."""
    return ":".join("" if part is None else str(part) for part in (unit.batch, unit.lane, unit.job_id))


def unit_of(name: str) -> Unit:
    """The unit that an index calls so."""
    batch, lane, job_id = name.split(":", 2)
    return Unit(job_id, int(batch) if batch else None, int(lane) if lane else None)


def batch_key(job_id: str, batch: int | None) -> str:
    """The hash of a batch's record."""
    return f"{PREFIX}:{{{job_id}}}:batch:{batch}"


def flights_key(account: str) -> str:
    """The hash of an account's batches in flight: those whose polls wait."""
    return _key(account, "flights")


def pace_keys(pace: str) -> tuple[str, str]:
    """Where a pace of Messages calls is kept, and where those in flight are."""
    return f"{PREFIX}:pace:{pace}", f"{PREFIX}:pace:{pace}:calls"


def _key(account: str, name: str) -> str:
    return f"{PREFIX}:account:{account}:{name}"
