"""The history of each job in Redis."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from claude_batch_tasks.records import HistoryEvent, batch_index, batch_number
from claude_batch_tasks.store.record_encoding import _encode
from claude_batch_tasks.store.redis.connection import Part, answering
from claude_batch_tasks.store.redis.keys import FORGOTTEN, JOBS, history_keys, job_key
from claude_batch_tasks.store.redis.scripts import Script

#: Events of a history that are kept: so many from its beginning, so many from its end.
_FIRST, _LAST = 200, 800

_decode_event = msgspec.json.Decoder(HistoryEvent).decode


def _encode_event(event: HistoryEvent) -> bytes:
    """Return an event as it is stored: with the index of its batch, as every release has written it."""
    index = None if event.batch is None else batch_index(event.batch)
    return _encode(msgspec.structs.replace(event, batch=index))


def _read_event(stored: bytes) -> HistoryEvent:
    event = _decode_event(stored)
    return event if event.batch is None else msgspec.structs.replace(event, batch=batch_number(event.batch))


class RedisHistory(Part):
    """``interface.History`` on a Redis server."""

    _note = Script("note")

    @answering
    def append_event(self, job_id: str, event: HistoryEvent) -> None:
        keys = [job_key(job_id), *history_keys(job_id), JOBS]
        self._note(keys=keys, args=[_encode_event(event), _FIRST, _LAST, job_id])

    @answering
    def read_events(self, job_id: str) -> list[HistoryEvent]:
        first, last = history_keys(job_id)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.lrange(first, 0, -1)
            pipe.lrange(last, 0, -1)
            pipe.hget(job_key(job_id), FORGOTTEN)
            begun, went_on, forgotten = pipe.execute()
        events, later = list(map(_read_event, begun)), list(map(_read_event, went_on))
        if forgotten and later:
            at = later[0].at - timedelta(microseconds=1)
            text = f"{int(forgotten):,} entries are left out"
            events.append(HistoryEvent(at=at, event="left_out", batch=None, text=text, details={}))
        return events + later
