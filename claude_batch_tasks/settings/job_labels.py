"""A job's label and metadata, by which people find it: what they may be, and which jobs have them.

They are no secrets: they are stored, logged and shown in plain text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.formatting import shorten_text

MetadataValue: TypeAlias = str | int | float | bool

#: Limits: characters of a label, pairs of metadata, characters of a key and of a value.
LABEL, PAIRS, KEY, VALUE = 100, 16, 64, 500

#: Characters of a wrong value that an error shows.
_SHOWN = 80


def check_label(label: Any) -> str | None:
    """Return a job's label.

    Raises:
        InvalidSettings: it is no text of 1 to 100 printable characters.
    """
    if label is None or _is_text(label, 1, LABEL):
        return None if label is None else str(label)
    raise _make_error("label", f"a text of 1 to {LABEL} printable characters", label)


def check_metadata(metadata: Any) -> dict[str, str]:
    """Return a job's metadata, with all values as texts: ``True`` is ``true``, ``7`` is ``7``.

    Raises:
        InvalidSettings: there are too many pairs, or a key or a value is too long, or of another type.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise _make_error("metadata", "a mapping of names to texts, such as {'team': 'search'}", metadata)
    if len(metadata) > PAIRS:
        raise InvalidSettings(f"job option metadata must have at most {PAIRS} keys, not {len(metadata):,}")
    return {_check_key(key): _check_value(key, value) for key, value in metadata.items()}


def has_labels(
    label: str | None, metadata: Mapping[str, str], *, wanted_label: str | None, wanted: Mapping[str, str]
) -> bool:
    """Return whether a job has the wanted label, if one is wanted, and each of the wanted pairs."""
    return wanted_label in (None, label) and wanted.items() <= metadata.items()


def _check_key(key: Any) -> str:
    if not _is_text(key, 1, KEY):
        raise _make_error("metadata", f"a mapping whose keys are texts of 1 to {KEY} printable characters", key)
    return str(key)


def _check_value(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        value = repr(value)
    if not _is_text(value, 0, VALUE):
        kind = f"a text of at most {VALUE} printable characters, a number, True or False"
        raise _make_error(f"metadata[{key!r}]", kind, value)
    return str(value)


def _is_text(value: Any, least: int, most: int) -> bool:
    return isinstance(value, str) and least <= len(value) <= most and value.isprintable()


def _make_error(name: str, expected: str, given: Any) -> InvalidSettings:
    return InvalidSettings(f"job option {name} must be {expected}, not {shorten_text(repr(given), _SHOWN)}")
