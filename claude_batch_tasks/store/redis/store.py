"""The store on Redis (or a server that speaks its protocol), the default.

All keys of a job carry its id as hash tag. Record fields are JSON; pieces are zstandard frames of about a megabyte
of plain bytes, one list element each, encrypted where there is a key. The atomic steps are the Lua files in
``scripts``.
"""

from __future__ import annotations

import functools
import os
import random
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

import msgspec
import redis
import zstandard

from claude_batch_tasks import steady, transport
from claude_batch_tasks.errors import JobNotFound, ResultsMissing, StoreUnavailable
from claude_batch_tasks.formatting import describe_missing_job
from claude_batch_tasks.records import (
    BatchRecord,
    Flight,
    JobRecord,
    JobState,
    LaneRecord,
    Lease,
    Lost,
    Need,
    Taken,
    Unit,
)
from claude_batch_tasks.settings import redis_urls
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.redis.connection import client_class
from claude_batch_tasks.store.redis.encoding import changed_fields, changed_texts, read_record, whole_record
from claude_batch_tasks.store.redis.flights import answering
from claude_batch_tasks.store.redis.keys import (
    DUE,
    FETCHED,
    FLIGHTS,
    HELD,
    JOBS,
    LATE,
    POSITION,
    SENDING,
    STAGED,
    WAITING,
    account_key,
    attempt_key,
    batch_key,
    call_member,
    deleted_key,
    history_keys,
    index_key,
    job_key,
    member,
    money_key,
    of_job,
    owner_key,
    pace_keys,
    position_field,
    staging_index_key,
    staging_key,
    standing_key,
    turn_field,
    unit_key,
    unit_of,
)
from claude_batch_tasks.store.redis.lua import FORCE, RELEASE, TAKE, THROUGH, WAIT, Script
from claude_batch_tasks.store.redis.survey import Survey
from claude_batch_tasks.wire import batch_requests
from claude_batch_tasks.wire.completeness import MISSING

#: As long as Anthropic keeps the results: later a batch is of no use to anybody.
_CLAIM_TTL = 30 * 86_400

#: Records of batches that are read at a time.
_RECORDS = 500

#: Downloads of a batch whose record is gone, of which something may be there.
_ATTEMPTS = 20

#: Keys that an error names.
KEYS_NAMED = 20

#: Payloads that no job record stands for yet (the caller may have died), and rows of an unpublished attempt.
_UNFINISHED_TTL = 86_400

_encode = msgspec.json.encode
_Item = TypeVar("_Item")


class RedisStore(Survey):
    """A ``store.Store`` on a Redis client.

    Args:
        client: one that does not decode responses.
        where: what error messages call the server; no password.
        cipher: encrypts chunks; default: nothing is encrypted.
    """

    _acquire = Script("acquire")
    _admit = Script("admit")
    _answered = Script("answered")
    _claim = Script("claim")
    _confirm = Script("confirm")
    _create = Script("create")
    _enter = Script("enter")
    _grant = Script("grant")
    _lost = Script("lost")
    _outcome = Script("money", "outcome")
    _put_back = Script("money", "put_back")
    _record = Script("record")
    _replace = Script("replace")
    _reserve = Script("money", "reserve")
    _restore = Script("restore")
    _resume = Script("resume")
    _settle = Script("settle")
    _take = Script("money", "take")
    _update = Script("update")

    def __init__(self, client: redis.Redis, where: str, cipher: Cipher | None = None) -> None:
        super().__init__(client, where)
        self._cipher = cipher or Cipher()

    # -- jobs

    def stage(self, job_id: str, nonce: str, pieces: Iterable[batch_requests.Piece]) -> None:
        # Sealed for where they come to lie when the job exists.
        def packed(piece: batch_requests.Piece) -> bytes:
            return self._pack(piece.body, batch_key(job_id, piece.batch, "body"))

        for piece, body in _one_ahead(packed, pieces):
            ids = self._pack(_encode(piece.custom_ids), batch_key(job_id, piece.batch, "ids"))
            values = (body, ids, len(piece.custom_ids))
            keys = (staging_key(job_id, nonce, piece.batch, name) for name in STAGED)
            self._push(dict(zip(keys, values, strict=True)))

    @answering
    def stage_index(self, job_id: str, nonce: str, parts: Iterable[tuple[int, bytes]]) -> None:
        key = staging_index_key(job_id, nonce)
        for number, entries in parts:
            self._redis.hset(key, str(number), self._cipher.encrypt(entries, index_key(job_id)))
        self._redis.expire(key, _UNFINISHED_TTL)

    @answering
    def discard(self, job_id: str, nonce: str, batches: int) -> None:
        lists = (staging_key(job_id, nonce, batch, name) for batch in range(batches) for name in STAGED)
        self._redis.unlink(staging_index_key(job_id, nonce), *lists)

    @answering
    def create_job(
        self, job_id: str, job: JobRecord, batches: Sequence[BatchRecord], ttl: float, *, staged: bool = True
    ) -> bool:
        lists = STAGED if staged else ()
        job.sealed_by = self._cipher.key_name
        keys = [job_key(job_id), staging_index_key(job_id, job.nonce), index_key(job_id), JOBS]
        records = [whole_record(job)]
        for number, batch in enumerate(batches):
            records.append(whole_record(batch))
            keys.append(batch_key(job_id, number))
            for name in lists:
                keys += [staging_key(job_id, job.nonce, number, name), batch_key(job_id, number, name)]
        made = self._create(keys=keys, args=[_whole(ttl), len(lists), job_id, job.submitted_at, *map(_encode, records)])
        if made < 0:
            raise JobNotFound(
                f"what was staged for job {job_id} has expired: its requests took longer than "
                f"{_UNFINISHED_TTL / 3600:g} hours to hand over; nothing was sent"
            )
        return bool(made)

    @answering
    def job(self, job_id: str) -> JobRecord | None:
        return read_record(JobRecord, self._redis.hgetall(job_key(job_id)))

    @answering
    def update_job(self, job_id: str, *, only: JobState | None = None, **changes: Any) -> bool:
        args = [_encode(only) if only else "", *changed_fields(changes)]
        return bool(self._update(keys=[job_key(job_id)], args=args))

    @answering
    def resume(
        self, job_id: str, changes: Mapping[str, Any], batches: Mapping[int, tuple[bool, int, Mapping[str, Any]]]
    ) -> bool:
        keys = [job_key(job_id), DUE, WAITING]
        args: list[Any] = [_encode(changed_texts(changes))]
        if not batches:  # only its end is to come once more
            keys.append(job_key(job_id))
            args += [member(Unit(job_id)), _encode(changed_texts({"ended_at": None}))]
        for number, (due, position, record) in batches.items():
            keys.append(batch_key(job_id, number))
            args += [
                member(Unit(job_id, number)) if due else "",
                _encode([*changed_texts(record), POSITION, str(position)]),
            ]
        return bool(self._resume(keys=[*keys, *self._keys(job_id)], args=args))

    @answering
    def settle(self, job_id: str, field: str, value: Any) -> Any:
        return msgspec.json.decode(self._settle(keys=[job_key(job_id)], args=[field, _encode(value)]))

    @answering
    def keep(self, job_id: str) -> None:
        self._each_key(job_id, "persist")

    @answering
    def expire(self, job_id: str, ttl: float) -> None:
        self._each_key(job_id, "expire", _whole(ttl))

    @answering
    def delete(self, job_id: str, *, remember: bool = False) -> None:
        if remember:
            self._redis.set(deleted_key(job_id), b"", ex=_UNFINISHED_TTL)
        units = [Unit(job_id), *(Unit(job_id, number) for number, _ in enumerate(self.batch_records(job_id)))]
        self.wake(units[1:])  # and no listing speaks for them any more
        for index in (DUE, WAITING):
            self._redis.zrem(index, *map(member, units))
        self._redis.zrem(JOBS, job_id)
        self._each_key(job_id, "unlink")

    @answering
    def was_deleted(self, job_id: str) -> bool:
        return bool(self._redis.exists(deleted_key(job_id)))

    # -- batches, and the leases of their steps

    @answering
    def batches(self, job_id: str) -> list[BatchRecord]:
        found = self.batch_records(job_id)
        if gone := [batch_key(job_id, number) for number, record in enumerate(found) if record is None]:
            raise ResultsMissing(
                f"the records of {len(gone):,} of the {len(found):,} batches of job {job_id} are gone from the store",
                None,
                gone[:KEYS_NAMED],
            )
        return [record for record in found if record is not None]

    @answering
    def batch_records(self, job_id: str) -> list[BatchRecord | None]:
        job, found = self.job(job_id), list[BatchRecord | None]()
        numbers = range(job.batches if job else 0)
        # Not all at once: as they come from Redis, records take several times the memory.
        for start in range(0, len(numbers), _RECORDS):
            with self._redis.pipeline(transaction=False) as pipe:
                for number in numbers[start : start + _RECORDS]:
                    pipe.hgetall(batch_key(job_id, number))
                found += [read_record(BatchRecord, fields) for fields in pipe.execute()]
        return found

    @answering
    def replace_batch(self, job_id: str, batch: int, record: BatchRecord, batches: int) -> bool:
        hashes = [batch_key(job_id, number) for number in range(batches)]
        keys = [job_key(job_id), batch_key(job_id, batch), DUE, *hashes]
        return bool(self._replace(keys=keys, args=[_encode(whole_record(record)), member(Unit(job_id))]))

    @answering
    def position(self, unit: Unit) -> int:
        key, prefix = unit_key(unit)
        return int(self._redis.hget(key, prefix + POSITION) or -1)

    @answering
    def batch(self, job_id: str, batch: int) -> BatchRecord | None:
        return read_record(BatchRecord, self._redis.hgetall(batch_key(job_id, batch)))

    @answering
    def lane(self, unit: Unit) -> LaneRecord:
        names = LaneRecord.__struct_fields__
        key, prefix = unit_key(unit)
        values = self._redis.hmget(key, [prefix + name for name in names])
        fields = {n.encode(): v for n, v in zip(names, values, strict=True) if v is not None}
        return read_record(LaneRecord, fields) or LaneRecord()

    @answering
    def acquire(self, unit: Unit, position: int, owner: str, ttl: float) -> Lease:
        key, prefix = unit_key(unit)
        keys = [key, standing_key(unit), DUE, LATE, WAITING]
        asked = steady.monotonic_now()
        found = self._acquire(keys=keys, args=[prefix, member(unit), position, owner, ttl])
        state, remaining, now, failures, failure = found
        self._clock.learn(float(now), asked)
        return Lease(state.decode(), remaining / 1000, failures, msgspec.json.decode(failure) if failure else None)

    @answering
    def renew(self, unit: Unit, owner: str, ttl: float) -> bool:
        return bool(self._write(unit, owner, {}, ttl=ttl))

    @answering
    def record(self, unit: Unit, owner: str, **changes: Any) -> bool:
        return bool(self._write(unit, owner, changes))

    @answering
    def end_batch(self, unit: Unit, owner: str, **changes: Any) -> int | None:
        done = self._write(unit, owner, {**changes, "done": True})
        return done - 1 if done else None

    @answering
    def advance(self, unit: Unit, owner: str, position: int, *, through: bool = False, **changes: Any) -> bool:
        # What comes after the last step of a batch is the job's.
        follower = "" if unit.batch is None or unit.lane is not None else member(Unit(unit.job_id))
        due = THROUGH + follower if through else changes.get("due_at") or 0
        return bool(self._write(unit, owner, changes, position=position, due=due))

    @answering
    def wait(
        self,
        unit: Unit,
        owner: str,
        position: int,
        due_at: float,
        *,
        account: str = "",
        flight: Flight | None = None,
        **changes: Any,
    ) -> bool:
        changes["due_at"] = due_at
        # From then on, so that a moment that was reckoned a little wrong here is that far from now there, too.
        seconds = max(due_at - self.now(), 0)
        listed = (account_key(account, FLIGHTS), _encode(flight)) if flight is not None else (WAITING, "")
        return bool(self._write(unit, owner, changes, position=position, due=seconds, wait=WAIT, listed=listed))

    def _write(
        self,
        unit: Unit,
        owner: str,
        changes: dict[str, Any],
        *,
        ttl: float | str = "",
        position: int | str = "",
        due: float | str = "",
        wait: str = "",
        listed: tuple[str, bytes | str] = (WAITING, ""),
    ) -> int:
        key, prefix = unit_key(unit)
        flights, flight = listed
        args = [prefix, member(unit), owner, ttl, position, due, wait, flight, *changed_fields(changes)]
        return int(self._record(keys=[key, DUE, job_key(unit.job_id), WAITING, flights], args=args))

    # -- the index of what waits for a message

    @answering
    def awaited(self, units: Sequence[Unit]) -> list[bool]:
        return [at is not None for at in self._redis.zmscore(DUE, list(map(member, units)))] if units else []

    @answering
    def schedule(self, units: Iterable[Unit], at: float) -> None:
        if members := {member(unit): at for unit in units}:
            self._redis.zadd(DUE, members)

    @answering
    def unschedule(self, unit: Unit) -> None:
        self.wake([unit])  # and no listing speaks for it any more
        for index in (DUE, WAITING):
            self._redis.zrem(index, member(unit))

    @answering
    def overdue(self, before: float, limit: int) -> list[Unit]:
        members = self._redis.zrangebyscore(DUE, "-inf", f"({before}", start=0, num=limit)
        return [unit_of(member.decode()) for member in members]

    @answering
    def lost(self, unit: Unit, after: float) -> Lost | None:
        key, prefix = unit_key(unit)
        keys = [key, standing_key(unit), DUE, LATE, WAITING]
        found = self._lost(keys=keys, args=[prefix, member(unit), after])
        return Lost(int(found[0]), float(found[1])) if found else None

    # -- what a batch gets of the job

    @answering
    def admit(self, job_id: str, batch: int) -> int | None:
        keys = [job_key(job_id), batch_key(job_id, batch), DUE]
        admitted = self._admit(keys=keys, args=[member(Unit(job_id))])
        return None if admitted is None else int(admitted)

    @answering
    def grant(self, job_id: str, batch: int, wanted: int, limit: int) -> int:
        return int(self._grant(keys=[job_key(job_id), batch_key(job_id, batch)], args=[wanted, limit]))

    # -- which batch id is whose

    @answering
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
        act = FORCE if force else member(instead_of) if instead_of else TAKE
        return self._own(act, unit, owner, batch_id, changes)

    @answering
    def release(self, unit: Unit, owner: str, batch_id: str, /, **changes: Any) -> bool:
        return self._own(RELEASE, unit, owner, batch_id, changes) is not None

    def _own(self, act: str, unit: Unit, owner: str, batch_id: str, changes: dict[str, Any]) -> Unit | None:
        key, _ = unit_key(unit)
        args = [act, owner, member(unit), _CLAIM_TTL, *changed_fields(changes)]
        found = self._claim(keys=[key, owner_key(batch_id)], args=args)
        return unit_of(found.decode()) if found else None

    @answering
    def holder(self, batch_id: str) -> Unit | None:
        value = self._redis.get(owner_key(batch_id))
        return unit_of(value.decode()) if value else None

    # -- payloads

    @answering
    def bodies(self, job_id: str, batch: int) -> Iterator[bytes]:
        yield from self._pieces(job_id, batch_key(job_id, batch, "body"))

    @answering
    def custom_ids(self, job_id: str, batch: int) -> Iterator[list[str]]:
        for piece in self._pieces(job_id, batch_key(job_id, batch, "ids")):
            yield msgspec.json.decode(piece, type=list[str])

    @answering
    def index_part(self, job_id: str, part: int, *, batch: int | None = None, attempt: int | None = None) -> bytes:
        key = index_key(job_id) if batch is None else attempt_key(job_id, batch, "index", attempt)
        return self._cipher.decrypt(self._redis.hget(key, str(part)) or b"", key)

    @answering
    def custom_id(self, job_id: str, batch: int, place: int) -> str:
        piece, at = self._piece_with(job_id, batch, "ids", place)
        return msgspec.json.decode(piece, type=list[str])[at]

    @answering
    def piece_of(self, job_id: str, batch: int, place: int) -> tuple[int, bytes]:
        piece, at = self._piece_with(job_id, batch, "body", place)
        return place - at, piece

    def write_results(self, job_id: str, batch: int, attempt: int, pieces: Iterable[bytes], *, copy: str = "") -> None:
        key = attempt_key(job_id, batch, "rows", attempt)
        try:
            for _, piece in _one_ahead(lambda piece: self._pack(piece, key), pieces):
                self._push({key + copy: piece})
        except BaseException:
            with suppress(StoreUnavailable):  # then it expires
                self.discard_results(job_id, batch, attempt, copy=copy)
            raise

    @answering
    def discard_results(self, job_id: str, batch: int, attempt: int, *, copy: str = "") -> None:
        self._redis.unlink(attempt_key(job_id, batch, "rows", attempt) + copy)

    @answering
    def restore_results(
        self,
        job_id: str,
        batch: int,
        attempt: int,
        copy: str,
        *,
        pieces: bytes,
        eligible_places: bytes,
        index: Iterable[tuple[int, bytes]] = (),
    ) -> bool:
        keys = [attempt_key(job_id, batch, name, attempt) for name in FETCHED]
        args: list[Any] = [pieces, eligible_places]
        for number, part in index:
            args += [str(number), self._cipher.encrypt(part, keys[3])]
        return bool(self._restore(keys=[job_key(job_id), keys[0] + copy, *keys], args=args))

    @answering
    def missing_keys(self, job_id: str, batch: int | None, names: Iterable[str]) -> list[str]:
        keys = [batch_key(job_id, batch, name) if batch is not None else of_job(job_id, name) for name in names]
        with self._redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.exists(key)
            return [key for key, there in zip(keys, pipe.execute(), strict=True) if not there]

    @answering
    def publish(
        self,
        unit: Unit,
        owner: str,
        attempt: int,
        /,
        *,
        pieces: bytes,
        eligible_places: bytes,
        index: Iterable[tuple[int, bytes]] = (),
        keep: Iterable[int] = (),
        **changes: Any,
    ) -> bool:
        keys = [attempt_key(unit.job_id, unit.batch, name, attempt) for name in FETCHED]
        # Persist first: an attempt that is published must never expire, one that is not may stay a little longer.
        self._redis.persist(keys[0])
        for key, value in zip(keys[1:3], (pieces, eligible_places), strict=True):
            self._redis.set(key, value)
        if parts := {str(number): self._cipher.encrypt(part, keys[3]) for number, part in index}:
            self._redis.hset(keys[3], mapping=parts)
        if self.record(unit, owner, published=attempt, **changes):
            for earlier in set(range(1, attempt)).difference(keep):
                self.discard_results(unit.job_id, unit.batch or 0, earlier)
            self._end_with_job(unit.job_id, *keys)
            return True
        self._redis.unlink(*keys)
        return False

    @answering
    def results(self, job_id: str, batch: int, attempt: int) -> Iterator[bytes]:
        key = attempt_key(job_id, batch, "rows", attempt)
        if self._redis.exists(key):
            yield from self._pieces(job_id, key)
        elif not self._redis.exists(attempt_key(job_id, batch, "pieces", attempt)):
            raise self._gone(job_id, key)

    @answering
    def pieces(self, job_id: str, batch: int, attempt: int, places: Iterable[int]) -> dict[int, int]:
        key, places = attempt_key(job_id, batch, "pieces", attempt), list(places)
        if len(places) > _RECORDS:
            whole = self._redis.get(key) or b""
            found = [whole[4 * place : 4 * place + 4] for place in places]
        else:
            with self._redis.pipeline(transaction=False) as pipe:
                for place in places:
                    pipe.getrange(key, 4 * place, 4 * place + 3)
                found = pipe.execute()
        numbers = (int.from_bytes(number, sys.byteorder) if number else MISSING for number in found)
        return {place: number for place, number in zip(places, numbers, strict=True) if number != MISSING}

    @answering
    def piece_of_results(self, job_id: str, batch: int, attempt: int, number: int) -> bytes:
        key = attempt_key(job_id, batch, "rows", attempt)
        piece = self._redis.lindex(key, number)
        return self._unpack(piece, key) if piece is not None else b""

    @answering
    def eligible(self, job_id: str, batch: int, attempt: int) -> bytes:
        return self._redis.get(attempt_key(job_id, batch, "eligible", attempt)) or b""

    # -- money

    @answering
    def reserve(self, unit: Unit, turn: int, least: int, most: int, limit: int) -> Any:
        keys = self._money(unit)
        answer = self._reserve(keys=keys, args=[turn_field(unit, turn), "", least, most, limit]).decode()
        self._end_with_job(unit.job_id, keys[0])
        return answer

    @answering
    def settle_cost(self, unit: Unit, turn: int, spent: int) -> None:
        self._reserve(keys=self._money(unit), args=[turn_field(unit, turn), spent])

    def _money(self, unit: Unit) -> list[str]:
        return [money_key(unit.job_id), job_key(unit.job_id)]

    # -- the Messages API

    @answering
    def enter(self, job_id: str, batch: int, places: Iterable[int]) -> None:
        keys = [batch_key(job_id, batch, name) for name in ("to_send", "sent", "outcomes")]
        members = map(position_field, places)
        while some := list(islice(members, _RECORDS)):
            self._enter(keys=keys, args=some)
        self._end_with_job(job_id, keys[0])

    @answering
    def to_send(self, job_id: str, batch: int, limit: int) -> tuple[list[int], float | None]:
        key = batch_key(job_id, batch, "to_send")
        seconds, microseconds = self._redis.time()
        now = seconds + microseconds / 1e6
        # Neighbours, which are in the same piece, from anywhere: others ask as well, and the first may have to wait.
        # The first and the last are as likely among them as any.
        first = random.randrange(1 - limit, max(self._redis.zcount(key, "-inf", now), 1))
        found = self._redis.zrangebyscore(key, "-inf", now, start=max(first, 0), num=limit + min(first, 0))
        if found:
            return [int(place) for place in found], 0.0
        soonest = self._redis.zrange(key, 0, 0, withscores=True)
        return [], max(soonest[0][1] - now, 0.0) if soonest else None

    @answering
    def under_way(self, job_id: str, batch: int) -> int:
        to_send, sent = (batch_key(job_id, batch, name) for name in ("to_send", "sent"))
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.zcard(to_send)
            pipe.hlen(sent)
            return int(sum(pipe.execute()))

    @answering
    def take(
        self,
        unit: Unit,
        owner: str,
        place: int,
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
                *(position_field(place), unit.lane or 0, call_member(unit, place), pace, need.tokens),
                *("" if n is None else n for n in (need.least, need.most)),
                *(ttl, cap),
                *("" if n is None else n for n in (limit, total)),
                owner,
            ],
        )
        return Taken(state.decode(), milliseconds / 1000, mark.decode())

    @answering
    def confirm(self, unit: Unit, owner: str, place: int, ttl: float) -> bool:
        key, prefix = unit_key(unit)
        args = [prefix, member(unit), owner, ttl, position_field(place), unit.lane or 0]
        return bool(self._confirm(keys=[key, batch_key(unit.job_id, unit.batch, "sent"), DUE], args=args))

    @answering
    def sending(self, unit: Unit, paces: Mapping[int, str], ttl: float) -> None:
        seconds, _ = self._redis.time()
        with self._redis.pipeline(transaction=False) as pipe:
            for place, pace in paces.items():
                pipe.zadd(pace_keys(pace)[1], {call_member(unit, place): seconds + ttl}, xx=True)
            pipe.execute()

    @answering
    def left_behind(self, unit: Unit) -> list[int]:
        sent = self._redis.hgetall(batch_key(unit.job_id, unit.batch, "sent"))
        return [int(place) for place, lane in sent.items() if lane.split(b" ")[0] == str(unit.lane or 0).encode()]

    @answering
    def answered(
        self,
        unit: Unit,
        place: int,
        pace: str,
        mark: str,
        *,
        limits: Mapping[str, tuple[int, int]],
        refused: bool,
        hold: float | None,
        cap: int,
        output: int | None = None,
    ) -> None:
        args: list[Any] = [call_member(unit, place), pace, mark, int(refused), "" if hold is None else hold, cap]
        args.append("" if output is None else output)
        for name, (a_minute, left) in limits.items():
            args += [name, a_minute, left]
        self._answered(keys=[*pace_keys(pace), HELD], args=args)

    @answering
    def refusals(self, unit: Unit, place: int) -> int:
        return int(self._redis.hget(batch_key(unit.job_id, unit.batch, "refused"), position_field(place)) or 0)

    @answering
    def put_back(self, unit: Unit, place: int, seconds: float, limit: int) -> int:
        keys = [batch_key(unit.job_id, unit.batch, name) for name in ("sent", "to_send", "refused")]
        keys += [money_key(unit.job_id), job_key(unit.job_id)]
        return int(self._put_back(keys=keys, args=[position_field(place), seconds, limit]))

    @answering
    def save_outcome(
        self, unit: Unit, place: int, outcome: bytes, *, spent: int | None = None, given_up: bool = False
    ) -> bool:
        names = ("outcomes", "sent", "to_send", "given_up")
        outcomes, sent, to_send, lost = (batch_key(unit.job_id, unit.batch, name) for name in names)
        keys = [outcomes, job_key(unit.job_id), sent, money_key(unit.job_id), to_send, lost]
        keys.append(batch_key(unit.job_id, unit.batch))
        packed = self._pack(outcome, f"{outcomes}:{place}")
        args = [position_field(place), packed, "" if spent is None else spent, int(given_up)]
        return bool(self._outcome(keys=keys, args=args))

    @answering
    def outcomes(self, job_id: str, batch: int) -> Iterator[tuple[int, bytes]]:
        key = batch_key(job_id, batch, "outcomes")
        for place, outcome in self._redis.hscan_iter(key, count=50):
            yield int(place), self._unpack(outcome, f"{key}:{int(place)}")

    @answering
    def count_outcomes(self, job_id: str, batch: int) -> int:
        return int(self._redis.hlen(batch_key(job_id, batch, "outcomes")))

    @answering
    def accounted(self, job_id: str, batch: int) -> set[int]:
        to_send, sent, outcomes = (batch_key(job_id, batch, name) for name in ("to_send", "sent", "outcomes"))
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.zrange(to_send, 0, -1)
            pipe.hkeys(sent)
            pipe.hkeys(outcomes)
            return {int(place) for found in pipe.execute() for place in found}

    @answering
    def outcomes_of(self, job_id: str, batch: int, places: Sequence[int]) -> dict[int, bytes]:
        key, found = batch_key(job_id, batch, "outcomes"), dict[int, bytes]()
        for start in range(0, len(places), _RECORDS):
            some = places[start : start + _RECORDS]
            values = self._redis.hmget(key, list(map(position_field, some)))
            found |= {
                place: self._unpack(value, f"{key}:{place}")
                for place, value in zip(some, values, strict=True)
                if value is not None
            }
        return found

    @answering
    def drop(self, job_id: str, batch: int) -> int:
        key = batch_key(job_id, batch, "to_send")
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.zcard(key)
            pipe.unlink(key)
            return int(pipe.execute()[0])

    # -- which outcomes were announced

    @answering
    def announced(self, job_id: str, batch: int) -> bytes:
        return self._redis.get(batch_key(job_id, batch, "announced")) or b""

    @answering
    def announce(self, job_id: str, batch: int, places: Iterable[int]) -> None:
        key = batch_key(job_id, batch, "announced")
        with self._redis.pipeline(transaction=False) as pipe:
            for place in places:
                pipe.setbit(key, place, 1)
            pipe.execute()
        self._end_with_job(job_id, key)

    # -- inside

    @answering
    def _push(self, values: dict[str, bytes | int]) -> None:
        """Append to lists. By itself: what the iterators of those who call it raise is not the store's."""
        with self._redis.pipeline(transaction=True) as pipe:
            for key, value in values.items():
                pipe.rpush(key, value)
                pipe.expire(key, _UNFINISHED_TTL)
            pipe.execute()

    def _end_with_job(self, job_id: str, *keys: str) -> None:
        """A job that is over (revoked, most likely) expires, and what is still written with it."""
        if (left := self._redis.pttl(job_key(job_id))) > 0:
            for key in keys:
                self._redis.pexpire(key, left)

    def _piece_with(self, job_id: str, batch: int, name: str, place: int) -> tuple[bytes, int]:
        """The piece of a staged list that the request of that position is in, and where it is in there."""
        starts = [0]
        sizes = self._redis.lrange(batch_key(job_id, batch, "sizes"), 0, -1)
        # They follow from the custom_ids, should they be gone.
        for size in sizes or map(len, self.custom_ids(job_id, batch)):
            starts.append(starts[-1] + int(size))
        number = bisect_right(starts, place) - 1
        return self._piece(job_id, batch_key(job_id, batch, name), number), place - starts[number]

    def _pieces(self, job_id: str, key: str) -> Iterator[bytes]:
        # What was staged has one piece at least.
        for number in range(self._redis.llen(key) or 1):
            yield self._piece(job_id, key, number)

    def _piece(self, job_id: str, key: str, number: int) -> bytes:
        if (piece := self._redis.lindex(key, number)) is None:
            raise self._gone(job_id, key)
        return self._unpack(piece, key)

    def _gone(self, job_id: str, key: str) -> JobNotFound | ResultsMissing:
        """What it means that a key is not there which should be."""
        if self.job(job_id) is None:
            return JobNotFound(describe_missing_job(job_id))
        return ResultsMissing(f"{key} is gone from the store", None, [key])

    def _pack(self, data: bytes, place: str) -> bytes:
        return self._cipher.encrypt(zstandard.compress(data, 1), place)

    def _unpack(self, piece: bytes, place: str) -> bytes:
        return zstandard.decompress(self._cipher.decrypt(piece, place))

    def _keys(self, job_id: str) -> Iterator[str]:
        yield job_key(job_id)
        yield index_key(job_id)
        yield money_key(job_id)
        yield from history_keys(job_id)
        for number, record in enumerate(self.batch_records(job_id)):
            yield batch_key(job_id, number)
            for name in (*STAGED, "outcomes", "lanes", *SENDING):
                yield batch_key(job_id, number, name)
            for attempt in range(1, (_ATTEMPTS if record is None else record.attempt) + 1):
                for name in FETCHED:
                    yield attempt_key(job_id, number, name, attempt)

    def _each_key(self, job_id: str, command: str, *args: Any) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            for key in self._keys(job_id):
                getattr(pipe, command)(key, *args)
            pipe.execute()


@functools.lru_cache(maxsize=32)
def _open(url: str, keys: tuple[str, ...], prefix: str, pid: int) -> RedisStore:
    client = redis_urls.connect_redis(url, transport.TIMEOUTS, transport.distrustful, client_class(prefix))
    return RedisStore(client, redis_urls.redis_address(url), Cipher(keys))


def open_store_at(url: str, keys: tuple[str, ...] = (), prefix: str = "") -> RedisStore:
    """The store behind a Redis URL, one per process: a connection made before a fork is not used after it."""
    return _open(url, keys, prefix, os.getpid())


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
