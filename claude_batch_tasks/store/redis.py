"""The store on Redis (or a server that speaks its protocol), the default.

All keys of a job carry its id as hash tag. Record fields are JSON; pieces are zstandard frames of about a megabyte
of plain bytes, one list element each. The atomic steps are the Lua files beside this module.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import redis
import zstandard

from claude_batch_tasks import requests
from claude_batch_tasks.errors import JobNotFound, StoreUnavailable
from claude_batch_tasks.settings import redis_address
from claude_batch_tasks.store import BatchRecord, JobRecord, JobState, Lease, Lost, MessageRecord, Unit

_PREFIX = "claude_batch"

#: Sorted set of all units that wait for a message, by when it is due or, while somebody is at work, the lease ends.
_DUE = f"{_PREFIX}:due"

#: By how many seconds messages were late lately. Where queues are long, copies of what is merely late make them longer.
_LATE = f"{_PREFIX}:late"

#: As long as Anthropic keeps the results: later a batch is of no use to anybody.
_CLAIM_TTL = 30 * 86_400

#: The lists a batch is staged as.
_STAGED = ("body", "ids", "sizes")

#: What one download leaves: the rows, in which piece each is, and which deserve another chance.
_FETCHED = ("rows", "pieces", "eligible")
_TIMEOUT = 30.0

#: Payloads that no job record stands for yet (the caller may have died), and rows of an unpublished attempt.
_UNFINISHED_TTL = 86_400

_encode = msgspec.json.encode
_Record = TypeVar("_Record", JobRecord, BatchRecord, MessageRecord)
_Item = TypeVar("_Item")
_Method = TypeVar("_Method", bound=Callable[..., Any])


def _answering(method: _Method) -> _Method:
    """Turn whatever keeps the server from answering into StoreUnavailable, in a method or a generator."""

    def unavailable(store: RedisStore, exc: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"the store at {store.where} did not answer: {type(exc).__name__}: {exc}")

    if inspect.isgeneratorfunction(method):

        @functools.wraps(method)
        def iterate(self: RedisStore, *args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from method(self, *args, **kwargs)
            except redis.RedisError as exc:
                raise unavailable(self, exc) from exc

        return iterate  # type: ignore[return-value]

    @functools.wraps(method)
    def call(self: RedisStore, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except redis.RedisError as exc:
            raise unavailable(self, exc) from exc

    return call  # type: ignore[return-value]


class RedisStore:
    """A ``store.Store`` on a Redis client.

    Args:
        client: one that does not decode responses.
        where: what error messages call the server; no password.
    """

    def __init__(self, client: redis.Redis, where: str) -> None:
        # Typed loosely: redis-py types each reply as bytes or str, whichever the client decodes.
        self._redis: Any = client
        self.where = where
        scripts = Path(__file__).parent
        names = ("acquire", "admit", "claim", "create", "grant", "lost", "outcome", "record", "settle", "update")
        (
            self._acquire,
            self._admit,
            self._claim,
            self._create,
            self._grant,
            self._lost,
            self._outcome,
            self._record,
            self._settle,
            self._update,
        ) = (client.register_script((scripts / f"{name}.lua").read_text()) for name in names)

    # -- jobs

    def stage(self, job_id: str, nonce: str, pieces: Iterable[requests.Piece]) -> None:
        for piece, body in _one_ahead(lambda piece: _compress(piece.body), pieces):
            values = (body, _compress(_encode(piece.custom_ids)), len(piece.custom_ids))
            keys = (_key(job_id, "staging", nonce, piece.batch, name) for name in _STAGED)
            self._push(dict(zip(keys, values, strict=True)))

    @_answering
    def stage_index(self, job_id: str, nonce: str, parts: Iterable[tuple[int, bytes]]) -> None:
        key = _key(job_id, "staging", nonce, "index")
        for number, entries in parts:
            self._redis.hset(key, str(number), entries)
        self._redis.expire(key, _UNFINISHED_TTL)

    @_answering
    def discard(self, job_id: str, nonce: str, batches: int) -> None:
        lists = (_key(job_id, "staging", nonce, batch, name) for batch in range(batches) for name in _STAGED)
        self._redis.unlink(_key(job_id, "staging", nonce, "index"), *lists)

    @_answering
    def create_job(self, job_id: str, job: JobRecord, batches: Sequence[BatchRecord], ttl: float) -> bool:
        keys = [_key(job_id, "job"), _key(job_id, "staging", job.nonce, "index"), _key(job_id, "index")]
        records = [_pairs(_fields(job))]
        for number, batch in enumerate(batches):
            records.append(_pairs(_fields(batch)))
            keys.append(_key(job_id, "batch", number))
            for name in _STAGED:
                keys += [_key(job_id, "staging", job.nonce, number, name), _key(job_id, "batch", number, name)]
        made = self._create(keys=keys, args=[_whole(ttl), len(_STAGED), *map(_encode, records)])
        if made < 0:
            raise JobNotFound(
                f"what was staged for job {job_id} has expired: its requests took longer than "
                f"{_UNFINISHED_TTL / 3600:g} hours to hand over; nothing was sent"
            )
        return bool(made)

    @_answering
    def job(self, job_id: str) -> JobRecord | None:
        return _load(JobRecord, self._redis.hgetall(_key(job_id, "job")))

    @_answering
    def update_job(self, job_id: str, *, only: JobState | None = None, **changes: Any) -> bool:
        args = [_encode(only) if only else "", *_changed(changes)]
        return bool(self._update(keys=[_key(job_id, "job")], args=args))

    @_answering
    def settle(self, job_id: str, field: str, value: Any) -> Any:
        return msgspec.json.decode(self._settle(keys=[_key(job_id, "job")], args=[field, _encode(value)]))

    @_answering
    def keep(self, job_id: str) -> None:
        self._each_key(job_id, "persist")

    @_answering
    def expire(self, job_id: str, ttl: float) -> None:
        self._each_key(job_id, "expire", _whole(ttl))

    @_answering
    def delete(self, job_id: str, *, remember: bool = False) -> None:
        if remember:
            self._redis.set(f"{_PREFIX}:deleted:{job_id}", b"", ex=_UNFINISHED_TTL)
        units = [Unit(job_id), *(Unit(job_id, number) for number, _ in enumerate(self.batches(job_id)))]
        self._redis.zrem(_DUE, *map(_member, units))
        self._each_key(job_id, "unlink")

    @_answering
    def was_deleted(self, job_id: str) -> bool:
        return bool(self._redis.exists(f"{_PREFIX}:deleted:{job_id}"))

    # -- batches, and the leases of their steps

    @_answering
    def batches(self, job_id: str) -> list[BatchRecord]:
        job = self.job(job_id)
        with self._redis.pipeline(transaction=False) as pipe:
            for number in range(job.batches if job else 0):
                pipe.hgetall(_key(job_id, "batch", number))
            return [batch for fields in pipe.execute() if (batch := _load(BatchRecord, fields)) is not None]

    @_answering
    def batch(self, job_id: str, batch: int) -> BatchRecord | None:
        return _load(BatchRecord, self._redis.hgetall(_key(job_id, "batch", batch)))

    @_answering
    def message(self, unit: Unit) -> MessageRecord:
        names = MessageRecord.__struct_fields__
        key, prefix = _unit(unit)
        values = self._redis.hmget(key, [prefix + name for name in names])
        fields = {n.encode(): v for n, v in zip(names, values, strict=True) if v is not None}
        return _load(MessageRecord, fields) or MessageRecord()

    @_answering
    def acquire(self, unit: Unit, position: int, owner: str, ttl: float) -> Lease:
        key, prefix = _unit(unit)
        keys = [key, _standing(unit), _DUE, _LATE]
        state, remaining = self._acquire(keys=keys, args=[prefix, _member(unit), position, owner, ttl])
        return Lease(state.decode(), remaining / 1000)

    @_answering
    def renew(self, unit: Unit, owner: str, ttl: float) -> bool:
        return self._write(unit, owner, {}, ttl=ttl)

    @_answering
    def record(self, unit: Unit, owner: str, **changes: Any) -> bool:
        return self._write(unit, owner, changes)

    @_answering
    def advance(self, unit: Unit, owner: str, position: int, *, through: bool = False, **changes: Any) -> bool:
        # What comes after the last step of a batch is the job's.
        follower = "" if unit.batch is None or unit.place is not None else _member(Unit(unit.job_id))
        due = f"through:{follower}" if through else changes.get("due_at") or 0
        return self._write(unit, owner, changes, position=position, due=due)

    def _write(
        self,
        unit: Unit,
        owner: str,
        changes: dict[str, Any],
        *,
        ttl: float | str = "",
        position: int | str = "",
        due: float | str = "",
    ) -> bool:
        key, prefix = _unit(unit)
        args = [prefix, _member(unit), owner, ttl, position, due, *_changed(changes)]
        return bool(self._record(keys=[key, _DUE, _key(unit.job_id, "job")], args=args))

    # -- the index of what waits for a message

    @_answering
    def schedule(self, units: Iterable[Unit], at: float) -> None:
        if members := {_member(unit): at for unit in units}:
            self._redis.zadd(_DUE, members)

    @_answering
    def unschedule(self, unit: Unit) -> None:
        self._redis.zrem(_DUE, _member(unit))

    @_answering
    def overdue(self, before: float, limit: int) -> list[Unit]:
        members = self._redis.zrangebyscore(_DUE, "-inf", f"({before}", start=0, num=limit)
        return [_unit_of(member.decode()) for member in members]

    @_answering
    def lost(self, unit: Unit, after: float) -> Lost | None:
        key, prefix = _unit(unit)
        keys = [key, _standing(unit), _DUE, _LATE]
        found = self._lost(keys=keys, args=[prefix, _member(unit), after])
        return Lost(int(found[0]), float(found[1])) if found else None

    # -- what a batch gets of the job

    @_answering
    def admit(self, job_id: str, batch: int) -> int | None:
        keys = [_key(job_id, "job"), _key(job_id, "batch", batch), _DUE]
        admitted = self._admit(keys=keys, args=[_member(Unit(job_id))])
        return None if admitted is None else int(admitted)

    @_answering
    def grant(self, job_id: str, batch: int, wanted: int, limit: int) -> int:
        return int(self._grant(keys=[_key(job_id, "job"), _key(job_id, "batch", batch)], args=[wanted, limit]))

    # -- which batch id is whose

    @_answering
    def claim(
        self,
        unit: Unit,
        owner: str,
        batch_id: str,
        /,
        *,
        instead_of: Unit | None = None,
        force: bool = False,
        **changes: Any,
    ) -> Unit | None:
        act = "force" if force else _member(instead_of) if instead_of else "take"
        return self._own(act, unit, owner, batch_id, changes)

    @_answering
    def release(self, unit: Unit, owner: str, batch_id: str, /, **changes: Any) -> bool:
        return self._own("release", unit, owner, batch_id, changes) is not None

    def _own(self, act: str, unit: Unit, owner: str, batch_id: str, changes: dict[str, Any]) -> Unit | None:
        key, _ = _unit(unit)
        args = [act, owner, _member(unit), _CLAIM_TTL, *_changed(changes)]
        found = self._claim(keys=[key, f"{_PREFIX}:owner:{batch_id}"], args=args)
        return _unit_of(found.decode()) if found else None

    @_answering
    def holder(self, batch_id: str) -> Unit | None:
        value = self._redis.get(f"{_PREFIX}:owner:{batch_id}")
        return _unit_of(value.decode()) if value else None

    # -- payloads

    @_answering
    def bodies(self, job_id: str, batch: int) -> Iterator[bytes]:
        yield from self._pieces(_key(job_id, "batch", batch, "body"))

    @_answering
    def custom_ids(self, job_id: str, batch: int) -> Iterator[list[str]]:
        for piece in self._pieces(_key(job_id, "batch", batch, "ids")):
            yield msgspec.json.decode(piece, type=list[str])

    @_answering
    def index_part(self, job_id: str, part: int) -> bytes:
        return self._redis.hget(_key(job_id, "index"), str(part)) or b""

    @_answering
    def custom_id(self, job_id: str, batch: int, place: int) -> str:
        piece, at = self._piece_with(job_id, batch, "ids", place)
        return msgspec.json.decode(piece, type=list[str])[at]

    @_answering
    def params(self, job_id: str, batch: int, place: int) -> bytes:
        piece, at = self._piece_with(job_id, batch, "body", place)
        return requests.pick(piece, [at])[0]

    def write_results(self, job_id: str, batch: int, attempt: int, pieces: Iterable[bytes]) -> None:
        try:
            for _, piece in _one_ahead(_compress, pieces):
                self._push({_key(job_id, "batch", batch, f"rows:{attempt}"): piece})
        except BaseException:
            with suppress(StoreUnavailable):  # then it expires
                self.discard_results(job_id, batch, attempt)
            raise

    @_answering
    def discard_results(self, job_id: str, batch: int, attempt: int) -> None:
        self._redis.unlink(_key(job_id, "batch", batch, f"rows:{attempt}"))

    @_answering
    def publish(
        self, unit: Unit, owner: str, attempt: int, /, *, pieces: bytes, eligible_places: bytes, **changes: Any
    ) -> bool:
        keys = [_key(unit.job_id, "batch", unit.batch, f"{name}:{attempt}") for name in _FETCHED]
        # Persist first: an attempt that is published must never expire, one that is not may stay a little longer.
        self._redis.persist(keys[0])
        for key, value in zip(keys[1:], (pieces, eligible_places), strict=True):
            self._redis.set(key, value)
        if self.record(unit, owner, published=attempt, **changes):
            for earlier in range(1, attempt):
                self.discard_results(unit.job_id, unit.batch or 0, earlier)
            # A job that is over (revoked, most likely) expires, and this with it.
            if (left := self._redis.pttl(_key(unit.job_id, "job"))) > 0:
                for key in keys:
                    self._redis.pexpire(key, left)
            return True
        self._redis.unlink(*keys)
        return False

    @_answering
    def results(self, job_id: str, batch: int, attempt: int) -> Iterator[bytes]:
        key = _key(job_id, "batch", batch, f"rows:{attempt}")
        if self._redis.exists(key):
            yield from self._pieces(key)
        elif not self._redis.exists(_key(job_id, "batch", batch, f"pieces:{attempt}")):
            raise JobNotFound("the job expired or was deleted while it was read")

    @_answering
    def results_with(self, job_id: str, batch: int, attempt: int, place: int) -> bytes:
        key = _key(job_id, "batch", batch, f"pieces:{attempt}")
        number = int.from_bytes(self._redis.getrange(key, 4 * place, 4 * place + 3), sys.byteorder)
        piece = self._redis.lindex(_key(job_id, "batch", batch, f"rows:{attempt}"), number)
        return _decompress(piece) if piece is not None else b""

    @_answering
    def eligible(self, job_id: str, batch: int, attempt: int) -> bytes:
        return self._redis.get(_key(job_id, "batch", batch, f"eligible:{attempt}")) or b""

    # -- outcomes of the Messages API

    @_answering
    def save_outcome(self, job_id: str, batch: int, place: int, outcome: bytes) -> bool:
        keys = [_key(job_id, "batch", batch, "outcomes"), _key(job_id, "job")]
        return bool(self._outcome(keys=keys, args=[place, _compress(outcome)]))

    @_answering
    def outcomes(self, job_id: str, batch: int) -> Iterator[tuple[int, bytes]]:
        for place, outcome in self._redis.hscan_iter(_key(job_id, "batch", batch, "outcomes"), count=50):
            yield int(place), _decompress(outcome)

    @_answering
    def outcome(self, job_id: str, batch: int, place: int) -> bytes | None:
        value = self._redis.hget(_key(job_id, "batch", batch, "outcomes"), str(place))
        return _decompress(value) if value is not None else None

    @_answering
    def outcome_count(self, job_id: str, batch: int) -> int:
        return int(self._redis.hlen(_key(job_id, "batch", batch, "outcomes")))

    # -- inside

    @_answering
    def _push(self, values: dict[str, bytes | int]) -> None:
        """Append to lists. By itself: what the iterators of those who call it raise is not the store's."""
        with self._redis.pipeline(transaction=True) as pipe:
            for key, value in values.items():
                pipe.rpush(key, value)
                pipe.expire(key, _UNFINISHED_TTL)
            pipe.execute()

    def _piece_with(self, job_id: str, batch: int, name: str, place: int) -> tuple[bytes, int]:
        """The piece of a staged list that the request of that position is in, and where it is in there."""
        starts = [0]
        for size in self._redis.lrange(_key(job_id, "batch", batch, "sizes"), 0, -1):
            starts.append(starts[-1] + int(size))
        number = bisect_right(starts, place) - 1
        return self._piece(_key(job_id, "batch", batch, name), number), place - starts[number]

    def _pieces(self, key: str) -> Iterator[bytes]:
        # What was staged has one piece at least.
        for number in range(self._redis.llen(key) or 1):
            yield self._piece(key, number)

    def _piece(self, key: str, number: int) -> bytes:
        if (piece := self._redis.lindex(key, number)) is None:
            raise JobNotFound("the job expired or was deleted while it was read")
        return _decompress(piece)

    def _keys(self, job_id: str, batches: int, attempts: Sequence[int] = ()) -> Iterator[str]:
        yield _key(job_id, "job")
        yield _key(job_id, "index")
        for number in range(batches):
            yield _key(job_id, "batch", number)
            for name in (*_STAGED, "outcomes", "messages"):
                yield _key(job_id, "batch", number, name)
        for number, count in enumerate(attempts):
            for attempt in range(1, count + 1):
                for name in _FETCHED:
                    yield _key(job_id, "batch", number, f"{name}:{attempt}")

    def _each_key(self, job_id: str, command: str, *args: Any) -> None:
        records = self.batches(job_id)
        with self._redis.pipeline(transaction=False) as pipe:
            for key in self._keys(job_id, len(records), [record.attempt for record in records]):
                getattr(pipe, command)(key, *args)
            pipe.execute()


@functools.lru_cache(maxsize=32)
def _open(url: str, pid: int) -> RedisStore:
    client = redis.Redis.from_url(url, socket_timeout=_TIMEOUT, socket_connect_timeout=5, health_check_interval=30)
    return RedisStore(client, redis_address(url))


def open_store(url: str) -> RedisStore:
    """The store behind a Redis URL, one per process: a connection made before a fork is not used after it."""
    return _open(url, os.getpid())


def _key(job_id: str, *parts: object) -> str:
    return ":".join([f"{_PREFIX}:{{{job_id}}}", *map(str, parts)])


def _unit(unit: Unit) -> tuple[str, str]:
    """The hash a unit is kept in, and the prefix of its fields there."""
    if unit.batch is None:
        return _key(unit.job_id, "job"), "lease:"
    if unit.place is None:
        return _key(unit.job_id, "batch", unit.batch), ""
    return _key(unit.job_id, "batch", unit.batch, "messages"), f"{unit.place}:"


def _standing(unit: Unit) -> str:
    """The hash without which the unit is gone: its own, but a request's fields come into being with its lease."""
    return _unit(unit)[0] if unit.place is None else _key(unit.job_id, "job")


def _member(unit: Unit) -> str:
    """What the index of due units calls it. The job id comes last: it is the caller's, and may hold anything."""
    return ":".join("" if part is None else str(part) for part in (unit.batch, unit.place, unit.job_id))


def _unit_of(member: str) -> Unit:
    batch, place, job_id = member.split(":", 2)
    return Unit(job_id, int(batch) if batch else None, int(place) if place else None)


def _changed(changes: dict[str, Any]) -> list[Any]:
    return [part for name, value in changes.items() for part in (name, _encode(value))]


def _pairs(fields: dict[str, bytes]) -> list[str]:
    return [part for name, value in fields.items() for part in (name, value.decode())]


def _fields(record: msgspec.Struct) -> dict[str, bytes]:
    return {name: _encode(getattr(record, name)) for name in record.__struct_fields__}


def _load(cls: type[_Record], fields: dict[bytes, bytes]) -> _Record | None:
    known = {name.encode() for name in cls.__struct_fields__}
    values = {name.decode(): msgspec.Raw(value) for name, value in fields.items() if name in known}
    return msgspec.json.decode(_encode(values), type=cls) if values else None


def _whole(seconds: float) -> int:
    return max(int(seconds), 1)


def _one_ahead(function: Callable[[_Item], bytes], items: Iterable[_Item]) -> Iterator[tuple[_Item, bytes]]:
    """Each item with what the function makes of it, in a thread, while the next is had and the last is dealt with.

    For what lets other threads run while it works: compressing and sending do.
    """
    with ThreadPoolExecutor(1, "claude-batch-store") as pool:
        last: tuple[_Item, Future[bytes]] | None = None
        for item in items:
            this = item, pool.submit(function, item)
            if last is not None:
                yield last[0], last[1].result()
            last = this
        if last is not None:
            yield last[0], last[1].result()


def _compress(data: bytes) -> bytes:
    return zstandard.compress(data, 1)


def _decompress(data: bytes) -> bytes:
    return zstandard.decompress(data)
