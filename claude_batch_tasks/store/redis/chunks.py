"""Chunks of some plain bytes in the lists of a Redis server, one list element each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import msgspec

from claude_batch_tasks.errors import JobNotFound, ResultsMissing
from claude_batch_tasks.formatting import describe_missing_job
from claude_batch_tasks.records import JobRecord
from claude_batch_tasks.store.packing import TOGETHER
from claude_batch_tasks.store.redis.connection import Part, answering
from claude_batch_tasks.store.redis.keys import batch_key, job_key
from claude_batch_tasks.store.redis.scripts import Script
from claude_batch_tasks.store.retention import UNFINISHED_TTL

#: The most chunks that are read in one go: what follows a small one may be larger.
_MOST = 16

_decode_ids = msgspec.json.Decoder(list[str]).decode


class Chunks(Part):
    """Chunks in the lists of a Redis server."""

    _find = Script("find_chunk")

    @answering
    def push(self, values: Mapping[str, Sequence[bytes | int]]) -> None:
        """Append to lists. By itself: what the iterators of those who call it raise is not the store's."""
        with self._redis.pipeline(transaction=True) as pipe:
            for key, added in values.items():
                pipe.rpush(key, *added)
                pipe.expire(key, UNFINISHED_TTL)
            pipe.execute()

    def read_all(self, job_id: str, key: str) -> Iterator[bytes]:
        """Yield what the chunks of a list hold; one that was staged has one at least."""
        number, length, some = 0, self._redis.llen(key) or 1, 1
        while number < length:
            packed = self._redis.lrange(key, number, min(number + some, length) - 1)
            if not packed:
                raise self.missing(job_id, key)
            largest = 1
            for chunk in packed:
                yield (plain := self._connection.packer.unpack(chunk, key))
                largest = max(largest, len(plain))
            number += len(packed)
            # Small ones several at a time: releases and kinds of chunks differ in their sizes.
            some = min(max(TOGETHER // largest, 1), _MOST)

    def find(self, job_id: str, batch: int, name: str, position: int) -> tuple[bytes, int]:
        """Return the chunk of a staged list that holds the request at a position, and where in it that request is."""
        key = batch_key(job_id, batch, name)
        if (found := self._find(keys=[batch_key(job_id, batch, "sizes"), key], args=[position])) is not None:
            first, chunk = found[0], found[1] if len(found) > 1 else None
        else:
            # They follow from the custom_ids, should they be gone.
            starts = [0, *accumulate(map(len, self.read_ids(job_id, batch)))]
            number = bisect_right(starts, position) - 1
            first, chunk = starts[number], self._redis.lindex(key, number)
        if chunk is None:
            raise self.missing(job_id, key)
        return self._connection.packer.unpack(chunk, key), position - first

    def read_ids(self, job_id: str, batch: int) -> Iterator[list[str]]:
        """Yield the custom_ids of a batch, chunk by chunk."""
        return map(_decode_ids, self.read_all(job_id, batch_key(job_id, batch, "ids")))

    def missing(self, job_id: str, key: str) -> JobNotFound | ResultsMissing:
        """Return the error for a key that is not there and should be."""
        # Not only whether the key exists: an earlier release may have written into a hash that had been evicted.
        if self._read_record(JobRecord, job_key(job_id)) is None:
            return JobNotFound(describe_missing_job(job_id))
        return ResultsMissing(f"{key} is gone from the store", None, [key])
