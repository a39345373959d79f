"""The requests of a job in PostgreSQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from claude_batch_tasks.store.packing import map_one_ahead
from claude_batch_tasks.store.places import attempt_key, batch_key, index_key
from claude_batch_tasks.store.postgres.chunks import READ, copy_rows, group_rows, missing_error, read_pages
from claude_batch_tasks.store.postgres.connection import Part, answering
from claude_batch_tasks.store.postgres.removal import clear_job
from claude_batch_tasks.store.record_encoding import _encode
from claude_batch_tasks.store.retention import UNFINISHED_TTL, describe_expired
from claude_batch_tasks.wire.batch_requests import Piece

_Row = tuple[int, int, int, int, bytes, bytes]
_TYPES = ("int8", "int4", "int4", "int4", "bytea", "bytea")

_decode_ids = msgspec.json.Decoder(list[str]).decode


class PostgresPayloads(Part):
    """``interface.Payloads`` on a PostgreSQL server."""

    queries = "payloads"

    def stage_requests(self, job_id: str, nonce: str, pieces: Iterable[Piece]) -> None:
        # Encrypted for the names that they have in every store.
        def packed(piece: Piece) -> bytes:
            return self._connection.packer.pack(piece.body, batch_key(job_id, piece.batch, "body"))

        staged = self._begin(job_id, nonce)
        ends = self._find_ends(staged)

        def rows() -> Iterator[_Row]:
            for piece, body in map_one_ahead(packed, pieces):
                ids, count = _encode(piece.custom_ids), len(piece.custom_ids)
                ids = self._connection.packer.pack(ids, batch_key(job_id, piece.batch, "ids"))
                yield staged, piece.batch, ends[piece.batch], count, body, ids
                ends[piece.batch] += count

        for group in group_rows(rows()):
            self._write(job_id, staged, group)

    @answering
    def stage_index(self, job_id: str, nonce: str, parts: Iterable[tuple[int, bytes]]) -> None:
        staged, key = self._begin(job_id, nonce), index_key(job_id)
        rows = ((number, self._connection.cipher.encrypt(entries, key)) for number, entries in parts)
        for group in group_rows(rows):
            numbers, entries = map(list, zip(*group, strict=True))
            self._run("stage_index", job=staged, parts=numbers, entries=entries)

    @answering
    def discard_staged(self, job_id: str, nonce: str, batches: int) -> None:
        clear_job(self._connection, self._connection.call("discard_staged", job_id, nonce))

    @answering
    def read_bodies(self, job_id: str, batch: int) -> Iterator[bytes]:
        yield from self._read_all(job_id, batch, "body")

    @answering
    def read_custom_ids(self, job_id: str, batch: int) -> Iterator[list[str]]:
        yield from map(_decode_ids, self._read_all(job_id, batch, "ids"))

    @answering
    def read_index(self, job_id: str, part: int, *, batch: int | None = None, attempt: int | None = None) -> bytes:
        key = index_key(job_id) if batch is None else attempt_key(job_id, batch, "index", attempt)
        place = {"batch": -1, "attempt": -1} if batch is None else {"batch": batch, "attempt": attempt}
        found = self._fetch_value("read_index", binary=True, job_id=job_id, part=part, **place)
        return self._connection.cipher.decrypt(found or b"", key)

    @answering
    def find_custom_id(self, job_id: str, batch: int, position: int) -> str:
        first, chunk = self._find(job_id, batch, "ids", position)
        return _decode_ids(chunk)[position - first]

    @answering
    def find_chunk(self, job_id: str, batch: int, position: int) -> tuple[int, bytes]:
        return self._find(job_id, batch, "body", position)

    @answering
    def _begin(self, job_id: str, nonce: str) -> int:
        return int(self._connection.call("stage_job", job_id, nonce, UNFINISHED_TTL))

    @answering
    def _find_ends(self, staged: int) -> defaultdict[int, int]:
        """Return how many requests of each batch are staged already."""
        return defaultdict(int, self._fetch("find_ends", job=staged))

    @answering
    def _write(self, job_id: str, staged: int, rows: list[_Row]) -> None:
        with self._connection.transaction() as connection:
            if connection.execute(self._sql["share_staged"], {"job": staged}).fetchone() is None:
                raise describe_expired(job_id)
            copy_rows(connection, self._sql["copy_chunks"], _TYPES, rows)

    def _read_all(self, job_id: str, batch: int, name: str) -> Iterator[bytes]:
        for chunk in read_pages(
            lambda after: self._fetch(f"read_{name}", binary=True, job_id=job_id, batch=batch, after=after, size=READ)
        ):
            yield self._unpack(job_id, batch, name, chunk)

    def _find(self, job_id: str, batch: int, name: str, position: int) -> tuple[int, bytes]:
        """Return the chunk that holds the request at a position, after the position at which it begins."""
        row = self._fetch_row(f"find_{name}", binary=True, job_id=job_id, batch=batch, position=position)
        first, chunk = row or (0, None)
        return first, self._unpack(job_id, batch, name, chunk)

    def _unpack(self, job_id: str, batch: int, name: str, chunk: bytes | None) -> bytes:
        key = batch_key(job_id, batch, name)
        if chunk is None:
            raise missing_error(self._connection.has_job(job_id), job_id, key)
        return self._connection.packer.unpack(chunk, key)
