"""Pools of asks in Redis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from claude_batch_tasks.pool_records import Ask, AskPlace, PoolLimits, PoolRecord
from claude_batch_tasks.store.ask_encoding import DOUBLINGS, PLACE_TTL, choose_page, describe_spent
from claude_batch_tasks.store.record_encoding import _encode
from claude_batch_tasks.store.redis.ask_encoding import (
    deadline_text,
    pack_ask,
    place_args,
    read_place,
    read_pool,
    unpack_ask,
    window_text,
)
from claude_batch_tasks.store.redis.connection import Part, answering
from claude_batch_tasks.store.redis.keys import (
    ASK_PREFIX,
    COST_PREFIX,
    FIELDS,
    POOL_PREFIX,
    POOLS,
    POOLS_DUE,
    POOLS_OPEN,
    ask_key,
    job_key,
    pool_keys,
)
from claude_batch_tasks.store.redis.scripts import Script

#: Records that are read in one go.
_PAGE = 500


class RedisPools(Part):
    """``interface.Pools`` on a Redis server."""

    _add = Script("add_ask")
    _due = Script("due_pools")
    _seal = Script("seal")
    _divide = Script("divide")
    _release = Script("release")

    @answering
    def add_ask(self, key: str, pool: PoolRecord, new_id: str, ask: Ask, size: int, limits: PoolLimits) -> AskPlace:
        most = limits.max_cost
        answer = self._add(
            keys=[POOLS_OPEN, POOLS_DUE, POOLS, ask_key(ask.id), COST_PREFIX, POOL_PREFIX],
            args=[
                *(key, new_id, _encode(pool), repr(pool.due_at), deadline_text(pool.deadline)),
                *(pack_ask(ask, size, self._connection.cipher), size),
                *(limits.max_requests, limits.max_bytes, limits.max_wait, PLACE_TTL),
                *(ask.reserved, "" if most is None else most, window_text(limits.window), pool.name),
                repr(pool.starts_at),
                *place_args(ask, self._connection.cipher),
            ],
        )
        if answer[0] < 0:
            raise describe_spent(pool.name, ask.reserved, int(answer[1]), float(answer[2]))
        if answer[0] == 0:
            known = read_place(answer[1])
            assert known is not None
            return known
        _, job_id, position, now = answer
        return AskPlace(job_id=job_id.decode(), position=position, asked_at=float(now), reserved=ask.reserved)

    @answering
    def take_due(self, limit: int, again: float) -> tuple[list[str], float | None]:
        found, following, now = self._due(keys=[POOLS_DUE, POOLS_OPEN, POOL_PREFIX], args=[limit, again, DOUBLINGS])
        pause = max(float(following) - float(now), 0.0) if following else None
        return [job_id.decode() for job_id in found], pause

    @answering
    def wait_again(self, job_ids: Sequence[str], seconds: float) -> None:
        at = self._redis.time()[0] + seconds
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.zadd(POOLS_DUE, {job_id: at}, xx=True)
                pipe.hdel(pool_keys(job_id)[0], FIELDS["POOL"]["sent"])
            pipe.execute()

    @answering
    def read_pool(self, job_id: str) -> PoolRecord | None:
        return read_pool(self._redis.hgetall(pool_keys(job_id)[0]))

    @answering
    def read_asks(self, job_id: str, *, params: bool = True) -> Iterator[list[Ask | None]]:
        key, cipher = pool_keys(job_id)[1], self._connection.cipher if params else None
        page = choose_page(read_pool(self._redis.hgetall(pool_keys(job_id)[0])))
        for first in range(0, self._redis.llen(key), page):
            yield [unpack_ask(packed, cipher) for packed in self._redis.lrange(key, first, first + page - 1)]

    @answering
    def begin_sealing(self, job_id: str) -> PoolRecord | None:
        self._call_seal(job_id, "")
        return self.read_pool(job_id)

    @answering
    def finish_sealing(self, job_id: str) -> None:
        self._call_seal(job_id, 1)

    @answering
    def stop_sealing(self, job_id: str) -> int:
        return int(self._call_seal(job_id, -1) or 0)

    @answering
    def drop_asks(self, job_id: str) -> None:
        self._redis.unlink(pool_keys(job_id)[1])

    @answering
    def divide(self, job_id: str, parts: Mapping[str, tuple[PoolRecord, Sequence[int]]]) -> bool:
        args: list[Any] = [job_id, ""]
        for new_id, (record, positions) in parts.items():
            opened_at = record.opened_at or self._connection.now()
            args += [
                new_id,
                _encode(record),
                record.state,
                repr(opened_at),
                repr(record.due_at) if record.due_at else "",
            ]
            args += [deadline_text(record.deadline), len(positions), *positions]
        return bool(self._divide(keys=[POOLS_DUE, POOLS, ASK_PREFIX, POOL_PREFIX], args=args))

    @answering
    def merge(self, job_id: str, others: Sequence[str]) -> None:
        self._divide(keys=[POOLS_DUE, POOLS, ASK_PREFIX, POOL_PREFIX], args=[job_id, 1, *others])

    @answering
    def release(self, job_id: str, record: PoolRecord) -> None:
        args = [job_id, _encode(record), deadline_text(record.deadline)]
        self._release(keys=[pool_keys(job_id)[0], POOLS_DUE], args=args)

    @answering
    def list_pools(self, name: str | None = None) -> Iterator[tuple[str, PoolRecord]]:
        job_ids = [job_id.decode() for job_id in self._redis.zrange(POOLS, 0, -1)]
        for first in range(0, len(job_ids), _PAGE):
            some = job_ids[first : first + _PAGE]
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id in some:
                    pipe.hgetall(pool_keys(job_id)[0])
                records = [read_pool(fields) for fields in pipe.execute()]
            for job_id, record in zip(some, records, strict=True):
                if record is not None and name in (None, record.name):
                    yield job_id, record

    def _call_seal(self, job_id: str, done: int | str) -> Any:
        pool, asks, _ = pool_keys(job_id)
        return self._seal(keys=[pool, POOLS_DUE, POOLS, asks, job_key(job_id)], args=[job_id, done])
