"""The records of batches and of senders in PostgreSQL."""

from __future__ import annotations

from claude_batch_tasks.records import BatchRecord, JobRecord, LaneRecord, Unit
from claude_batch_tasks.store.interface import Jobs
from claude_batch_tasks.store.places import batch_key
from claude_batch_tasks.store.postgres.connection import Connection, Part, answering
from claude_batch_tasks.store.postgres.encoding import encode_record, read_record, unit_key
from claude_batch_tasks.store.record_encoding import require_all

#: Records that are read at a time.
_PAGE = 500


class PostgresRecords(Part):
    """``interface.Records`` on a PostgreSQL server."""

    loss_advice = "Let nobody delete rows of the schema, or restore the database from a backup."

    queries = "records"

    def __init__(self, connection: Connection, jobs: Jobs) -> None:
        super().__init__(connection)
        self._jobs = jobs

    @answering
    def read_batches(self, job_id: str) -> list[BatchRecord]:
        return require_all(job_id, self.find_batches(job_id))

    @answering
    def find_batches(self, job_id: str) -> list[BatchRecord | None]:
        return self.read_job_and_batches(job_id)[1]

    @answering
    def read_job_and_batches(self, job_id: str) -> tuple[JobRecord | None, list[BatchRecord | None]]:
        job = self._jobs.read_job(job_id)
        found: list[BatchRecord | None] = [None] * (job.batches if job else 0)
        for first in range(0, len(found), _PAGE):
            for number, record in self._read(job_id, first, first + _PAGE):
                found[number] = read_record(BatchRecord, record)
        return job, found

    @answering
    def read_batch(self, job_id: str, batch: int) -> BatchRecord | None:
        for _, record in self._read(job_id, batch, batch + 1):
            return read_record(BatchRecord, record)
        return None

    @answering
    def replace_batch(self, job_id: str, batch: int, record: BatchRecord, batches: int) -> bool:
        return bool(self._connection.call("replace_batch", job_id, batch, encode_record(record), batches))

    def name_batch(self, job_id: str, batch: int) -> str:
        return batch_key(job_id, batch)

    @answering
    def read_sender(self, unit: Unit) -> LaneRecord:
        _, batch, lane = unit_key(unit)
        return (
            read_record(LaneRecord, self._fetch_value("read_sender", job_id=unit.job_id, batch=batch, lane=lane))
            or LaneRecord()
        )

    @answering
    def read_position(self, unit: Unit) -> int:
        job_id, batch, lane = unit_key(unit)
        found = self._fetch_value("read_position", job_id=job_id, batch=batch, lane=lane)
        return -1 if found is None else int(found)

    @answering
    def request_restore(self, job_id: str) -> None:
        self._run("request_restore", job_id=job_id)

    @answering
    def take_restore_requests(self, limit: int) -> list[str]:
        return [job_id for (job_id,) in self._fetch("take_restore_requests", limit=limit)]

    def _read(self, job_id: str, first: int, end: int) -> list[tuple[int, dict[str, str]]]:
        return self._fetch("read_batches", job_id=job_id, first=first, end=end)
