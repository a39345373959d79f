"""Chunks: zstandard frames of about a megabyte of plain bytes, one list element each, encrypted if there is a key."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import msgspec
import zstandard

from claude_batch_tasks.errors import JobNotFound, ResultsMissing
from claude_batch_tasks.formatting import describe_missing_job
from claude_batch_tasks.records import JobRecord
from claude_batch_tasks.store.record_encoding import read_record
from claude_batch_tasks.store.redis.connection import Part, answering
from claude_batch_tasks.store.redis.keys import batch_key, job_key
from claude_batch_tasks.store.retention import UNFINISHED_TTL

_decode_ids = msgspec.json.Decoder(list[str]).decode
_Item = TypeVar("_Item")


class Chunks(Part):
    """Chunks in the lists of a Redis server."""

    def pack(self, data: bytes, key: str) -> bytes:
        """Return a chunk that can be read from this key only."""
        return self._connection.cipher.encrypt(zstandard.compress(data, 1), key)

    def unpack(self, chunk: bytes, key: str) -> bytes:
        """Return what a chunk of this key holds."""
        return zstandard.decompress(self._connection.cipher.decrypt(chunk, key))

    @answering
    def push(self, values: dict[str, bytes | int]) -> None:
        """Append to lists. By itself: what the iterators of those who call it raise is not the store's."""
        with self._redis.pipeline(transaction=True) as pipe:
            for key, value in values.items():
                pipe.rpush(key, value)
                pipe.expire(key, UNFINISHED_TTL)
            pipe.execute()

    def read_all(self, job_id: str, key: str) -> Iterator[bytes]:
        """Yield what the chunks of a list hold; one that was staged has one at least."""
        for number in range(self._redis.llen(key) or 1):
            yield self._read(job_id, key, number)

    def find(self, job_id: str, batch: int, name: str, position: int) -> tuple[bytes, int]:
        """Return the chunk of a staged list that holds the request at a position, and where in it that request is."""
        starts = [0]
        sizes = self._redis.lrange(batch_key(job_id, batch, "sizes"), 0, -1)
        # They follow from the custom_ids, should they be gone.
        for size in sizes or map(len, self.read_ids(job_id, batch)):
            starts.append(starts[-1] + int(size))
        number = bisect_right(starts, position) - 1
        return self._read(job_id, batch_key(job_id, batch, name), number), position - starts[number]

    def read_ids(self, job_id: str, batch: int) -> Iterator[list[str]]:
        """Yield the custom_ids of a batch, chunk by chunk."""
        return map(_decode_ids, self.read_all(job_id, batch_key(job_id, batch, "ids")))

    def missing(self, job_id: str, key: str) -> JobNotFound | ResultsMissing:
        """Return the error for a key that is not there and should be."""
        # Not only whether the key exists: an earlier release may have written into a hash that had been evicted.
        if read_record(JobRecord, self._redis.hgetall(job_key(job_id))) is None:
            return JobNotFound(describe_missing_job(job_id))
        return ResultsMissing(f"{key} is gone from the store", None, [key])

    def _read(self, job_id: str, key: str, number: int) -> bytes:
        if (chunk := self._redis.lindex(key, number)) is None:
            raise self.missing(job_id, key)
        return self.unpack(chunk, key)


def map_one_ahead(function: Callable[[_Item], bytes], items: Iterable[_Item]) -> Iterator[tuple[_Item, bytes]]:
    """Yield each item with what the function makes of it, in a thread, one item ahead of the caller.

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
