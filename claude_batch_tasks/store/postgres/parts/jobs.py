"""Jobs in PostgreSQL: their records, and the list of all of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from claude_batch_tasks.records import BatchRecord, Claim, JobLabels, JobRecord, JobState
from claude_batch_tasks.store.places import batch_key, of_job
from claude_batch_tasks.store.postgres.connection import Part, answering
from claude_batch_tasks.store.postgres.encoding import encode_changes, encode_record, read_record
from claude_batch_tasks.store.postgres.removal import clear_job, sweep
from claude_batch_tasks.store.record_encoding import read_labels, retry_link
from claude_batch_tasks.store.retention import UNFINISHED_TTL, describe_expired

#: Jobs that are read in one go.
_PAGE = 500


class PostgresJobs(Part):
    """``interface.Jobs`` on a PostgreSQL server."""

    queries = "jobs"

    @answering
    def create_job(
        self, job_id: str, job: JobRecord, batches: Sequence[BatchRecord], ttl: float, *, staged: bool = True
    ) -> bool:
        job.sealed_by = self._connection.cipher.key_name
        args = [job_id, job.nonce, job.submitted_at, ttl, staged, job.pool is not None, encode_record(job)]
        made = self._connection.call("create_job", *args, list(map(encode_record, batches)))
        if made < 0:
            raise describe_expired(job_id)
        return bool(made)

    @answering
    def read_job(self, job_id: str) -> JobRecord | None:
        return read_record(JobRecord, self._fetch_value("read_job", job_id=job_id))

    @answering
    def update_job(self, job_id: str, *, only: JobState | None = None, **changes: Any) -> bool:
        state = None if only is None else msgspec.json.encode(only).decode()
        return bool(self._run("update_job", job_id=job_id, only=state, changes=encode_changes(changes)))

    @answering
    def resume_job(
        self, job_id: str, changes: Mapping[str, Any], batches: Mapping[int, tuple[bool, int, Mapping[str, Any]]]
    ) -> bool:
        if not batches:  # only its end is to come once more
            changes = {**changes, "ended_at": None}
        return bool(
            self._connection.call(
                "resume_job",
                job_id,
                encode_changes(changes),
                list(batches),
                [due for due, _, _ in batches.values()],
                [position for _, position, _ in batches.values()],
                [encode_changes(record) for _, _, record in batches.values()],
            )
        )

    @answering
    def set_once(self, job_id: str, field: str, value: Any) -> Any:
        return msgspec.json.decode(self._connection.call("set_once", job_id, encode_changes({field: value})))

    @answering
    def persist_job(self, job_id: str) -> None:
        self._run("persist_job", job_id=job_id)

    @answering
    def expire_job(self, job_id: str, ttl: float) -> None:
        self._run("expire_job", job_id=job_id, ttl=ttl)

    @answering
    def was_deleted(self, job_id: str) -> bool:
        return bool(self._connection.call("was_deleted", job_id))

    @answering
    def job_ids(self, before: float = math.inf) -> Iterator[str]:
        last = 0
        while found := self._fetch("list_jobs", before=before, id=last, limit=_PAGE):
            yield from (job_id for job_id, _, _ in found)
            _, before, last = found[-1]

    @answering
    def sample_jobs(self, limit: int) -> list[str]:
        return [job_id for (job_id,) in self._fetch("sample_jobs", limit=limit)]

    @answering
    def rebuild_list(self) -> None:
        """See only that the store answers: the list is the jobs' own table."""
        self._connection.call("clock")

    @answering
    def read_states(self, job_ids: Sequence[str]) -> list[JobState | None]:
        rows = self._fetch("read_states", job_ids=list(job_ids))
        return [None if state is None else msgspec.json.decode(state) for (state,) in rows]


class PostgresStorage(Part):
    """``interface.Storage`` on a PostgreSQL server."""

    queries = "records"

    @answering
    def missing_keys(self, job_id: str, batch: int | None, names: Iterable[str]) -> list[str]:
        number, names = -1 if batch is None else batch, list(names)
        found = self._fetch("find_parts", job_id=job_id, batch=number, names=names)
        keys = [batch_key(job_id, batch, name) if batch is not None else of_job(job_id, name) for name in names]
        return [key for key, (there,) in zip(keys, found, strict=True) if not there]

    @answering
    def delete_job(self, job_id: str, *, remember: bool = False) -> None:
        removed = self._connection.call("delete_job", job_id, UNFINISHED_TTL if remember else None)
        clear_job(self._connection, removed)

    @answering
    def forget_expired(self) -> None:
        sweep(self._connection)


class PostgresRetries(Part):
    """``interface.Retries`` on a PostgreSQL server."""

    queries = "jobs"

    @answering
    def create_retry(
        self, job_id: str, job: JobRecord, batches: Sequence[BatchRecord], claims: Sequence[Claim], due: Collection[int]
    ) -> bool:
        job.sealed_by = self._connection.cipher.key_name
        taken = [(claim.job_id, claim.retries, batch, bits) for claim in claims for batch, bits in claim.taken.items()]
        made = self._connection.call(
            "create_retry",
            job_id,
            job.nonce,
            job.submitted_at,
            encode_record(job),
            list(map(encode_record, batches)),
            list(due),
            [claim.job_id for claim in claims],
            [claim.retries for claim in claims],
            [msgspec.json.encode(retry_link(job_id, claim)).decode() for claim in claims],
            *map(list, zip(*taken, strict=True) if taken else ([], [], [], [])),
        )
        if made < 0:
            raise describe_expired(job_id)
        return bool(made)

    @answering
    def read_taken(self, job_id: str, batch: int, retries: int) -> list[bytes]:
        found = dict(self._fetch("read_taken", job_id=job_id, batch=batch)) if retries else {}
        return [found.get(number, b"") for number in range(retries)]

    @answering
    def extend_job(self, job_id: str, ttl: float) -> None:
        self._run("extend_job", job_id=job_id, ttl=ttl)


class PostgresJobSearch(Part):
    """``interface.JobSearch`` on a PostgreSQL server."""

    queries = "jobs"

    @answering
    def find_ids(self, beginning: str, limit: int) -> list[str]:
        pattern = "".join(f"\\{sign}" if sign in "\\%_" else sign for sign in beginning) + "%"
        return [job_id for (job_id,) in self._fetch("find_ids", pattern=pattern, limit=limit)]

    @answering
    def read_labels(self, job_ids: Sequence[str]) -> list[JobLabels | None]:
        return [read_labels(row) for row in self._fetch("read_labels", job_ids=list(job_ids))]
