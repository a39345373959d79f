"""The results of a job in Redis, and what became of the calls of its ``on_result``."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.records import DeliveryCounts, Unit
from claude_batch_tasks.store.interface import Leases
from claude_batch_tasks.store.interface.results import Recorded, Runs
from claude_batch_tasks.store.packing import group_chunks, map_one_ahead
from claude_batch_tasks.store.record_encoding import _encode
from claude_batch_tasks.store.redis.chunks import Chunks
from claude_batch_tasks.store.redis.connection import Connection, Part, answering
from claude_batch_tasks.store.redis.keys import FETCHED, attempt_key, batch_key, delivery_keys, job_key, position_field
from claude_batch_tasks.store.redis.scripts import ACTIVE, CALLED, DELIVERED, FAILED, Script
from claude_batch_tasks.wire.completeness import MISSING

#: Positions that are read at a time.
_PAGE = 500

#: Seconds until it is forgotten which requests were to be sent again, where a worker of 0.2.0 ends the job: it does not
#: know that key. Any other has it expire with the job.
_AGAIN_TTL = 90 * 86_400

#: Runs of positions in one call of a script: Lua takes several thousand arguments.
_RUNS = 1000


class RedisResults(Part):
    """``interface.Results`` on a Redis server."""

    _restore = Script("restore")
    _find_request = Script("find_request")

    def __init__(self, connection: Connection, chunks: Chunks, leases: Leases) -> None:
        super().__init__(connection)
        self._chunks = chunks
        self._leases = leases

    def write_rows(self, job_id: str, batch: int, attempt: int, pieces: Iterable[bytes], *, copy: str = "") -> None:
        key, pack = attempt_key(job_id, batch, "rows", attempt), self._connection.packer.pack

        def push(group: list[bytes]) -> None:
            self._chunks.push({key + copy: [pack(piece, key) for piece in group]})

        try:
            deque(map_one_ahead(push, group_chunks(pieces)), maxlen=0)  # runs it to its end
        except BaseException:
            with suppress(StoreUnavailable):  # then it expires
                self.discard_rows(job_id, batch, attempt, copy=copy)
            raise

    @answering
    def discard_rows(self, job_id: str, batch: int, attempt: int, *, copy: str = "") -> None:
        self._redis.unlink(attempt_key(job_id, batch, "rows", attempt) + copy)

    @answering
    def restore_rows(
        self,
        job_id: str,
        batch: int,
        attempt: int,
        copy: str,
        *,
        pieces: bytes,
        eligible_places: bytes,
        again_places: bytes | None = None,
        index: Iterable[tuple[int, bytes]] = (),
    ) -> bool:
        keys = [attempt_key(job_id, batch, name, attempt) for name in FETCHED]
        args: list[Any] = [pieces, eligible_places, again_places or b"", "" if again_places is None else _AGAIN_TTL]
        for number, part in index:
            args += [str(number), self._connection.cipher.encrypt(part, keys[3])]
        return bool(self._restore(keys=[job_key(job_id), keys[0] + copy, *keys], args=args))

    @answering
    def publish_rows(
        self,
        unit: Unit,
        owner: str,
        attempt: int,
        /,
        *,
        pieces: bytes,
        eligible_places: bytes,
        again_places: bytes | None = None,
        index: Iterable[tuple[int, bytes]] = (),
        keep: Iterable[int] = (),
        **changes: Any,
    ) -> bool:
        keys = [attempt_key(unit.job_id, unit.batch, name, attempt) for name in FETCHED]
        # Persist first: an attempt that is published must never expire, one that is not may stay a little longer.
        self._redis.persist(keys[0])
        for key, value in zip(keys[1:3], (pieces, eligible_places), strict=True):
            self._redis.set(key, value)
        if again_places is not None:
            self._redis.set(keys[4], again_places, ex=_AGAIN_TTL)
        if parts := {str(number): self._connection.cipher.encrypt(part, keys[3]) for number, part in index}:
            self._redis.hset(keys[3], mapping=parts)
        if self._leases.write_record(unit, owner, published=attempt, **changes):
            for earlier in set(range(1, attempt)).difference(keep):
                self.discard_rows(unit.job_id, unit.batch or 0, earlier)
            self._connection.expire_with_job(unit.job_id, *keys)
            return True
        self._redis.unlink(*keys)
        return False

    @answering
    def read_rows(self, job_id: str, batch: int, attempt: int) -> Iterator[bytes]:
        key = attempt_key(job_id, batch, "rows", attempt)
        if self._redis.exists(key):
            yield from self._chunks.read_all(job_id, key)
        elif not self._redis.exists(attempt_key(job_id, batch, "pieces", attempt)):
            raise self._chunks.missing(job_id, key)

    @answering
    def find_chunks(self, job_id: str, batch: int, attempt: int, positions: Iterable[int]) -> dict[int, int]:
        key, positions = attempt_key(job_id, batch, "pieces", attempt), list(positions)
        if len(positions) > _PAGE:
            whole = self._redis.get(key) or b""
            found = [whole[4 * position : 4 * position + 4] for position in positions]
        else:
            with self._redis.pipeline(transaction=False) as pipe:
                for position in positions:
                    pipe.getrange(key, 4 * position, 4 * position + 3)
                found = pipe.execute()
        numbers = (int.from_bytes(number, sys.byteorder) if number else MISSING for number in found)
        return {position: number for position, number in zip(positions, numbers, strict=True) if number != MISSING}

    @answering
    def read_chunk(self, job_id: str, batch: int, attempt: int, number: int) -> bytes:
        key = attempt_key(job_id, batch, "rows", attempt)
        piece = self._redis.lindex(key, number)
        return self._connection.packer.unpack(piece, key) if piece is not None else b""

    @answering
    def find_request(self, job_id: str, batch: int, attempt: int, position: int) -> tuple[bytes | None, bytes]:
        outcomes = batch_key(job_id, batch, "outcomes")
        pieces, rows = (attempt_key(job_id, batch, name, attempt) for name in ("pieces", "rows"))
        args = [position_field(position), position, sys.byteorder]
        outcome, chunk = self._find_request(keys=[outcomes, pieces, rows], args=args)
        unpack = self._connection.packer.unpack
        return (
            unpack(outcome, f"{outcomes}:{position}") if outcome is not None else None,
            unpack(chunk, rows) if chunk is not None else b"",
        )

    @answering
    def read_eligible(self, job_id: str, batch: int, attempt: int) -> bytes:
        return self._redis.get(attempt_key(job_id, batch, "eligible", attempt)) or b""

    @answering
    def read_again(self, job_id: str, batch: int, attempt: int) -> bytes:
        return self._redis.get(attempt_key(job_id, batch, "again", attempt)) or b""

    @answering
    def read_outcomes(self, job_id: str, batch: int) -> Iterator[tuple[int, bytes]]:
        key = batch_key(job_id, batch, "outcomes")
        for position, outcome in self._redis.hscan_iter(key, count=50):
            yield int(position), self._connection.packer.unpack(outcome, f"{key}:{int(position)}")

    @answering
    def find_outcomes(self, job_id: str, batch: int, positions: Sequence[int]) -> dict[int, bytes]:
        key, found = batch_key(job_id, batch, "outcomes"), dict[int, bytes]()
        for start in range(0, len(positions), _PAGE):
            some = positions[start : start + _PAGE]
            values = self._redis.hmget(key, list(map(position_field, some)))
            found |= {
                position: self._connection.packer.unpack(value, f"{key}:{position}")
                for position, value in zip(some, values, strict=True)
                if value is not None
            }
        return found

    @answering
    def count_outcomes(self, job_id: str, batch: int) -> int:
        return int(self._redis.hlen(batch_key(job_id, batch, "outcomes")))

    @answering
    def read_announced(self, job_id: str, batch: int) -> bytes:
        return self._redis.get(batch_key(job_id, batch, "announced")) or b""

    @answering
    def mark_announced(self, job_id: str, batch: int, positions: Iterable[int]) -> None:
        key = batch_key(job_id, batch, "announced")
        with self._redis.pipeline(transaction=False) as pipe:
            for position in positions:
                pipe.setbit(key, position, 1)
            pipe.execute()
        self._connection.expire_with_job(job_id, key)


class RedisDeliveries(Part):
    """``interface.Deliveries`` on a Redis server."""

    _deliver = Script("deliver")

    @answering
    def record_delivered(self, job_id: str, runs: Runs, part: int = 0, parts: int = 1) -> Recorded | None:
        return self._record(job_id, DELIVERED, runs, part=part, parts=parts)

    @answering
    def record_failed(self, job_id: str, runs: Runs, reason: str) -> Recorded | None:
        return self._record(job_id, FAILED, runs, reason)

    @answering
    def record_call(self, job_id: str, runs: Runs, parts: int = 1) -> None:
        self._record(job_id, CALLED, runs, parts=parts)

    @answering
    def note_activity(self, job_id: str) -> None:
        self._record(job_id, ACTIVE, ())

    @answering
    def read_delivered(self, job_id: str) -> bytes:
        return self._redis.get(delivery_keys(job_id)[0]) or b""

    @answering
    def count_deliveries(self, job_id: str, batches: int) -> DeliveryCounts:
        delivered, failed, _ = delivery_keys(job_id)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.bitcount(delivered)
            pipe.bitcount(failed)
            for batch in range(batches):
                pipe.bitcount(batch_key(job_id, batch, "announced"))
            ended_well, ended_badly, *called = pipe.execute()
        # A call may end before it is recorded that it was made.
        return DeliveryCounts(max(sum(called), ended_well + ended_badly), ended_well, ended_badly)

    def _record(
        self, job_id: str, what: str, runs: Runs, reason: str = "", *, part: int = 0, parts: int = 1
    ) -> Recorded | None:
        keys, now = [job_key(job_id), *delivery_keys(job_id)], self._connection.now()
        pairs, changed, complete, new = list(runs), 0, False, False
        for start in range(0, len(pairs) or 1, _RUNS):
            args: list[Any] = [what, _encode(now), _encode(reason), part, parts]
            for first, count in pairs[start : start + _RUNS]:
                args += [first, count]
            if (found := self._deliver(keys=keys, args=args)) is None:
                return None
            changed, complete, new = changed + found[0], complete or bool(found[1]), new or bool(found[2])
        return Recorded(changed, complete, new)
