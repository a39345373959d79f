"""The records of batches and of senders in Redis."""

from __future__ import annotations

from claude_batch_tasks.records import BatchRecord, JobRecord, LaneRecord, Unit
from claude_batch_tasks.store.record_encoding import _encode, read_record, require_all, whole_record
from claude_batch_tasks.store.redis.connection import Part, answering
from claude_batch_tasks.store.redis.keys import DUE, POSITION, RESTORE, batch_key, job_key, member, unit_key
from claude_batch_tasks.store.redis.scripts import Script

#: Records that are read at a time.
_PAGE = 500


class RedisRecords(Part):
    """``interface.Records`` on a Redis server."""

    loss_advice = "Let its Redis evict nothing: maxmemory-policy noeviction."

    _replace = Script("replace")

    @answering
    def read_batches(self, job_id: str) -> list[BatchRecord]:
        return require_all(job_id, self.find_batches(job_id))

    @answering
    def find_batches(self, job_id: str) -> list[BatchRecord | None]:
        return self.read_job_and_batches(job_id)[1]

    @answering
    def read_job_and_batches(self, job_id: str) -> tuple[JobRecord | None, list[BatchRecord | None]]:
        # Most jobs have one batch.
        job, batch = self._read_hashes(job_key(job_id), batch_key(job_id, 0))
        record, found = read_record(JobRecord, job), list[BatchRecord | None]()
        keys = [batch_key(job_id, number) for number in range(record.batches if record else 0)]
        found += [read_record(BatchRecord, batch)] if keys else []
        # Not all at once: as they come from Redis, records take several times the memory.
        for start in range(1, len(keys), _PAGE):
            found += [read_record(BatchRecord, fields) for fields in self._read_hashes(*keys[start : start + _PAGE])]
        return record, found

    @answering
    def read_batch(self, job_id: str, batch: int) -> BatchRecord | None:
        return self._read_record(BatchRecord, batch_key(job_id, batch))

    @answering
    def replace_batch(self, job_id: str, batch: int, record: BatchRecord, batches: int) -> bool:
        hashes = [batch_key(job_id, number) for number in range(batches)]
        keys = [job_key(job_id), batch_key(job_id, batch), DUE, *hashes]
        return bool(self._replace(keys=keys, args=[_encode(whole_record(record)), member(Unit(job_id))]))

    def name_batch(self, job_id: str, batch: int) -> str:
        return batch_key(job_id, batch)

    @answering
    def read_sender(self, unit: Unit) -> LaneRecord:
        names = LaneRecord.__struct_fields__
        key, prefix = unit_key(unit)
        values = self._redis.hmget(key, [prefix + name for name in names])
        fields = {name: value.decode() for name, value in zip(names, values, strict=True) if value is not None}
        return read_record(LaneRecord, fields) or LaneRecord()

    @answering
    def read_position(self, unit: Unit) -> int:
        key, prefix = unit_key(unit)
        return int(self._redis.hget(key, prefix + POSITION) or -1)

    @answering
    def request_restore(self, job_id: str) -> None:
        self._redis.zadd(RESTORE, {job_id: self._redis.time()[0]}, nx=True)

    @answering
    def take_restore_requests(self, limit: int) -> list[str]:
        return [found.decode() for found, _ in self._redis.zpopmin(RESTORE, limit)]
