"""The store on Redis (or a server that speaks its protocol), the default.

All keys of a job carry its id as hash tag. Record fields are JSON; pieces are zstandard frames of about a megabyte
of plain bytes, one list element each, sealed where there is a key. The atomic steps are the Lua files beside this
module.
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
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import redis
import zstandard

from claude_batch_tasks import rules, steady, transport
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
from claude_batch_tasks.store.flights import (
    DUE,
    HELD,
    WAITING,
    answering,
    flights_key,
    member,
    pace_keys,
    unit_of,
)
from claude_batch_tasks.store.jobs import JOBS, history_keys
from claude_batch_tasks.store.prefixed import client_class
from claude_batch_tasks.store.schema import PREFIX
from claude_batch_tasks.store.survey import Survey
from claude_batch_tasks.wire import batch_requests
from claude_batch_tasks.wire.completeness import MISSING

#: By how many seconds messages were late lately. Where queues are long, copies of what is merely late make them longer.
_LATE = f"{PREFIX}:late"

#: As long as Anthropic keeps the results: later a batch is of no use to anybody.
_CLAIM_TTL = 30 * 86_400

#: The lists a batch is staged as.
_STAGED = ("body", "ids", "sizes")

#: What one download leaves: the rows, in which piece each is, and which deserve another chance.
_FETCHED = ("rows", "pieces", "eligible", "index")

#: What sending requests through the Messages API leaves: those that wait, were sent, how often each was refused, whose
#: answers count as lost.
_SENDING = ("to_send", "sent", "refused", "announced", "given_up")

#: Digits of a request's position where positions are sorted as texts.
_DIGITS = 7

#: Records of batches that are read at a time.
_RECORDS = 500

#: Downloads of a batch whose record is gone, of which something may be there.
_ATTEMPTS = 20

#: Keys that an error names.
KEYS_NAMED = 20

#: Payloads that no job record stands for yet (the caller may have died), and rows of an unpublished attempt.
_UNFINISHED_TTL = 86_400

_encode = msgspec.json.encode
#: Made here, where there is one thread: msgspec (0.22) learns of a type when that is first decoded, and two threads
#: that do so at once end the process.
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {
    cls: msgspec.json.Decoder(cls) for cls in (JobRecord, BatchRecord, LaneRecord)
}
#: Fields without which a record is none.
_REQUIRED: dict[type, frozenset[str]] = {
    cls: frozenset(field.name for field in msgspec.structs.fields(cls) if field.required) for cls in _DECODERS
}
_Record = TypeVar("_Record", JobRecord, BatchRecord, LaneRecord)
_Item = TypeVar("_Item")


class RedisStore(Survey):
    """A ``store.Store`` on a Redis client.

    Args:
        client: one that does not decode responses.
        where: what error messages call the server; no password.
        cipher: encrypts chunks; default: nothing is encrypted.
    """

    def __init__(self, client: redis.Redis, where: str, cipher: Cipher | None = None) -> None:
        super().__init__(client, where)
        self._cipher = cipher or Cipher()
        self._acquire = self._script("acquire")
        self._admit = self._script("admit")
        self._answered = self._script("answered")
        self._claim = self._script("claim")
        self._confirm = self._script("confirm")
        self._create = self._script("create")
        self._enter = self._script("enter")
        self._grant = self._script("grant")
        self._lost = self._script("lost")
        self._outcome = self._script("money", "outcome")
        self._put_back = self._script("money", "put_back")
        self._record = self._script("record")
        self._replace = self._script("replace")
        self._reserve = self._script("money", "reserve")
        self._restore = self._script("restore")
        self._resume = self._script("resume")
        self._settle = self._script("settle")
        self._take = self._script("money", "take")
        self._update = self._script("update")

    def _script(self, *names: str) -> Any:
        folder = Path(__file__).parent
        return self._redis.register_script("".join((folder / f"{name}.lua").read_text() for name in names))

    # -- jobs

    def stage(self, job_id: str, nonce: str, pieces: Iterable[batch_requests.Piece]) -> None:
        # Sealed for where they come to lie when the job exists.
        def packed(piece: batch_requests.Piece) -> bytes:
            return self._pack(piece.body, _key(job_id, "batch", piece.batch, "body"))

        for piece, body in _one_ahead(packed, pieces):
            ids = self._pack(_encode(piece.custom_ids), _key(job_id, "batch", piece.batch, "ids"))
            values = (body, ids, len(piece.custom_ids))
            keys = (_key(job_id, "staging", nonce, piece.batch, name) for name in _STAGED)
            self._push(dict(zip(keys, values, strict=True)))

    @answering
    def stage_index(self, job_id: str, nonce: str, parts: Iterable[tuple[int, bytes]]) -> None:
        key = _key(job_id, "staging", nonce, "index")
        for number, entries in parts:
            self._redis.hset(key, str(number), self._cipher.encrypt(entries, _key(job_id, "index")))
        self._redis.expire(key, _UNFINISHED_TTL)

    @answering
    def discard(self, job_id: str, nonce: str, batches: int) -> None:
        lists = (_key(job_id, "staging", nonce, batch, name) for batch in range(batches) for name in _STAGED)
        self._redis.unlink(_key(job_id, "staging", nonce, "index"), *lists)

    @answering
    def create_job(
        self, job_id: str, job: JobRecord, batches: Sequence[BatchRecord], ttl: float, *, staged: bool = True
    ) -> bool:
        lists = _STAGED if staged else ()
        job.sealed_by = self._cipher.key_name
        keys = [_key(job_id, "job"), _key(job_id, "staging", job.nonce, "index"), _key(job_id, "index"), JOBS]
        records = [_pairs(_fields(job))]
        for number, batch in enumerate(batches):
            records.append(_pairs(_fields(batch)))
            keys.append(_key(job_id, "batch", number))
            for name in lists:
                keys += [_key(job_id, "staging", job.nonce, number, name), _key(job_id, "batch", number, name)]
        made = self._create(keys=keys, args=[_whole(ttl), len(lists), job_id, job.submitted_at, *map(_encode, records)])
        if made < 0:
            raise JobNotFound(
                f"what was staged for job {job_id} has expired: its requests took longer than "
                f"{_UNFINISHED_TTL / 3600:g} hours to hand over; nothing was sent"
            )
        return bool(made)

    @answering
    def job(self, job_id: str) -> JobRecord | None:
        return _load(JobRecord, self._redis.hgetall(_key(job_id, "job")))

    @answering
    def update_job(self, job_id: str, *, only: JobState | None = None, **changes: Any) -> bool:
        args = [_encode(only) if only else "", *_changed(changes)]
        return bool(self._update(keys=[_key(job_id, "job")], args=args))

    @answering
    def resume(
        self, job_id: str, changes: Mapping[str, Any], batches: Mapping[int, tuple[bool, int, Mapping[str, Any]]]
    ) -> bool:
        keys = [_key(job_id, "job"), DUE, WAITING]
        args: list[Any] = [_encode(_texts(changes))]
        if not batches:  # only its end is to come once more
            keys.append(_key(job_id, "job"))
            args += [member(Unit(job_id)), _encode(_texts({"ended_at": None}))]
        for number, (due, position, record) in batches.items():
            keys.append(_key(job_id, "batch", number))
            args += [member(Unit(job_id, number)) if due else "", _encode([*_texts(record), "position", str(position)])]
        return bool(self._resume(keys=[*keys, *self._keys(job_id)], args=args))

    @answering
    def settle(self, job_id: str, field: str, value: Any) -> Any:
        return msgspec.json.decode(self._settle(keys=[_key(job_id, "job")], args=[field, _encode(value)]))

    @answering
    def keep(self, job_id: str) -> None:
        self._each_key(job_id, "persist")

    @answering
    def expire(self, job_id: str, ttl: float) -> None:
        self._each_key(job_id, "expire", _whole(ttl))

    @answering
    def delete(self, job_id: str, *, remember: bool = False) -> None:
        if remember:
            self._redis.set(f"{PREFIX}:deleted:{job_id}", b"", ex=_UNFINISHED_TTL)
        units = [Unit(job_id), *(Unit(job_id, number) for number, _ in enumerate(self.batch_records(job_id)))]
        self.wake(units[1:])  # and no listing speaks for them any more
        for index in (DUE, WAITING):
            self._redis.zrem(index, *map(member, units))
        self._redis.zrem(JOBS, job_id)
        self._each_key(job_id, "unlink")

    @answering
    def was_deleted(self, job_id: str) -> bool:
        return bool(self._redis.exists(f"{PREFIX}:deleted:{job_id}"))

    # -- batches, and the leases of their steps

    @answering
    def batches(self, job_id: str) -> list[BatchRecord]:
        found = self.batch_records(job_id)
        if gone := [_key(job_id, "batch", number) for number, record in enumerate(found) if record is None]:
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
                    pipe.hgetall(_key(job_id, "batch", number))
                found += [_load(BatchRecord, fields) for fields in pipe.execute()]
        return found

    @answering
    def replace_batch(self, job_id: str, batch: int, record: BatchRecord, batches: int) -> bool:
        hashes = [_key(job_id, "batch", number) for number in range(batches)]
        keys = [_key(job_id, "job"), _key(job_id, "batch", batch), DUE, *hashes]
        return bool(self._replace(keys=keys, args=[_encode(_pairs(_fields(record))), member(Unit(job_id))]))

    @answering
    def position(self, unit: Unit) -> int:
        key, prefix = _unit(unit)
        return int(self._redis.hget(key, f"{prefix}position") or -1)

    @answering
    def batch(self, job_id: str, batch: int) -> BatchRecord | None:
        return _load(BatchRecord, self._redis.hgetall(_key(job_id, "batch", batch)))

    @answering
    def lane(self, unit: Unit) -> LaneRecord:
        names = LaneRecord.__struct_fields__
        key, prefix = _unit(unit)
        values = self._redis.hmget(key, [prefix + name for name in names])
        fields = {n.encode(): v for n, v in zip(names, values, strict=True) if v is not None}
        return _load(LaneRecord, fields) or LaneRecord()

    @answering
    def acquire(self, unit: Unit, position: int, owner: str, ttl: float) -> Lease:
        key, prefix = _unit(unit)
        keys = [key, _standing(unit), DUE, _LATE, WAITING]
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
        due = f"through:{follower}" if through else changes.get("due_at") or 0
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
        listed = (flights_key(account), _encode(flight)) if flight is not None else (WAITING, "")
        return bool(self._write(unit, owner, changes, position=position, due=seconds, wait="wait", listed=listed))

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
        key, prefix = _unit(unit)
        flights, flight = listed
        args = [prefix, member(unit), owner, ttl, position, due, wait, flight, *_changed(changes)]
        return int(self._record(keys=[key, DUE, _key(unit.job_id, "job"), WAITING, flights], args=args))

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
        key, prefix = _unit(unit)
        keys = [key, _standing(unit), DUE, _LATE, WAITING]
        found = self._lost(keys=keys, args=[prefix, member(unit), after])
        return Lost(int(found[0]), float(found[1])) if found else None

    # -- what a batch gets of the job

    @answering
    def admit(self, job_id: str, batch: int) -> int | None:
        keys = [_key(job_id, "job"), _key(job_id, "batch", batch), DUE]
        admitted = self._admit(keys=keys, args=[member(Unit(job_id))])
        return None if admitted is None else int(admitted)

    @answering
    def grant(self, job_id: str, batch: int, wanted: int, limit: int) -> int:
        return int(self._grant(keys=[_key(job_id, "job"), _key(job_id, "batch", batch)], args=[wanted, limit]))

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
        act = "force" if force else member(instead_of) if instead_of else "take"
        return self._own(act, unit, owner, batch_id, changes)

    @answering
    def release(self, unit: Unit, owner: str, batch_id: str, /, **changes: Any) -> bool:
        return self._own("release", unit, owner, batch_id, changes) is not None

    def _own(self, act: str, unit: Unit, owner: str, batch_id: str, changes: dict[str, Any]) -> Unit | None:
        key, _ = _unit(unit)
        args = [act, owner, member(unit), _CLAIM_TTL, *_changed(changes)]
        found = self._claim(keys=[key, f"{PREFIX}:owner:{batch_id}"], args=args)
        return unit_of(found.decode()) if found else None

    @answering
    def holder(self, batch_id: str) -> Unit | None:
        value = self._redis.get(f"{PREFIX}:owner:{batch_id}")
        return unit_of(value.decode()) if value else None

    # -- payloads

    @answering
    def bodies(self, job_id: str, batch: int) -> Iterator[bytes]:
        yield from self._pieces(job_id, _key(job_id, "batch", batch, "body"))

    @answering
    def custom_ids(self, job_id: str, batch: int) -> Iterator[list[str]]:
        for piece in self._pieces(job_id, _key(job_id, "batch", batch, "ids")):
            yield msgspec.json.decode(piece, type=list[str])

    @answering
    def index_part(self, job_id: str, part: int, *, batch: int | None = None, attempt: int | None = None) -> bytes:
        key = _key(job_id, "index") if batch is None else _key(job_id, "batch", batch, f"index:{attempt}")
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
        key = _key(job_id, "batch", batch, f"rows:{attempt}")
        try:
            for _, piece in _one_ahead(lambda piece: self._pack(piece, key), pieces):
                self._push({key + copy: piece})
        except BaseException:
            with suppress(StoreUnavailable):  # then it expires
                self.discard_results(job_id, batch, attempt, copy=copy)
            raise

    @answering
    def discard_results(self, job_id: str, batch: int, attempt: int, *, copy: str = "") -> None:
        self._redis.unlink(_key(job_id, "batch", batch, f"rows:{attempt}") + copy)

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
        keys = [_key(job_id, "batch", batch, f"{name}:{attempt}") for name in _FETCHED]
        args: list[Any] = [pieces, eligible_places]
        for number, part in index:
            args += [str(number), self._cipher.encrypt(part, keys[3])]
        return bool(self._restore(keys=[_key(job_id, "job"), keys[0] + copy, *keys], args=args))

    @answering
    def missing_keys(self, job_id: str, batch: int | None, names: Iterable[str]) -> list[str]:
        keys = [_key(job_id, *(("batch", batch) if batch is not None else ()), name) for name in names]
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
        keys = [_key(unit.job_id, "batch", unit.batch, f"{name}:{attempt}") for name in _FETCHED]
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
        key = _key(job_id, "batch", batch, f"rows:{attempt}")
        if self._redis.exists(key):
            yield from self._pieces(job_id, key)
        elif not self._redis.exists(_key(job_id, "batch", batch, f"pieces:{attempt}")):
            raise self._gone(job_id, key)

    @answering
    def pieces(self, job_id: str, batch: int, attempt: int, places: Iterable[int]) -> dict[int, int]:
        key, places = _key(job_id, "batch", batch, f"pieces:{attempt}"), list(places)
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
        key = _key(job_id, "batch", batch, f"rows:{attempt}")
        piece = self._redis.lindex(key, number)
        return self._unpack(piece, key) if piece is not None else b""

    @answering
    def eligible(self, job_id: str, batch: int, attempt: int) -> bytes:
        return self._redis.get(_key(job_id, "batch", batch, f"eligible:{attempt}")) or b""

    # -- money

    @answering
    def reserve(self, unit: Unit, turn: int, least: int, most: int, limit: int) -> Any:
        keys = self._money(unit)
        answer = self._reserve(keys=keys, args=[f"{unit.batch}:{turn}", "", least, most, limit]).decode()
        self._end_with_job(unit.job_id, keys[0])
        return answer

    @answering
    def settle_cost(self, unit: Unit, turn: int, spent: int) -> None:
        self._reserve(keys=self._money(unit), args=[f"{unit.batch}:{turn}", spent])

    def _money(self, unit: Unit) -> list[str]:
        return [_key(unit.job_id, "money"), _key(unit.job_id, "job")]

    # -- the Messages API

    @answering
    def enter(self, job_id: str, batch: int, places: Iterable[int]) -> None:
        keys = [_key(job_id, "batch", batch, name) for name in ("to_send", "sent", "outcomes")]
        members = map(_place, places)
        while some := list(islice(members, _RECORDS)):
            self._enter(keys=keys, args=some)
        self._end_with_job(job_id, keys[0])

    @answering
    def to_send(self, job_id: str, batch: int, limit: int) -> tuple[list[int], float | None]:
        key = _key(job_id, "batch", batch, "to_send")
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
        to_send, sent = (_key(job_id, "batch", batch, name) for name in ("to_send", "sent"))
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
        keys = [_key(unit.job_id, "batch", unit.batch, name) for name in names]
        state, milliseconds, mark = self._take(
            keys=[*keys, _key(unit.job_id, "job"), _key(unit.job_id, "money"), hash_, calls, HELD, _unit(unit)[0]],
            args=[
                *(_place(place), unit.lane or 0, _call(unit, place), pace, need.tokens),
                *("" if n is None else n for n in (need.least, need.most)),
                *(ttl, cap, rules.FIRST_IN_FLIGHT),
                *("" if n is None else n for n in (limit, total)),
                owner,
            ],
        )
        return Taken(state.decode(), milliseconds / 1000, mark.decode())

    @answering
    def confirm(self, unit: Unit, owner: str, place: int, ttl: float) -> bool:
        key, prefix = _unit(unit)
        args = [prefix, member(unit), owner, ttl, _place(place), unit.lane or 0]
        return bool(self._confirm(keys=[key, _key(unit.job_id, "batch", unit.batch, "sent"), DUE], args=args))

    @answering
    def sending(self, unit: Unit, paces: Mapping[int, str], ttl: float) -> None:
        seconds, _ = self._redis.time()
        with self._redis.pipeline(transaction=False) as pipe:
            for place, pace in paces.items():
                pipe.zadd(pace_keys(pace)[1], {_call(unit, place): seconds + ttl}, xx=True)
            pipe.execute()

    @answering
    def left_behind(self, unit: Unit) -> list[int]:
        sent = self._redis.hgetall(_key(unit.job_id, "batch", unit.batch, "sent"))
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
        args: list[Any] = [_call(unit, place), pace, mark, int(refused), "" if hold is None else hold, cap]
        args += [rules.FIRST_IN_FLIGHT, "" if output is None else output]
        for name, (a_minute, left) in limits.items():
            args += [name, a_minute, left]
        self._answered(keys=[*pace_keys(pace), HELD], args=args)

    @answering
    def refusals(self, unit: Unit, place: int) -> int:
        return int(self._redis.hget(_key(unit.job_id, "batch", unit.batch, "refused"), _place(place)) or 0)

    @answering
    def put_back(self, unit: Unit, place: int, seconds: float, limit: int) -> int:
        keys = [_key(unit.job_id, "batch", unit.batch, name) for name in ("sent", "to_send", "refused")]
        keys += [_key(unit.job_id, "money"), _key(unit.job_id, "job")]
        return int(self._put_back(keys=keys, args=[_place(place), seconds, limit]))

    @answering
    def save_outcome(
        self, unit: Unit, place: int, outcome: bytes, *, spent: int | None = None, given_up: bool = False
    ) -> bool:
        names = ("outcomes", "sent", "to_send", "given_up")
        outcomes, sent, to_send, lost = (_key(unit.job_id, "batch", unit.batch, name) for name in names)
        keys = [outcomes, _key(unit.job_id, "job"), sent, _key(unit.job_id, "money"), to_send, lost]
        keys.append(_key(unit.job_id, "batch", unit.batch))
        packed = self._pack(outcome, f"{outcomes}:{place}")
        args = [_place(place), packed, "" if spent is None else spent, int(given_up)]
        return bool(self._outcome(keys=keys, args=args))

    @answering
    def outcomes(self, job_id: str, batch: int) -> Iterator[tuple[int, bytes]]:
        key = _key(job_id, "batch", batch, "outcomes")
        for place, outcome in self._redis.hscan_iter(key, count=50):
            yield int(place), self._unpack(outcome, f"{key}:{int(place)}")

    @answering
    def count_outcomes(self, job_id: str, batch: int) -> int:
        return int(self._redis.hlen(_key(job_id, "batch", batch, "outcomes")))

    @answering
    def accounted(self, job_id: str, batch: int) -> set[int]:
        to_send, sent, outcomes = (_key(job_id, "batch", batch, name) for name in ("to_send", "sent", "outcomes"))
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.zrange(to_send, 0, -1)
            pipe.hkeys(sent)
            pipe.hkeys(outcomes)
            return {int(place) for found in pipe.execute() for place in found}

    @answering
    def outcomes_of(self, job_id: str, batch: int, places: Sequence[int]) -> dict[int, bytes]:
        key, found = _key(job_id, "batch", batch, "outcomes"), dict[int, bytes]()
        for start in range(0, len(places), _RECORDS):
            some = places[start : start + _RECORDS]
            values = self._redis.hmget(key, list(map(_place, some)))
            found |= {
                place: self._unpack(value, f"{key}:{place}")
                for place, value in zip(some, values, strict=True)
                if value is not None
            }
        return found

    @answering
    def drop(self, job_id: str, batch: int) -> int:
        key = _key(job_id, "batch", batch, "to_send")
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.zcard(key)
            pipe.unlink(key)
            return int(pipe.execute()[0])

    # -- which outcomes were announced

    @answering
    def announced(self, job_id: str, batch: int) -> bytes:
        return self._redis.get(_key(job_id, "batch", batch, "announced")) or b""

    @answering
    def announce(self, job_id: str, batch: int, places: Iterable[int]) -> None:
        key = _key(job_id, "batch", batch, "announced")
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
        if (left := self._redis.pttl(_key(job_id, "job"))) > 0:
            for key in keys:
                self._redis.pexpire(key, left)

    def _piece_with(self, job_id: str, batch: int, name: str, place: int) -> tuple[bytes, int]:
        """The piece of a staged list that the request of that position is in, and where it is in there."""
        starts = [0]
        sizes = self._redis.lrange(_key(job_id, "batch", batch, "sizes"), 0, -1)
        # They follow from the custom_ids, should they be gone.
        for size in sizes or map(len, self.custom_ids(job_id, batch)):
            starts.append(starts[-1] + int(size))
        number = bisect_right(starts, place) - 1
        return self._piece(job_id, _key(job_id, "batch", batch, name), number), place - starts[number]

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
        yield _key(job_id, "job")
        yield _key(job_id, "index")
        yield _key(job_id, "money")
        yield from history_keys(job_id)
        for number, record in enumerate(self.batch_records(job_id)):
            yield _key(job_id, "batch", number)
            for name in (*_STAGED, "outcomes", "lanes", *_SENDING):
                yield _key(job_id, "batch", number, name)
            for attempt in range(1, (_ATTEMPTS if record is None else record.attempt) + 1):
                for name in _FETCHED:
                    yield _key(job_id, "batch", number, f"{name}:{attempt}")

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


def _key(job_id: str, *parts: object) -> str:
    return ":".join([f"{PREFIX}:{{{job_id}}}", *map(str, parts)])


def _unit(unit: Unit) -> tuple[str, str]:
    """The hash a unit is kept in, and the prefix of its fields there."""
    if unit.batch is None:
        return _key(unit.job_id, "job"), "lease:"
    if unit.lane is None:
        return _key(unit.job_id, "batch", unit.batch), ""
    return _key(unit.job_id, "batch", unit.batch, "lanes"), f"{unit.lane}:"


def _place(place: int) -> str:
    return str(place).zfill(_DIGITS)


def _call(unit: Unit, place: int) -> str:
    """What the calls in flight call one."""
    return f"{unit.batch}:{place}:{unit.job_id}"


def _standing(unit: Unit) -> str:
    """The hash without which the unit is gone: its own, but a lane's fields come into being with its lease."""
    return _unit(unit)[0] if unit.lane is None else _key(unit.job_id, "job")


def _texts(changes: Mapping[str, Any]) -> list[str]:
    return _pairs({name: _encode(value) for name, value in changes.items()})


def _changed(changes: dict[str, Any]) -> list[Any]:
    return [part for name, value in changes.items() for part in (name, _encode(value))]


def _pairs(fields: dict[str, bytes]) -> list[str]:
    return [part for name, value in fields.items() for part in (name, value.decode())]


def _fields(record: msgspec.Struct) -> dict[str, bytes]:
    return {name: _encode(getattr(record, name)) for name in record.__struct_fields__}


def _load(cls: type[_Record], fields: dict[bytes, bytes]) -> _Record | None:
    known = {name.encode() for name in cls.__struct_fields__}
    values = {name.decode(): msgspec.Raw(value) for name, value in fields.items() if name in known}
    if not _REQUIRED[cls] <= values.keys():
        return None  # gone, or what an earlier release wrote into a hash that had been evicted
    found: _Record = _DECODERS[cls].decode(_encode(values))
    return found


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
