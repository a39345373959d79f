"""What is stored of a job's ``output=`` and ``check=``, and what of them goes into a message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from claude_batch_tasks.outputs import checks, schema_validation, schemas
from claude_batch_tasks.outputs.import_paths import import_path, name_object, refuse_option
from claude_batch_tasks.outputs.output_types import Kind, find_kind, make_reader

#: The most bytes of a JSON schema. Each request carries it.
LONGEST_SCHEMA = 100_000

_TYPES = "a pydantic model, a dataclass, a TypedDict, a msgspec Struct, or a JSON schema as a dict"


def describe_output(output: Any, check: Any = None) -> dict[str, Any] | None:
    """Return what the record of a job has about the type of its answers; None: the job has no ``output=``.

    Args:
        output: a type, its import path, or a JSON schema.
        check: a function, or its import path.

    Raises:
        InvalidSettings: other processes could not use them; the text says why.
    """
    if output is None:
        if check is not None:
            raise refuse_option("check", "needs output=, the type of what it checks")
        return None
    if isinstance(output, str):
        output = _import_output(output)
    if isinstance(output, Mapping):
        output = dict(output)
    kind = find_kind(output)
    if kind is None:
        raise refuse_option("output", f"must be {_TYPES}, not {_show(output)}")
    path = None if kind == "schema" else name_object(output, "output")
    schema = _check_schema(output if kind == "schema" else _schema_of(output, kind))
    return {
        "kind": kind,
        "path": path,
        "schema": schema,
        "hash": schemas.hash_schema(schema),
        "check": checks.name_check(check),
    }


def name_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of ``run_batch`` as a message can carry them: types and functions by their import paths.

    Raises:
        InvalidSettings: other processes could not import them.
    """
    named = dict(options)
    for option in ("output", "check"):
        value = named.get(option)
        if value is not None and not isinstance(value, (str, Mapping)):
            named[option] = name_object(value, option)
    return named


def _import_output(path: str) -> Any:
    found = import_path(path, "output")
    if find_kind(found) is None:
        raise refuse_option("output", f"{path} must be {_TYPES}, not {_show(found)}")
    return found


def _schema_of(cls: type[Any], kind: Kind) -> dict[str, Any]:
    try:
        return make_reader(cls, kind).schema
    except Exception as exc:  # noqa: BLE001 - pydantic's or msgspec's, or of the class itself
        reason = f"{type(exc).__name__}: {exc}".partition("\n")[0][:300]
        raise refuse_option("output", f"{cls.__qualname__} has no JSON schema: {reason}") from None


def _check_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON schema as plain JSON values.

    Raises:
        InvalidSettings: it is none, or is too long.
    """
    try:
        text = msgspec.json.encode(schema)
        plain: dict[str, Any] = msgspec.json.decode(text)
        schema_validation.make_validator(plain)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise refuse_option("output", f"it is no JSON schema: {str(exc).partition(chr(10))[0][:300]}") from None
    if len(text) > LONGEST_SCHEMA:
        raise refuse_option("output", f"its JSON schema has {len(text):,} bytes, and {LONGEST_SCHEMA:,} are the most")
    return plain


def _show(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    return str(value)[:100] if hasattr(value, "__origin__") else f"a value of type {type(value).__name__}"
