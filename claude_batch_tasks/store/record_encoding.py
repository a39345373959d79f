"""How records lie in every store: each field by itself, as JSON text, under its stored name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from claude_batch_tasks.errors import ResultsMissing
from claude_batch_tasks.records import BatchRecord, Claim, JobLabels, JobRecord, LaneRecord, RetryLink
from claude_batch_tasks.store.places import batch_key
from claude_batch_tasks.wire.positions import Positions

_encode = msgspec.json.encode
_RECORDS = (JobRecord, BatchRecord, LaneRecord)
_Record = TypeVar("_Record", JobRecord, BatchRecord, LaneRecord)


def stored_names(cls: type[msgspec.Struct]) -> dict[str, str]:
    """Return what the fields of a record are called in its hash, by what Python calls them."""
    return {field.name: field.encode_name for field in msgspec.structs.fields(cls)}


#: Made here, where there is one thread: msgspec (0.22) learns of a type when that is first decoded, and two threads
#: that do so at once end the process.
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {cls: msgspec.json.Decoder(cls) for cls in _RECORDS}
_decode_hashes = msgspec.json.Decoder(list[Any]).decode

#: Stored names of all fields, and of those without which a record is none.
_KNOWN: dict[type, frozenset[str]] = {cls: frozenset(stored_names(cls).values()) for cls in _RECORDS}
_REQUIRED: dict[type, frozenset[str]] = {
    cls: frozenset(field.encode_name for field in msgspec.structs.fields(cls) if field.required) for cls in _RECORDS
}

#: Records that an error names.
_NAMED = 20

#: What hashes call a field, by what Python does; no two records differ in it.
_STORED = {name: stored for cls in _RECORDS for name, stored in stored_names(cls).items()}


def whole_record(record: msgspec.Struct) -> list[str]:
    """Return all fields of a record with their values, one after the other, as text."""
    return changed_texts({name: getattr(record, name) for name in record.__struct_fields__})


def changed_texts(changes: Mapping[str, Any]) -> list[str]:
    """Return fields with their new values, one after the other, as text."""
    return [part for name, value in changes.items() for part in (_STORED.get(name, name), _encode(value).decode())]


def changed_fields(changes: Mapping[str, Any]) -> list[Any]:
    """Return fields with their new values, one after the other, as arguments of a script."""
    return [part for name, value in changes.items() for part in (_STORED.get(name, name), _encode(value))]


def decode_hashes(encoded: bytes) -> list[dict[str, str]]:
    """Return the fields of hashes, from what the script says."""
    return [dict(zip(flat[::2], flat[1::2], strict=True)) if flat else {} for flat in _decode_hashes(encoded)]


def read_record(cls: type[_Record], fields: Mapping[str, str]) -> _Record | None:
    """Return the record that a hash holds; None: it is gone."""
    known = _KNOWN[cls]
    values = {name: msgspec.Raw(value) for name, value in fields.items() if name in known}
    if not _REQUIRED[cls] <= values.keys():
        return None  # gone, or what an earlier release wrote into a hash that had been evicted
    found: _Record = _DECODERS[cls].decode(_encode(values))
    return found


def read_labels(values: Sequence[bytes | str | None]) -> JobLabels | None:
    """Return what the fields of ``JobLabels`` say, each as JSON; None: the job is gone."""
    state, label, metadata = (None if value is None else msgspec.json.decode(value) for value in values)
    return None if state is None else JobLabels(state, label, metadata or {})


def retry_link(job_id: str, claim: Claim) -> RetryLink:
    """Return what a job says of a retry that takes requests from it."""
    return RetryLink(job_id=job_id, taken={str(number): len(Positions(bits)) for number, bits in claim.taken.items()})


def require_all(job_id: str, found: Sequence[BatchRecord | None]) -> list[BatchRecord]:
    """Return the records of a job's batches.

    Raises:
        ResultsMissing: one of them is gone.
    """
    if gone := [batch_key(job_id, number) for number, record in enumerate(found) if record is None]:
        raise ResultsMissing(
            f"the records of {len(gone):,} of the {len(found):,} batches of job {job_id} are gone from the store",
            None,
            gone[:_NAMED],
        )
    return [record for record in found if record is not None]
