"""How records lie in PostgreSQL: each field by itself, as JSON text, in one jsonb value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from claude_batch_tasks.records import BatchRecord, JobRecord, LaneRecord, Unit
from claude_batch_tasks.store.record_encoding import changed_texts, read_record as _read_record, whole_record

#: The largest numbers of the types integer and bigint.
_MOST_INTEGER, _MOST_BIGINT = 2**31 - 1, 2**63 - 1

_Record = TypeVar("_Record", JobRecord, BatchRecord, LaneRecord)


def unit_key(unit: Unit) -> tuple[str, int, int]:
    """Return what tables and functions call a unit: its job, its batch and its sender, each -1 if it has none."""
    return unit.job_id, -1 if unit.batch is None else unit.batch, -1 if unit.lane is None else unit.lane


def unit_of(job_id: str, batch: int, lane: int) -> Unit:
    """Return the unit that tables call so."""
    return Unit(job_id, None if batch < 0 else batch, None if lane < 0 else lane)


def fit_integer(limit: int) -> int:
    """Return a limit as the type integer can have it: nothing is ever counted beyond that."""
    return min(limit, _MOST_INTEGER)


def fit_bigint(limit: int | None) -> int | None:
    """Return a limit as the type bigint can have it; None: there is none."""
    return None if limit is None else min(limit, _MOST_BIGINT)


def split_runs(runs: Iterable[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Return the first of each run, and how many each has, as the parameters that functions take for them."""
    pairs = list(runs)
    return [first for first, _ in pairs], [count for _, count in pairs]


def encode_record(record: msgspec.Struct) -> str:
    """Return a whole record, as a parameter of type jsonb."""
    return _object_of(whole_record(record))


def encode_changes(changes: Mapping[str, Any]) -> str:
    """Return fields with their new values, as a parameter of type jsonb that is put on top of a record (``||``)."""
    return _object_of(changed_texts(changes))


def read_record(cls: type[_Record], record: Mapping[str, str] | None) -> _Record | None:
    """Return the record of a jsonb value; None: it is gone."""
    if record is None:
        return None
    return _read_record(cls, record)


def _object_of(texts: list[str]) -> str:
    return msgspec.json.encode(dict(zip(texts[::2], texts[1::2], strict=True))).decode()
