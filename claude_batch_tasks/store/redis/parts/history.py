"""The history of each job in Redis."""

from __future__ import annotations

from claude_batch_tasks.records import HistoryEvent
from claude_batch_tasks.store.redis.connection import Part, answering
from claude_batch_tasks.store.redis.keys import FORGOTTEN, JOBS, history_keys, job_key
from claude_batch_tasks.store.redis.scripts import Script
from claude_batch_tasks.store.report_encoding import FIRST_EVENTS, LAST_EVENTS, encode_event, read_history


class RedisHistory(Part):
    """``interface.History`` on a Redis server."""

    _note = Script("note")

    @answering
    def append_event(self, job_id: str, event: HistoryEvent) -> None:
        keys = [job_key(job_id), *history_keys(job_id), JOBS]
        self._note(keys=keys, args=[encode_event(event), FIRST_EVENTS, LAST_EVENTS, job_id])

    @answering
    def read_events(self, job_id: str) -> list[HistoryEvent]:
        first, last = history_keys(job_id)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.lrange(first, 0, -1)
            pipe.lrange(last, 0, -1)
            pipe.hget(job_key(job_id), FORGOTTEN)
            begun, went_on, forgotten = pipe.execute()
        return read_history(begun, went_on, int(forgotten or 0))
