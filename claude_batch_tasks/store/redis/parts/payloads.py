"""The requests of a job in Redis."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

from claude_batch_tasks.store.packing import map_one_ahead
from claude_batch_tasks.store.record_encoding import _encode
from claude_batch_tasks.store.redis.chunks import Chunks
from claude_batch_tasks.store.redis.connection import Connection, Part, answering
from claude_batch_tasks.store.redis.keys import (
    STAGED,
    attempt_key,
    batch_key,
    index_key,
    staging_index_key,
    staging_key,
)
from claude_batch_tasks.store.retention import UNFINISHED_TTL
from claude_batch_tasks.wire.batch_requests import Piece

#: Bytes of a job's custom_ids that are sent in one go, about.
_TOGETHER = 1_000_000


class RedisPayloads(Part):
    """``interface.Payloads`` on a Redis server."""

    def __init__(self, connection: Connection, chunks: Chunks) -> None:
        super().__init__(connection)
        self._chunks = chunks

    def stage_requests(self, job_id: str, nonce: str, pieces: Iterable[Piece]) -> None:
        pack = self._connection.packer.pack

        def push(piece: Piece) -> None:
            # Encrypted for the key at which they are when the job exists.
            body = pack(piece.body, batch_key(job_id, piece.batch, "body"))
            ids = pack(_encode(piece.custom_ids), batch_key(job_id, piece.batch, "ids"))
            values: tuple[list[bytes | int], ...] = ([body], [ids], [len(piece.custom_ids)])
            keys = (staging_key(job_id, nonce, piece.batch, name) for name in STAGED)
            self._chunks.push(dict(zip(keys, values, strict=True)))

        deque(map_one_ahead(push, pieces), maxlen=0)  # runs it to its end

    @answering
    def stage_index(self, job_id: str, nonce: str, parts: Iterable[tuple[int, bytes]]) -> None:
        key, cipher = staging_index_key(job_id, nonce), self._connection.cipher
        fields: dict[str, bytes] = {}
        size = 0
        for number, entries in parts:
            fields[str(number)] = cipher.encrypt(entries, index_key(job_id))
            size += len(entries)
            if size >= _TOGETHER:
                self._redis.hset(key, mapping=fields)
                fields, size = {}, 0
        if fields:
            self._redis.hset(key, mapping=fields)
        self._redis.expire(key, UNFINISHED_TTL)

    @answering
    def discard_staged(self, job_id: str, nonce: str, batches: int) -> None:
        lists = (staging_key(job_id, nonce, batch, name) for batch in range(batches) for name in STAGED)
        self._redis.unlink(staging_index_key(job_id, nonce), *lists)

    @answering
    def read_bodies(self, job_id: str, batch: int) -> Iterator[bytes]:
        yield from self._chunks.read_all(job_id, batch_key(job_id, batch, "body"))

    @answering
    def read_custom_ids(self, job_id: str, batch: int) -> Iterator[list[str]]:
        yield from self._chunks.read_ids(job_id, batch)

    @answering
    def read_index(self, job_id: str, part: int, *, batch: int | None = None, attempt: int | None = None) -> bytes:
        key = index_key(job_id) if batch is None else attempt_key(job_id, batch, "index", attempt)
        return self._connection.cipher.decrypt(self._redis.hget(key, str(part)) or b"", key)

    @answering
    def find_custom_id(self, job_id: str, batch: int, position: int) -> str:
        piece, at = self._chunks.find(job_id, batch, "ids", position)
        return msgspec.json.decode(piece, type=list[str])[at]

    @answering
    def find_chunk(self, job_id: str, batch: int, position: int) -> tuple[int, bytes]:
        piece, at = self._chunks.find(job_id, batch, "body", position)
        return position - at, piece
