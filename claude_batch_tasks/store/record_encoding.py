"""How records lie in all stores: each field by itself, as JSON text, under its stored name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from claude_batch_tasks.records import BatchRecord, JobRecord, LaneRecord

_encode = msgspec.json.encode
_RECORDS = (JobRecord, BatchRecord, LaneRecord)
_Record = TypeVar("_Record", JobRecord, BatchRecord, LaneRecord)


def stored_names(cls: type[msgspec.Struct]) -> dict[str, str]:
    """Return what the fields of a record are called in its hash, by what Python calls them."""
    return {field.name: field.encode_name for field in msgspec.structs.fields(cls)}


#: Made here, where there is one thread: msgspec (0.22) learns of a type when that is first decoded, and two threads
#: that do so at once end the process.
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {cls: msgspec.json.Decoder(cls) for cls in _RECORDS}

#: Stored names of all fields, and of those without which a record is none.
_KNOWN: dict[type, frozenset[bytes]] = {
    cls: frozenset(name.encode() for name in stored_names(cls).values()) for cls in _RECORDS
}
_REQUIRED: dict[type, frozenset[str]] = {
    cls: frozenset(field.encode_name for field in msgspec.structs.fields(cls) if field.required) for cls in _RECORDS
}

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


def read_record(cls: type[_Record], fields: Mapping[bytes, bytes]) -> _Record | None:
    """Return the record that a hash holds; None: it is gone."""
    known = _KNOWN[cls]
    values = {name.decode(): msgspec.Raw(value) for name, value in fields.items() if name in known}
    if not _REQUIRED[cls] <= values.keys():
        return None  # gone, or what an earlier release wrote into a hash that had been evicted
    found: _Record = _DECODERS[cls].decode(_encode(values))
    return found
