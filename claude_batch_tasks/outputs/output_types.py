"""The kinds of types that answers may have: how each reads JSON, and its JSON schema."""

from __future__ import annotations

import dataclasses
import importlib
import threading
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import msgspec
from typing_extensions import is_typeddict

Kind = Literal["pydantic", "dataclass", "typeddict", "msgspec", "schema"]

#: Held while the reader of a type is made: msgspec does not stand two threads that do so for the first time.
_making = threading.Lock()


class TypeReader(NamedTuple):
    """How a type is read."""

    decode: Callable[[bytes], Any]
    """Returns the object; raises what its library raises."""
    schema: dict[str, Any]


def find_kind(value: Any) -> Kind | None:
    """Return what kind of output type a value is; None: none that is known."""
    if isinstance(value, dict):
        return "schema"
    if not isinstance(value, type):
        return None
    if issubclass(value, msgspec.Struct):
        return "msgspec"
    if callable(getattr(value, "model_validate_json", None)):
        return "pydantic"
    if is_typeddict(value):
        return "typeddict"
    return "dataclass" if dataclasses.is_dataclass(value) else None


def make_reader(cls: type[Any], kind: Kind) -> TypeReader:
    """Return how a type is read.

    Raises:
        Exception: its library cannot read or describe it.
    """
    with _making:
        if kind == "msgspec":
            return _of_msgspec(cls)
        pydantic = importlib.import_module("pydantic")
        try:
            adapter = pydantic.TypeAdapter(cls)
        except pydantic.PydanticUserError as exc:
            # Before Python 3.12, pydantic reads only the TypedDict of typing_extensions.
            if exc.code != "typed-dict-version":
                raise
            return _of_msgspec(cls)
        return TypeReader(adapter.validate_json, adapter.json_schema())


def _of_msgspec(cls: type[Any]) -> TypeReader:
    schema: dict[str, Any] = msgspec.json.schema(cls)
    return TypeReader(msgspec.json.Decoder(cls).decode, schema)


def dump_object(value: Any) -> Any:
    """Return a pydantic model as plain values for JSON.

    Raises:
        NotImplementedError: it is none.
    """
    if not callable(dump := getattr(value, "model_dump", None)):
        raise NotImplementedError(f"{type(value).__name__} has no JSON form")
    return dump(mode="json")
