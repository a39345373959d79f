"""``interface.Transfer`` on a Redis server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import msgspec

from claude_batch_tasks.store.redis import schema
from claude_batch_tasks.store.redis.connection import Connection, Part, answering
from claude_batch_tasks.store.redis.keys import DUE, FIELDS, JOBS, POOLS, POOLS_DUE, WAITING, pool_keys
from claude_batch_tasks.store.redis.transfer.exporting import JobExport
from claude_batch_tasks.store.redis.transfer.importing import JobImport
from claude_batch_tasks.store.redis.transfer.shared import read_shared, write_shared
from claude_batch_tasks.store.transfer.items import JobItem, Mark, SharedItem

#: Members of an index that are read in one go.
_PAGE = 1000

_POOL = FIELDS["POOL"]

#: Each step that runs, and each job and ask that is submitted, changes one of them.
_INDICES = (JOBS, DUE, WAITING, POOLS, POOLS_DUE)


class RedisTransfer(Part):
    """``interface.Transfer`` on a Redis server."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        database = connection.client.connection_pool.connection_kwargs.get("db") or 0
        prefix = f" (prefix {connection.prefix})" if connection.prefix else ""
        self.address = f"{connection.where}/{database}{prefix}"

    def open(self) -> None:
        self._connection.open_marked()

    @answering
    def read_mark(self) -> Mark | None:
        return schema.read_mark(self._redis)

    @answering
    def set_mark(self, mark: Mark | None) -> None:
        schema.set_mark(self._redis, mark)

    @answering
    def summarize_activity(self) -> str:
        found = hashlib.blake2b(digest_size=16)
        for index in _INDICES:
            for name, score in self._read_index(index):
                found.update(msgspec.msgpack.encode((index, name, score)))
        # An ask that comes into an open pool, or is taken out of it, may change none of them.
        for name, _ in self._read_index(POOLS):
            counts = self._redis.hmget(pool_keys(name.decode())[0], _POOL["count"], _POOL["withdrawn"])
            found.update(msgspec.msgpack.encode(counts))
        return found.hexdigest()

    @answering
    def list_ids(self) -> Iterator[str]:
        listed = [name.decode() for name, _ in self._read_index(POOLS)]
        for name, _ in self._read_index(JOBS):
            yield name.decode()
        for job_id in listed:
            if self._redis.zscore(JOBS, job_id) is None:
                yield job_id

    @answering
    def export_job(self, job_id: str) -> Iterator[JobItem]:
        yield from JobExport(self._connection, job_id).read()

    @answering
    def import_job(self, job_id: str, items: Iterable[JobItem]) -> None:
        JobImport(self._connection, job_id).write(items)

    @answering
    def export_shared(self) -> Iterator[SharedItem]:
        yield from read_shared(self._connection)

    @answering
    def import_shared(self, items: Iterable[SharedItem]) -> None:
        write_shared(self._connection, items)

    def _read_index(self, index: str) -> Iterator[tuple[bytes, float]]:
        first = 0
        while found := self._redis.zrange(index, first, first + _PAGE - 1, withscores=True):
            yield from found
            first += len(found)
