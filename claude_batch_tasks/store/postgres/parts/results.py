"""The results of a job in PostgreSQL."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from psycopg.errors import ForeignKeyViolation

from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.records import Unit
from claude_batch_tasks.store.packing import group_chunks, map_one_ahead
from claude_batch_tasks.store.places import attempt_key, batch_key
from claude_batch_tasks.store.postgres.chunks import READ, copy_rows, group_rows, missing_error, read_pages
from claude_batch_tasks.store.postgres.connection import Part, answering
from claude_batch_tasks.store.postgres.encoding import encode_changes, split_runs, unit_key
from claude_batch_tasks.store.retention import UNFINISHED_TTL
from claude_batch_tasks.wire.completeness import MISSING
from claude_batch_tasks.wire.positions import find_runs

#: Positions that are looked up one by one; of more, all that is known of the batch is read.
_FEW = 500

#: Outcomes that are read at a time.
_PAGE = 1000

_Row = tuple[int, int, int, str, int, bytes]
_TYPES = ("int8", "int4", "int4", "text", "int4", "bytea")


class PostgresResults(Part):
    """``interface.Results`` on a PostgreSQL server."""

    queries = "results"

    def write_rows(self, job_id: str, batch: int, attempt: int, pieces: Iterable[bytes], *, copy: str = "") -> None:
        key, pack = attempt_key(job_id, batch, "rows", attempt), self._connection.packer.pack
        job = self._begin(job_id, batch, attempt, copy)
        try:
            packed = map_one_ahead(lambda group: [pack(piece, key) for piece in group], group_chunks(pieces))
            chunks = enumerate(chunk for _, group in packed for chunk in group)
            rows = ((job, batch, attempt, copy, number, chunk) for number, chunk in chunks)
            for group in group_rows(rows):
                self._write(job_id, key, group)
        except BaseException:
            with suppress(StoreUnavailable):  # then it expires
                self.discard_rows(job_id, batch, attempt, copy=copy)
            raise

    @answering
    def discard_rows(self, job_id: str, batch: int, attempt: int, *, copy: str = "") -> None:
        self._connection.call("discard_attempt", job_id, batch, attempt, copy)

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
        args = [pieces, eligible_places, again_places, *self._encrypt_index(job_id, batch, attempt, index)]
        return bool(self._connection.call("restore_attempt", job_id, batch, attempt, copy, *args))

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
        job_id, batch, _ = unit_key(unit)
        args: list[Any] = [pieces, eligible_places, again_places]
        args += self._encrypt_index(job_id, batch, attempt, index)
        args += [list(keep), encode_changes({"published": attempt, **changes})]
        return bool(self._connection.call("publish_attempt", job_id, batch, attempt, owner, *args))

    @answering
    def read_rows(self, job_id: str, batch: int, attempt: int) -> Iterator[bytes]:
        key, place = attempt_key(job_id, batch, "rows", attempt), (job_id, batch, attempt)
        found = False
        for chunk in read_pages(lambda after: self._fetch_of("read_rows", *place, after=after, size=READ)):
            if chunk is not None:
                yield self._connection.packer.unpack(chunk, key)
            elif found or self._fetch_of("is_published", *place) != [(True,)]:
                raise missing_error(self._connection.has_job(job_id), job_id, key)
            found = True

    @answering
    def find_chunks(self, job_id: str, batch: int, attempt: int, positions: Iterable[int]) -> dict[int, int]:
        place, positions = (job_id, batch, attempt), list(positions)
        if len(positions) > _FEW:
            [(whole,)] = self._fetch_of("read_pieces", *place) or [(None,)]
            found = [(whole or b"")[4 * position : 4 * position + 4] for position in positions]
        else:
            found = [number for (number,) in self._fetch_of("find_pieces", *place, positions=positions)]
        numbers = (int.from_bytes(number, sys.byteorder) if number else MISSING for number in found)
        return {position: number for position, number in zip(positions, numbers, strict=False) if number != MISSING}

    @answering
    def read_chunk(self, job_id: str, batch: int, attempt: int, number: int) -> bytes:
        for (chunk,) in self._fetch_of("read_chunk", job_id, batch, attempt, number=number):
            return self._connection.packer.unpack(chunk, attempt_key(job_id, batch, "rows", attempt))
        return b""

    @answering
    def find_request(self, job_id: str, batch: int, attempt: int, position: int) -> tuple[bytes | None, bytes]:
        outcome = self.find_outcomes(job_id, batch, [position]).get(position)
        number = self.find_chunks(job_id, batch, attempt, [position]).get(position)
        return outcome, b"" if number is None else self.read_chunk(job_id, batch, attempt, number)

    @answering
    def read_eligible(self, job_id: str, batch: int, attempt: int) -> bytes:
        [(found,)] = self._fetch_of("read_eligible", job_id, batch, attempt) or [(None,)]
        return found or b""

    @answering
    def read_again(self, job_id: str, batch: int, attempt: int) -> bytes:
        [(found,)] = self._fetch_of("read_again", job_id, batch, attempt) or [(None,)]
        return found or b""

    @answering
    def read_outcomes(self, job_id: str, batch: int) -> Iterator[tuple[int, bytes]]:
        after = -1
        while rows := self._fetch(
            "read_outcomes", binary=True, job_id=job_id, batch=batch, after=after, limit=_PAGE, size=READ
        ):
            yield from self._unpack_outcomes(job_id, batch, rows)
            after = rows[-1][0]

    @answering
    def find_outcomes(self, job_id: str, batch: int, positions: Sequence[int]) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for start in range(0, len(positions), _PAGE):
            some = list(positions[start : start + _PAGE])
            rows = self._fetch("find_outcomes", binary=True, job_id=job_id, batch=batch, positions=some)
            found.update(self._unpack_outcomes(job_id, batch, rows))
        return found

    @answering
    def count_outcomes(self, job_id: str, batch: int) -> int:
        return int(self._fetch_value("count_outcomes", job_id=job_id, batch=batch))

    @answering
    def read_announced(self, job_id: str, batch: int) -> bytes:
        return bytes(self._connection.call("read_bits", job_id, batch, "announced")).rstrip(b"\0")

    @answering
    def mark_announced(self, job_id: str, batch: int, positions: Iterable[int]) -> None:
        firsts, counts = split_runs(find_runs(sorted(set(positions))))
        self._fetch("mark_announced", job_id=job_id, batch=batch, firsts=firsts, counts=counts)

    @answering
    def _begin(self, job_id: str, batch: int, attempt: int, copy: str) -> int:
        job = self._connection.call("begin_attempt", job_id, batch, attempt, copy, UNFINISHED_TTL)
        if job is None:
            raise missing_error(False, job_id, "")
        return int(job)

    @answering
    def _write(self, job_id: str, name: str, rows: list[_Row]) -> None:
        try:
            with self._connection.transaction() as connection:
                copy_rows(connection, self._sql["copy_chunks"], _TYPES, rows)
        except ForeignKeyViolation:
            raise missing_error(self._connection.has_job(job_id), job_id, name) from None

    def _fetch_of(self, query: str, job_id: str, batch: int, attempt: int, **params: Any) -> list[tuple[Any, ...]]:
        """Run a statement that is about a download."""
        return self._fetch(query, binary=True, job_id=job_id, batch=batch, attempt=attempt, **params)

    def _encrypt_index(
        self, job_id: str, batch: int, attempt: int, index: Iterable[tuple[int, bytes]]
    ) -> tuple[list[int], list[bytes]]:
        """Return the numbers of the parts of an index, and their encrypted entries."""
        key, parts = attempt_key(job_id, batch, "index", attempt), dict(index)
        return list(parts), [self._connection.cipher.encrypt(entries, key) for entries in parts.values()]

    def _unpack_outcomes(self, job_id: str, batch: int, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, bytes]]:
        key = batch_key(job_id, batch, "outcomes")
        for position, outcome in rows:
            yield position, self._connection.packer.unpack(outcome, f"{key}:{position}")
