"""How all stores write, in JSON, what happened to a job, and what a worker reports of itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import msgspec

from claude_batch_tasks.records import HistoryEvent, WorkerPresence, batch_index, batch_number

#: Events of a history that are stored: so many from its beginning, so many from its end.
FIRST_EVENTS, LAST_EVENTS = 200, 800

# Made at import, while there is one thread; see record_encoding.
_encode = msgspec.json.Encoder().encode
_decode_event = msgspec.json.Decoder(HistoryEvent).decode
_decode_worker = msgspec.json.Decoder(WorkerPresence).decode


def encode_event(event: HistoryEvent) -> bytes:
    """Return an event as it is stored: with the index of its batch, as every release has written it."""
    index = None if event.batch is None else batch_index(event.batch)
    return _encode(msgspec.structs.replace(event, batch=index))


def read_history(begun: Sequence[bytes | str], went_on: Sequence[bytes | str], forgotten: int) -> list[HistoryEvent]:
    """Return the events of a history.

    Args:
        begun: the first that are stored.
        went_on: those after them.
        forgotten: how many between the two were removed.
    """
    events, later = list(map(_read_event, begun)), list(map(_read_event, went_on))
    if forgotten and later:
        at = later[0].at - timedelta(microseconds=1)
        text = f"{forgotten:,} entries are left out"
        events.append(HistoryEvent(at=at, event="left_out", batch=None, text=text, details={}))
    return events + later


def encode_worker(worker: WorkerPresence) -> bytes:
    """Return what a worker reports, as it is stored."""
    return _encode(worker)


def read_workers(stored: Sequence[bytes | str]) -> list[WorkerPresence]:
    """Return what workers reported, by name, without what a later release wrote in another form."""
    found = []
    for each in stored:
        with suppress(msgspec.DecodeError):
            found.append(_decode_worker(each))
    return sorted(found, key=lambda worker: worker.hostname)


def _read_event(stored: bytes | str) -> HistoryEvent:
    event = _decode_event(stored)
    return event if event.batch is None else msgspec.structs.replace(event, batch=batch_number(event.batch))
