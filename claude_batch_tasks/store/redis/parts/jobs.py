"""Jobs in Redis: their records, and the list of all of them."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from claude_batch_tasks.records import BatchRecord, Claim, JobLabels, JobRecord, JobState, Unit
from claude_batch_tasks.store.interface import Records, Schedule
from claude_batch_tasks.store.record_encoding import (
    _encode,
    changed_fields,
    changed_texts,
    read_labels,
    retry_link,
    whole_record,
)
from claude_batch_tasks.store.redis.connection import Connection, Part, answering
from claude_batch_tasks.store.redis.keys import (
    DUE,
    FETCHED,
    JOBS,
    POOLS,
    POOLS_DUE,
    POSITION,
    SENDING,
    STAGED,
    STATE,
    WAITING,
    attempt_key,
    batch_key,
    deleted_key,
    delivery_keys,
    history_keys,
    index_key,
    job_key,
    member,
    money_key,
    of_job,
    pool_keys,
    staging_index_key,
    staging_key,
    taken_field,
)
from claude_batch_tasks.store.redis.prefixing import glob_escaped
from claude_batch_tasks.store.redis.schema import list_jobs
from claude_batch_tasks.store.redis.scripts import Script
from claude_batch_tasks.store.retention import UNFINISHED_TTL, describe_expired

#: Seconds between two searches for jobs where none is listed.
_LIST_EVERY = 3600.0

#: Jobs that are read in one go.
_PAGE = 100

#: Members of the list of jobs that a search passes in one call.
_SCANNED = 5_000

#: Downloads of a batch whose record is gone, of which something may be there.
_ATTEMPTS = 20


class RedisJobs(Part):
    """``interface.Jobs`` on a Redis server."""

    _create = Script("create")
    _update = Script("update")
    _resume = Script("resume")
    _settle = Script("settle")

    def __init__(self, connection: Connection, records: Records) -> None:
        super().__init__(connection)
        self._records = records

    @answering
    def create_job(
        self, job_id: str, job: JobRecord, batches: Sequence[BatchRecord], ttl: float, *, staged: bool = True
    ) -> bool:
        lists = STAGED if staged else ()
        job.sealed_by = self._connection.cipher.key_name
        keys = [job_key(job_id), staging_index_key(job_id, job.nonce), index_key(job_id), JOBS]
        # Whoever makes the job of a pool may have slept since he read the asks: they are elsewhere, or answered.
        keys.append(job_key(job_id) if job.pool is None else deleted_key(job_id))
        records = [whole_record(job)]
        for number, batch in enumerate(batches):
            records.append(whole_record(batch))
            keys.append(batch_key(job_id, number))
            for name in lists:
                keys += [staging_key(job_id, job.nonce, number, name), batch_key(job_id, number, name)]
        made = self._create(keys=keys, args=[_whole(ttl), len(lists), job_id, job.submitted_at, *map(_encode, records)])
        if made < 0:
            raise describe_expired(job_id)
        return bool(made)

    @answering
    def read_job(self, job_id: str) -> JobRecord | None:
        return self._read_record(JobRecord, job_key(job_id))

    @answering
    def update_job(self, job_id: str, *, only: JobState | None = None, **changes: Any) -> bool:
        args = [_encode(only) if only else "", *changed_fields(changes)]
        return bool(self._update(keys=[job_key(job_id)], args=args))

    @answering
    def resume_job(
        self, job_id: str, changes: Mapping[str, Any], batches: Mapping[int, tuple[bool, int, Mapping[str, Any]]]
    ) -> bool:
        keys = [job_key(job_id), DUE, WAITING]
        args: list[Any] = [_encode(changed_texts(changes))]
        if not batches:  # only its end is to come once more
            keys.append(job_key(job_id))
            args += [member(Unit(job_id)), _encode(changed_texts({"ended_at": None}))]
        for number, (due, position, record) in batches.items():
            keys.append(batch_key(job_id, number))
            args += [
                member(Unit(job_id, number)) if due else "",
                _encode([*changed_texts(record), POSITION, str(position)]),
            ]
        return bool(self._resume(keys=[*keys, *_list_keys(self._records, job_id)], args=args))

    @answering
    def set_once(self, job_id: str, field: str, value: Any) -> Any:
        return msgspec.json.decode(self._settle(keys=[job_key(job_id)], args=[field, _encode(value)]))

    @answering
    def persist_job(self, job_id: str) -> None:
        _each_key(self._redis, self._records, job_id, "persist")

    @answering
    def expire_job(self, job_id: str, ttl: float) -> None:
        _each_key(self._redis, self._records, job_id, "expire", _whole(ttl))

    @answering
    def was_deleted(self, job_id: str) -> bool:
        return bool(self._redis.exists(deleted_key(job_id)))

    @answering
    def job_ids(self, before: float = math.inf) -> Iterator[str]:
        last, passed, limit = before, 0, f"({before!r}"
        while True:
            found = self._redis.zrevrangebyscore(JOBS, limit, "-inf", start=passed, num=_PAGE, withscores=True)
            job_ids = [member.decode() for member, _ in found]
            gone = _forget_those_gone(self._redis, job_ids)
            for job_id, (_, at) in zip(job_ids, found, strict=True):
                if job_id not in gone:
                    # Where several were submitted at one moment, the next page begins with those that were passed.
                    last, passed = at, passed + 1 if at == last else 1
                    yield job_id
            if len(found) < _PAGE:
                return
            if passed:
                limit = repr(last)

    @answering
    def sample_jobs(self, limit: int) -> list[str]:
        first = random.randrange(max(self._redis.zcard(JOBS) - limit, 0) + 1)
        return [found.decode() for found in self._redis.zrange(JOBS, first, first + limit - 1)]

    @answering
    def rebuild_list(self) -> None:
        if not self._redis.exists(JOBS) and self._connection.is_first("jobs", _LIST_EVERY):
            list_jobs(self._redis)

    @answering
    def read_states(self, job_ids: Sequence[str]) -> list[JobState | None]:
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hget(job_key(job_id), STATE)
            return [None if state is None else msgspec.json.decode(state) for state in pipe.execute()]


class RedisStorage(Part):
    """``interface.Storage`` on a Redis server."""

    def __init__(self, connection: Connection, jobs: RedisJobs, records: Records, schedule: Schedule) -> None:
        super().__init__(connection)
        self._jobs, self._records, self._schedule = jobs, records, schedule

    @answering
    def missing_keys(self, job_id: str, batch: int | None, names: Iterable[str]) -> list[str]:
        keys = [batch_key(job_id, batch, name) if batch is not None else of_job(job_id, name) for name in names]
        with self._redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.exists(key)
            return [key for key, there in zip(keys, pipe.execute(), strict=True) if not there]

    @answering
    def delete_job(self, job_id: str, *, remember: bool = False) -> None:
        if remember:
            self._redis.set(deleted_key(job_id), b"", ex=UNFINISHED_TTL)
        units = [Unit(job_id), *(Unit(job_id, number) for number, _ in enumerate(self._records.find_batches(job_id)))]
        self._schedule.wake_units(units[1:])  # and no list call speaks for them any more
        for index in (DUE, WAITING):
            self._redis.zrem(index, *map(member, units))
        for index in (JOBS, POOLS, POOLS_DUE):
            self._redis.zrem(index, job_id)
        _each_key(self._redis, self._records, job_id, "unlink")

    @answering
    def forget_expired(self) -> None:
        _forget_those_gone(self._redis, self._jobs.sample_jobs(_PAGE))


def _each_key(redis: Any, records: Records, job_id: str, command: str, *args: Any) -> None:
    """Run a command on each key of a job."""
    with redis.pipeline(transaction=False) as pipe:
        for key in _list_keys(records, job_id):
            getattr(pipe, command)(key, *args)
        pipe.execute()


def _forget_those_gone(redis: Any, job_ids: list[str]) -> set[str]:
    """Remove those jobs from the list of all that are gone, and return which these are."""
    with redis.pipeline(transaction=False) as pipe:
        for job_id in job_ids:
            pipe.exists(job_key(job_id))
        gone = {job_id for job_id, there in zip(job_ids, pipe.execute(), strict=True) if not there}
    if gone:
        # An earlier release that ended it let all expire but what it does not know.
        redis.unlink(*(key for job_id in gone for key in (*history_keys(job_id), *delivery_keys(job_id))))
        redis.zrem(JOBS, *gone)
    return gone


class RedisRetries(Part):
    """``interface.Retries`` on a Redis server: a retry takes its requests in the step in which it is made."""

    _create = Script("retry")
    _extend = Script("extend")

    def __init__(self, connection: Connection, records: Records) -> None:
        super().__init__(connection)
        self._records = records

    @answering
    def create_retry(
        self, job_id: str, job: JobRecord, batches: Sequence[BatchRecord], claims: Sequence[Claim], due: Collection[int]
    ) -> bool:
        job.sealed_by = self._connection.cipher.key_name
        keys = [job_key(job_id), staging_index_key(job_id, job.nonce), index_key(job_id), JOBS, DUE, WAITING]
        keys += [job_key(claim.job_id) for claim in claims]
        keys += [batch_key(claim.job_id, number) for claim in claims for number in claim.taken]
        claimed, taken = _claim_args(job_id, claims)
        args: list[Any] = [len(claims), taken, len(STAGED), job_id, job.submitted_at, _encode(whole_record(job))]
        args += claimed
        for number, batch in enumerate(batches):
            keys += [batch_key(job_id, number), *_staged_keys(job_id, job.nonce, number)]
            args += [_encode(whole_record(batch)), member(Unit(job_id, number)) if number in due else ""]
        made = self._create(keys=keys, args=args)
        if made < 0:
            raise describe_expired(job_id)
        return bool(made)

    @answering
    def read_taken(self, job_id: str, batch: int, retries: int) -> list[bytes]:
        if not retries:
            return []
        found = self._redis.hmget(batch_key(job_id, batch), [taken_field(number) for number in range(retries)])
        return [bits or b"" for bits in found]

    @answering
    def extend_job(self, job_id: str, ttl: float) -> None:
        self._extend(keys=list(_list_keys(self._records, job_id)), args=[max(int(ttl * 1000), 1)])


def _list_keys(records: Records, job_id: str) -> Iterator[str]:
    """Yield all keys that a job has or may have."""
    yield job_key(job_id)
    yield index_key(job_id)
    yield money_key(job_id)
    yield from history_keys(job_id)
    yield from delivery_keys(job_id)
    yield from pool_keys(job_id)
    for number, record in enumerate(records.find_batches(job_id)):
        yield batch_key(job_id, number)
        for name in (*STAGED, "outcomes", "lanes", *SENDING):
            yield batch_key(job_id, number, name)
        for attempt in range(1, (_ATTEMPTS if record is None else record.attempt) + 1):
            for name in FETCHED:
                yield attempt_key(job_id, number, name, attempt)


def _claim_args(job_id: str, claims: Sequence[Claim]) -> tuple[list[Any], int]:
    """Return the arguments of the script for what a retry takes, and from how many batches it takes something."""
    args: list[Any] = []
    for claim in claims:
        args += [claim.retries, _encode(retry_link(job_id, claim))]
    for claim in claims:
        for bits in claim.taken.values():
            args += [taken_field(claim.retries), bits]
    return args, sum(len(claim.taken) for claim in claims)


def _staged_keys(job_id: str, nonce: str, number: int) -> Iterator[str]:
    """Yield, of each list of a batch, where it is staged and where it belongs."""
    for name in STAGED:
        yield staging_key(job_id, nonce, number, name)
        yield batch_key(job_id, number, name)


class RedisJobSearch(Part):
    """``interface.JobSearch`` on a Redis server."""

    @answering
    def find_ids(self, beginning: str, limit: int) -> list[str]:
        # The server compares; only what fits is sent. The list may name a job twice, and jobs that have expired.
        found: dict[str, None] = {}
        for name, _ in self._redis.zscan_iter(JOBS, glob_escaped(beginning) + "*", _SCANNED):
            job_id = name.decode()
            if job_id not in found and self._redis.exists(job_key(job_id)):
                found[job_id] = None
                if len(found) == limit:
                    break
        return list(found)

    @answering
    def read_labels(self, job_ids: Sequence[str]) -> list[JobLabels | None]:
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hmget(job_key(job_id), *JobLabels._fields)
            return [read_labels(row) for row in pipe.execute()]


def _whole(seconds: float) -> int:
    return max(int(seconds), 1)
