"""Requests that go through the Messages API, in Redis."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from claude_batch_tasks.records import Need, Taken, Unit
from claude_batch_tasks.store.redis.chunks import Chunks
from claude_batch_tasks.store.redis.connection import Connection, Part, answering
from claude_batch_tasks.store.redis.keys import (
    DUE,
    HELD,
    batch_key,
    call_member,
    job_key,
    member,
    money_key,
    pace_keys,
    position_field,
    unit_key,
)
from claude_batch_tasks.store.redis.scripts import Script

#: Positions that are written at a time.
_PAGE = 500


class RedisMessageQueue(Part):
    """``interface.MessageQueue`` on a Redis server."""

    _enter = Script("enter")
    _confirm = Script("confirm")
    _answered = Script("answered")
    _put_back = Script("money", "put_back")
    _take = Script("money", "take")
    _outcome = Script("money", "outcome")

    def __init__(self, connection: Connection, chunks: Chunks) -> None:
        super().__init__(connection)
        self._chunks = chunks

    @answering
    def add_requests(self, job_id: str, batch: int, positions: Iterable[int]) -> None:
        keys = [batch_key(job_id, batch, name) for name in ("to_send", "sent", "outcomes")]
        members = map(position_field, positions)
        while some := list(islice(members, _PAGE)):
            self._enter(keys=keys, args=some)
        self._connection.expire_with_job(job_id, keys[0])

    @answering
    def list_due(self, job_id: str, batch: int, limit: int) -> tuple[list[int], float | None]:
        key = batch_key(job_id, batch, "to_send")
        seconds, microseconds = self._redis.time()
        now = seconds + microseconds / 1e6
        # Neighbours, which are in the same piece, from anywhere: others ask as well, and the first may have to wait.
        # The first and the last are as likely among them as any.
        first = random.randrange(1 - limit, max(self._redis.zcount(key, "-inf", now), 1))
        found = self._redis.zrangebyscore(key, "-inf", now, start=max(first, 0), num=limit + min(first, 0))
        if found:
            return [int(position) for position in found], 0.0
        soonest = self._redis.zrange(key, 0, 0, withscores=True)
        return [], max(soonest[0][1] - now, 0.0) if soonest else None

    @answering
    def count_unfinished(self, job_id: str, batch: int) -> int:
        to_send, sent = (batch_key(job_id, batch, name) for name in ("to_send", "sent"))
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.zcard(to_send)
            pipe.hlen(sent)
            return int(sum(pipe.execute()))

    @answering
    def take_request(
        self,
        unit: Unit,
        owner: str,
        position: int,
        pace: str,
        need: Need,
        ttl: float,
        *,
        cap: int,
        limit: int | None,
        total: int | None,
    ) -> Taken:
        hash_, calls = pace_keys(pace)
        names = ("to_send", "sent", "outcomes")
        keys = [batch_key(unit.job_id, unit.batch, name) for name in names]
        state, milliseconds, mark = self._take(
            keys=[*keys, job_key(unit.job_id), money_key(unit.job_id), hash_, calls, HELD, unit_key(unit)[0]],
            args=[
                *(position_field(position), unit.lane or 0, call_member(unit, position), pace, need.tokens),
                *("" if n is None else n for n in (need.least, need.most)),
                *(ttl, cap),
                *("" if n is None else n for n in (limit, total)),
                owner,
            ],
        )
        return Taken(state.decode(), milliseconds / 1000, mark.decode())

    @answering
    def confirm_request(self, unit: Unit, owner: str, position: int, ttl: float) -> bool:
        key, prefix = unit_key(unit)
        args = [prefix, member(unit), owner, ttl, position_field(position), unit.lane or 0]
        return bool(self._confirm(keys=[key, batch_key(unit.job_id, unit.batch, "sent"), DUE], args=args))

    @answering
    def renew_calls(self, unit: Unit, paces: Mapping[int, str], ttl: float) -> None:
        seconds, _ = self._redis.time()
        with self._redis.pipeline(transaction=False) as pipe:
            for position, pace in paces.items():
                pipe.zadd(pace_keys(pace)[1], {call_member(unit, position): seconds + ttl}, xx=True)
            pipe.execute()

    @answering
    def list_abandoned(self, unit: Unit) -> list[int]:
        sent = self._redis.hgetall(batch_key(unit.job_id, unit.batch, "sent"))
        return [int(position) for position, lane in sent.items() if lane.split(b" ")[0] == str(unit.lane or 0).encode()]

    @answering
    def record_answer(
        self,
        unit: Unit,
        position: int,
        pace: str,
        mark: str,
        *,
        limits: Mapping[str, tuple[int, int]],
        refused: bool,
        hold: float | None,
        cap: int,
        output: int | None = None,
    ) -> None:
        args: list[Any] = [call_member(unit, position), pace, mark, int(refused), "" if hold is None else hold, cap]
        args.append("" if output is None else output)
        for name, (a_minute, left) in limits.items():
            args += [name, a_minute, left]
        self._answered(keys=[*pace_keys(pace), HELD], args=args)

    @answering
    def count_refusals(self, unit: Unit, position: int) -> int:
        return int(self._redis.hget(batch_key(unit.job_id, unit.batch, "refused"), position_field(position)) or 0)

    @answering
    def put_back(self, unit: Unit, position: int, seconds: float, limit: int) -> int:
        keys = [batch_key(unit.job_id, unit.batch, name) for name in ("sent", "to_send", "refused")]
        keys += [money_key(unit.job_id), job_key(unit.job_id)]
        return int(self._put_back(keys=keys, args=[position_field(position), seconds, limit]))

    @answering
    def drop_waiting(self, job_id: str, batch: int) -> int:
        key = batch_key(job_id, batch, "to_send")
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.zcard(key)
            pipe.unlink(key)
            return int(pipe.execute()[0])

    @answering
    def list_known(self, job_id: str, batch: int) -> set[int]:
        to_send, sent, outcomes = (batch_key(job_id, batch, name) for name in ("to_send", "sent", "outcomes"))
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.zrange(to_send, 0, -1)
            pipe.hkeys(sent)
            pipe.hkeys(outcomes)
            return {int(position) for found in pipe.execute() for position in found}

    @answering
    def save_outcome(
        self, unit: Unit, position: int, outcome: bytes, *, spent: int | None = None, given_up: bool = False
    ) -> bool:
        names = ("outcomes", "sent", "to_send", "given_up")
        outcomes, sent, to_send, lost = (batch_key(unit.job_id, unit.batch, name) for name in names)
        keys = [outcomes, job_key(unit.job_id), sent, money_key(unit.job_id), to_send, lost]
        keys.append(batch_key(unit.job_id, unit.batch))
        packed = self._connection.packer.pack(outcome, f"{outcomes}:{position}")
        args = [position_field(position), packed, "" if spent is None else spent, int(given_up)]
        return bool(self._outcome(keys=keys, args=args))
