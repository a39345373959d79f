"""Chunks of about a megabyte of plain bytes in the lists of a Redis server, one list element each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

import msgspec

from claude_batch_tasks.errors import JobNotFound, ResultsMissing
from claude_batch_tasks.formatting import describe_missing_job
from claude_batch_tasks.records import JobRecord
from claude_batch_tasks.store.record_encoding import read_record
from claude_batch_tasks.store.redis.connection import Part, answering
from claude_batch_tasks.store.redis.keys import batch_key, job_key
from claude_batch_tasks.store.retention import UNFINISHED_TTL

_decode_ids = msgspec.json.Decoder(list[str]).decode


class Chunks(Part):
    """Chunks in the lists of a Redis server."""

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
        return self._connection.packer.unpack(chunk, key)
