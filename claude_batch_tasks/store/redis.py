"""The store on Redis (or a server that speaks its protocol), the default.

All keys of a job carry its id as hash tag. Record fields are JSON; pieces are zstandard frames of about a megabyte
of plain bytes, one list element each. The atomic steps are the Lua files beside this module.
"""

from __future__ import annotations

import functools
import inspect
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import redis
import zstandard

from claude_batch_tasks import requests
from claude_batch_tasks.errors import JobNotFound, StoreUnavailable
from claude_batch_tasks.store import BatchRecord, JobRecord, Lease, MessageRecord, Unit

_PREFIX = "claude_batch"
_TIMEOUT = 30.0

#: Payloads that no job record stands for yet (the caller may have died), and rows of an unpublished attempt.
_UNFINISHED_TTL = 86_400

_encode = msgspec.json.encode
_Record = TypeVar("_Record", JobRecord, BatchRecord, MessageRecord)
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
        self._acquire, self._record, self._grant, self._update = (
            client.register_script((scripts / f"{name}.lua").read_text())
            for name in ("acquire", "record", "grant", "update")
        )

    # -- jobs

    @_answering
    def create_job(self, job_id: str, job: JobRecord, batches: Sequence[BatchRecord], ttl: float) -> None:
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(_key(job_id, "job"), mapping=_fields(job))
            for number, batch in enumerate(batches):
                pipe.hset(_key(job_id, "batch", number), mapping=_fields(batch))
            for key in self._keys(job_id, len(batches)):
                pipe.expire(key, _whole(ttl))
            pipe.execute()

    @_answering
    def job(self, job_id: str) -> JobRecord | None:
        return _load(JobRecord, self._redis.hgetall(_key(job_id, "job")))

    @_answering
    def update_job(self, job_id: str, **changes: Any) -> None:
        pairs = [part for name, value in changes.items() for part in (name, _encode(value))]
        self._update(keys=[_key(job_id, "job")], args=pairs)

    @_answering
    def keep(self, job_id: str) -> None:
        self._each_key(job_id, "persist")

    @_answering
    def expire(self, job_id: str, ttl: float) -> None:
        self._each_key(job_id, "expire", _whole(ttl))

    @_answering
    def delete(self, job_id: str) -> None:
        self._each_key(job_id, "delete")

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
        # A request's fields come into being with its lease, so there the job must stand for it.
        keys = [key, key if unit.place is None else _key(unit.job_id, "job")]
        state, remaining = self._acquire(keys=keys, args=[prefix, position, owner, ttl])
        return Lease(state.decode(), remaining / 1000)

    @_answering
    def renew(self, unit: Unit, owner: str, ttl: float) -> bool:
        return self._write(unit, owner, ttl, "", {})

    @_answering
    def record(self, unit: Unit, owner: str, **changes: Any) -> bool:
        return self._write(unit, owner, "", "", changes)

    @_answering
    def advance(self, unit: Unit, owner: str, position: int, **changes: Any) -> bool:
        return self._write(unit, owner, "", position, changes)

    def _write(self, unit: Unit, owner: str, ttl: float | str, position: int | str, changes: dict[str, Any]) -> bool:
        key, prefix = _unit(unit)
        pairs = [part for name, value in changes.items() for part in (name, _encode(value))]
        return bool(self._record(keys=[key], args=[prefix, owner, ttl, position, *pairs]))

    @_answering
    def grant(self, job_id: str, batch: int, wanted: int, limit: int) -> int:
        return int(self._grant(keys=[_key(job_id, "job"), _key(job_id, "batch", batch)], args=[wanted, limit]))

    # -- which batch id is whose

    @_answering
    def claim_batch(self, batch_id: str, owner: str) -> str:
        key = f"{_PREFIX}:owner:{batch_id}"
        # As long as Anthropic keeps the results: later the batch is of no use to anybody.
        self._redis.set(key, owner, nx=True, ex=30 * 86_400)
        return (self._redis.get(key) or owner.encode()).decode()

    @_answering
    def batch_owner(self, batch_id: str) -> str | None:
        value = self._redis.get(f"{_PREFIX}:owner:{batch_id}")
        return value.decode() if value else None

    @_answering
    def release_batch(self, batch_id: str) -> None:
        self._redis.delete(f"{_PREFIX}:owner:{batch_id}")

    # -- payloads

    @_answering
    def append(self, job_id: str, batch: int, custom_ids: Sequence[str], body: bytes) -> None:
        with self._redis.pipeline(transaction=True) as pipe:
            for name, value in (
                ("body", _compress(body)),
                ("ids", _compress(_encode(custom_ids))),
                ("sizes", len(custom_ids)),
            ):
                pipe.rpush(_key(job_id, "batch", batch, name), value)
                pipe.expire(_key(job_id, "batch", batch, name), _UNFINISHED_TTL)
            pipe.execute()

    @_answering
    def bodies(self, job_id: str, batch: int) -> Iterator[bytes]:
        yield from self._pieces(_key(job_id, "batch", batch, "body"))

    @_answering
    def custom_ids(self, job_id: str, batch: int) -> Iterator[list[str]]:
        for piece in self._pieces(_key(job_id, "batch", batch, "ids")):
            yield msgspec.json.decode(piece, type=list[str])

    @_answering
    def params(self, job_id: str, batch: int, place: int) -> bytes:
        starts = [0]
        for size in self._redis.lrange(_key(job_id, "batch", batch, "sizes"), 0, -1):
            starts.append(starts[-1] + int(size))
        piece = bisect_right(starts, place) - 1
        body = _decompress(self._redis.lindex(_key(job_id, "batch", batch, "body"), piece))
        return requests.pick(body, [place - starts[piece]])[0]

    @_answering
    def write_results(self, job_id: str, batch: int, attempt: int, pieces: Iterable[bytes]) -> None:
        key = _key(job_id, "batch", batch, f"rows:{attempt}")
        for piece in pieces:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.rpush(key, _compress(piece))
                pipe.expire(key, _UNFINISHED_TTL)
                pipe.execute()

    @_answering
    def publish(self, unit: Unit, owner: str, attempt: int, **changes: Any) -> bool:
        key = _key(unit.job_id, "batch", unit.batch, f"rows:{attempt}")
        # Persist first: an attempt that is published must never expire, one that is not may stay a little longer.
        self._redis.persist(key)
        if self.record(unit, owner, published=attempt, **changes):
            return True
        self._redis.delete(key)
        return False

    @_answering
    def results(self, job_id: str, batch: int, attempt: int) -> Iterator[bytes]:
        yield from self._pieces(_key(job_id, "batch", batch, f"rows:{attempt}"))

    @_answering
    def set_eligible(self, job_id: str, batch: int, places: bytes) -> None:
        self._redis.set(_key(job_id, "batch", batch, "eligible"), places)

    @_answering
    def eligible(self, job_id: str, batch: int) -> bytes:
        return self._redis.get(_key(job_id, "batch", batch, "eligible")) or b""

    # -- outcomes of the Messages API

    @_answering
    def save_outcome(self, job_id: str, batch: int, place: int, outcome: bytes) -> bool:
        return bool(self._redis.hsetnx(_key(job_id, "batch", batch, "outcomes"), str(place), _compress(outcome)))

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

    def _pieces(self, key: str) -> Iterator[bytes]:
        for number in range(self._redis.llen(key)):
            if (piece := self._redis.lindex(key, number)) is None:
                raise JobNotFound("the job expired or was deleted while its payloads were read")
            yield _decompress(piece)

    def _keys(self, job_id: str, batches: int, attempts: Sequence[int] = ()) -> Iterator[str]:
        yield _key(job_id, "job")
        for number in range(batches):
            yield _key(job_id, "batch", number)
            for name in ("body", "ids", "sizes", "eligible", "outcomes", "messages"):
                yield _key(job_id, "batch", number, name)
        for number, count in enumerate(attempts):
            for attempt in range(1, count + 1):
                yield _key(job_id, "batch", number, f"rows:{attempt}")

    def _each_key(self, job_id: str, command: str, *args: Any) -> None:
        records = self.batches(job_id)
        count = len(records)
        if not records:
            # No job record: the caller failed while staging. The pieces of its batches are numbered without a gap.
            while self._redis.exists(_key(job_id, "batch", count, "body")):
                count += 1
        with self._redis.pipeline(transaction=False) as pipe:
            for key in self._keys(job_id, count, [record.attempt for record in records]):
                getattr(pipe, command)(key, *args)
            pipe.execute()


@functools.lru_cache(maxsize=32)
def _open(url: str, pid: int) -> RedisStore:
    parts = urlsplit(url)
    where = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
    client = redis.Redis.from_url(url, socket_timeout=_TIMEOUT, socket_connect_timeout=5, health_check_interval=30)
    return RedisStore(client, where)


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


def _fields(record: msgspec.Struct) -> dict[str, bytes]:
    return {name: _encode(getattr(record, name)) for name in record.__struct_fields__}


def _load(cls: type[_Record], fields: dict[bytes, bytes]) -> _Record | None:
    known = {name.encode() for name in cls.__struct_fields__}
    values = {name.decode(): msgspec.Raw(value) for name, value in fields.items() if name in known}
    return msgspec.json.decode(_encode(values), type=cls) if values else None


def _whole(seconds: float) -> int:
    return max(int(seconds), 1)


def _compress(data: bytes) -> bytes:
    return zstandard.compress(data, 1)


def _decompress(data: bytes) -> bytes:
    return zstandard.decompress(data)
