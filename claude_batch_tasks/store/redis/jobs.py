"""All jobs there are, and what happened to each."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from datetime import timedelta

import msgspec

from claude_batch_tasks.records import HistoryEvent, JobState
from claude_batch_tasks.store.redis.flights import Flights, answering
from claude_batch_tasks.store.redis.keys import (
    FORGOTTEN,
    JOBS,
    RESTORE,
    STATE,
    first_key,
    history_keys,
    job_key,
)
from claude_batch_tasks.store.redis.lua import Script
from claude_batch_tasks.store.redis.schema import list_jobs

#: Seconds between two searches for jobs where none is listed.
_LIST_EVERY = 3600.0

#: Jobs that are read, or looked at for whether they are still there, in one go.
_PAGE = 100

#: Entries of a history that are kept: so many from its beginning, so many from its end.
_FIRST, _LAST = 200, 800

_encode = msgspec.json.encode
_decode_event = msgspec.json.Decoder(HistoryEvent).decode


class Jobs(Flights):
    """The part of the Redis store that lists jobs and tells what happened to them."""

    _note = Script("note")

    @answering
    def job_ids(self, before: float = math.inf) -> Iterator[str]:
        last, passed, limit = before, 0, f"({before!r}"
        while True:
            found = self._redis.zrevrangebyscore(JOBS, limit, "-inf", start=passed, num=_PAGE, withscores=True)
            job_ids = [member.decode() for member, _ in found]
            gone = self._forget_those_gone(job_ids)
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
    def forget_expired(self) -> None:
        self._forget_those_gone(self.sample_jobs(_PAGE))

    def _forget_those_gone(self, job_ids: list[str]) -> set[str]:
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.exists(job_key(job_id))
            gone = {job_id for job_id, there in zip(job_ids, pipe.execute(), strict=True) if not there}
        if gone:
            # An earlier release that ended it let all expire but what it does not know.
            self._redis.unlink(*(key for job_id in gone for key in history_keys(job_id)))
            self._redis.zrem(JOBS, *gone)
        return gone

    @answering
    def sample_jobs(self, limit: int) -> list[str]:
        first = random.randrange(max(self._redis.zcard(JOBS) - limit, 0) + 1)
        return [found.decode() for found in self._redis.zrange(JOBS, first, first + limit - 1)]

    @answering
    def list_jobs_anew(self) -> None:
        if not self._redis.exists(JOBS) and self.first("jobs", _LIST_EVERY):
            list_jobs(self._redis)

    @answering
    def states(self, job_ids: Sequence[str]) -> list[JobState | None]:
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hget(job_key(job_id), STATE)
            return [None if state is None else msgspec.json.decode(state) for state in pipe.execute()]

    @answering
    def first(self, name: str, ttl: float) -> bool:
        return bool(self._redis.set(first_key(name), b"", nx=True, px=int(ttl * 1000)))

    @answering
    def ask_to_restore(self, job_id: str) -> None:
        self._redis.zadd(RESTORE, {job_id: self._redis.time()[0]}, nx=True)

    @answering
    def to_restore(self, limit: int) -> list[str]:
        return [found.decode() for found, _ in self._redis.zpopmin(RESTORE, limit)]

    @answering
    def note(self, job_id: str, event: HistoryEvent) -> None:
        keys = [job_key(job_id), *history_keys(job_id), JOBS]
        self._note(keys=keys, args=[_encode(event), _FIRST, _LAST, job_id])

    @answering
    def history(self, job_id: str) -> list[HistoryEvent]:
        first, last = history_keys(job_id)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.lrange(first, 0, -1)
            pipe.lrange(last, 0, -1)
            pipe.hget(job_key(job_id), FORGOTTEN)
            begun, went_on, forgotten = pipe.execute()
        events, later = list(map(_decode_event, begun)), list(map(_decode_event, went_on))
        if forgotten and later:
            at = later[0].at - timedelta(microseconds=1)
            text = f"{int(forgotten):,} entries are no longer kept"
            events.append(HistoryEvent(at=at, event="left_out", batch=None, text=text, details={}))
        return events + later
