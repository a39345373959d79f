"""Values as JSON: what the SDK's ``client.messages.batches.create`` would send, and which values have no JSON form.

The SDK itself is not imported: a process that only submits jobs does not need it.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import inspect
import io
import json
import math
import os
import pathlib
import re
from collections import UserString
from collections.abc import Callable, Iterator, Mapping, MappingView, Sequence, Set
from datetime import date
from typing import Any

import msgspec

#: A name is shown as ``.name`` if it looks like this, else in quotes; it is cut after so many characters.
_NAME = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)
_LONGEST_NAME = 64

#: Sequences that are not written as lists.
_NO_LISTS = (str, bytes, bytearray, memoryview, UserString, io.IOBase, os.PathLike)

#: Kinds of numpy's scalars that are numbers or truth values.
_NUMBERS = ("b", "i", "u", "f")


def encode_plain(value: Any, where: str) -> tuple[Any, bytes, list[tuple[str, str]]]:
    """Return a value in JSON's own types, the same as compact JSON, and the places in it that have no JSON form.

    Args:
        where: the name of the value in messages.

    Returns:
        The value, its JSON, and for each wrong place its path, such as ``params.messages[0].content``, and what is
        wrong there. If there is such a place, the JSON is empty, and the value has None there.
    """
    # msgspec writes null for NaN, and dates, bytes and sets in forms of its own.
    try:
        if is_plain(value):
            return value, msgspec.json.encode(value), []
    except (RecursionError, ValueError):
        pass  # the walk below finds the place
    walk = _Walk()
    try:
        plain = walk.make_plain(value, where)
        return plain, b"" if walk.wrong else msgspec.json.encode(plain), walk.wrong
    except RecursionError:
        return None, b"", [(where, "is nested too deeply")]


#: The types of values that are plain whatever they are.
_ATOMS = frozenset((str, int, bool, type(None)))


def is_plain(value: Any) -> bool:
    """Return whether a value consists of exactly the types that JSON has, so that every encoder writes the same."""
    kind = type(value)
    if kind is dict:
        # Texts, which are the most frequent values, are checked without a call, because a call takes longer.
        for name, inner in value.items():
            if type(name) is not str or not (type(inner) is str or is_plain(inner)):
                return False
        return True
    if kind is list:
        return all(map(is_plain, value))
    if kind is float:
        return math.isfinite(value)
    return kind in _ATOMS


def is_omitted(value: Any) -> bool:
    """Return whether a value is the SDK's ``omit`` or ``NOT_GIVEN``, which stand for a missing field."""
    kind = type(value)
    return kind.__name__ in ("Omit", "NotGiven") and kind.__module__.partition(".")[0] == "anthropic"


def dump_model(value: Any) -> Any:
    """Return what the SDK sends for a pydantic model, such as a content block of an answer; return others unchanged."""
    if isinstance(value, type) or not callable(getattr(value, "model_dump", None)):
        return value
    excluded = getattr(value, "__api_exclude__", None)
    more = {"exclude": excluded} if excluded else {}
    return value.model_dump(mode="json", by_alias=True, exclude_unset=True, **more)


class _Walk:
    """One pass over a value that makes it plain and records what has no JSON form."""

    def __init__(self) -> None:
        self.wrong: list[tuple[str, str]] = []
        self._open: set[int] = set()

    def make_plain(self, value: Any, where: str) -> Any:
        """Return a value in JSON's own types, with None in place of what has no JSON form."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, type):
            return self._refuse_value(where, _of_class(value))
        if isinstance(value, str):
            return self._check_text(value, where)
        # As the standard library writes them, whatever methods a subclass has.
        if isinstance(value, int):
            return self._check_integer(int.__index__(value), where)
        if isinstance(value, float):
            return self._check_float(float.__float__(value), where)
        if (read := self._find_reader(value)) is None:
            return self._read_rare(value, where)
        if id(value) in self._open:
            return self._refuse_value(where, "contains itself")
        self._open.add(id(value))
        # Not in a method of its own: each makes less of what is nested fit on the stack.
        found = dict(self._plain_items(value, where)) if isinstance(value, Mapping) else read(value, where)
        self._open.discard(id(value))
        return found

    def _find_reader(self, value: Any) -> Callable[[Any, str], Any] | None:
        """Return the method that reads a value which holds others; None: it holds none."""
        if isinstance(value, Mapping):
            return self._plain_items
        if isinstance(value, (Sequence, Set, MappingView, Iterator)) and not isinstance(value, _NO_LISTS):
            return self._plain_list
        return self._plain_model if callable(getattr(value, "model_dump", None)) else None

    def _read_rare(self, value: Any, where: str) -> Any:
        if isinstance(value, date):
            return value.isoformat()
        if getattr(value, "shape", None) == () and getattr(getattr(value, "dtype", None), "kind", None) in _NUMBERS:
            number = value.item()
            if type(number) in (bool, int, float):
                return self.make_plain(number, where)
        return self._refuse_value(where, _of_instance(value))

    def _refuse_value(self, where: str, why: str) -> Any:
        self.wrong.append((where, why))
        return None

    def _check_float(self, number: float, where: str) -> Any:
        if math.isfinite(number):
            return number
        return self._refuse_value(where, f"is {number}, which JSON does not have")

    def _check_text(self, value: str, where: str) -> Any:
        text = str.__str__(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            return self._refuse_value(where, "holds an unpaired surrogate, which is not valid Unicode")
        return text

    def _check_integer(self, value: int, where: str) -> Any:
        try:
            str(value)
        except ValueError:
            return self._refuse_value(where, "has more digits than Python writes")
        return value

    def _plain_items(self, value: Mapping[Any, Any], where: str) -> Iterator[tuple[str, Any]]:
        is_base64 = value.get("type") == "base64"
        for key, inner in value.items():
            if is_omitted(inner):
                continue
            if not isinstance(key, (str, int, float, bool, type(None))):
                self._refuse_value(where, f"has a key that is {_name_kind(key)}; keys are texts")
                continue
            name = key if isinstance(key, str) else json.dumps(key)
            inside = f"{where}{_path_step(name)}"
            name = self._check_text(name, inside) or ""
            if is_base64 and name == "data" and _is_file(inner):
                yield name, self._read_content(inner, inside)
            else:
                yield name, self.make_plain(inner, inside)

    def _plain_list(self, value: Any, where: str) -> list[Any]:
        return [self.make_plain(inner, f"{where}[{number}]") for number, inner in enumerate(value)]

    def _plain_model(self, value: Any, where: str) -> Any:
        try:
            found = dump_model(value)
        except Exception as exc:  # noqa: BLE001 - pydantic's, or of the user's own serializers
            return self._refuse_value(where, f"is {_name_kind(value)} whose model_dump() raises {type(exc).__name__}")
        if isinstance(found, dict) and found.get("type") == "message" and "content" in found:
            text = 'is a whole answer; write {"role": "assistant", "content": answer.content} instead'
            return self._refuse_value(where, text)
        return self.make_plain(found, where)

    def _read_content(self, file: Any, where: str) -> Any:
        """Return the rest of a file, read and encoded as base64."""
        if isinstance(file, os.PathLike) and not isinstance(file, pathlib.Path):
            return self._refuse_value(where, f"is {_name_kind(file)}; write a pathlib.Path or an open file")
        try:
            content = file.read_bytes() if isinstance(file, pathlib.Path) else file.read()
        except UnicodeDecodeError:
            return self._refuse_value(where, "is a file that is open as text; open it with mode 'rb'")
        except OSError as exc:
            return self._refuse_value(where, f"is a file that cannot be read: {exc.strerror or type(exc).__name__}")
        except ValueError as exc:
            return self._refuse_value(where, f"is a file that cannot be read: {exc}")
        return self._encode_file(content, file, where)

    def _encode_file(self, content: Any, file: Any, where: str) -> Any:
        if isinstance(content, str):
            content = content.encode(errors="surrogateescape")
        if not isinstance(content, bytes):
            return self._refuse_value(where, f"is a file that reads as {_name_kind(content)}, not as bytes")
        if not content:
            return self._refuse_value(where, "is a file with nothing (more) to read; give its path, or open it again")
        return base64.b64encode(content).decode()


def _is_file(value: Any) -> bool:
    if isinstance(value, type):
        return False
    return isinstance(value, os.PathLike) or callable(getattr(value, "read", None))


def _path_step(name: str) -> str:
    if _NAME.fullmatch(name):
        return f".{name}"
    shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    return f"[{json.dumps(shown)}]"


def _name_kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in ('a', 'e', 'i', 'o') else 'a'} {name}"


def _of_class(cls: type) -> str:
    text = f"is the class {cls.__name__}, not an instance of it"
    if hasattr(cls, "model_json_schema"):
        text += f"; its JSON schema is anthropic.transform_schema({cls.__name__})"
    return text


def _of_instance(value: Any) -> str:
    """Explain why a value has no JSON form, and what to write in its place."""
    if is_omitted(value):
        return f"is the SDK's {type(value).__name__}, which may stand for a field alone; leave it out"
    hint = next(hint for applies, hint in _HINTS if applies(value))
    return f"is {_name_kind(value)}, which has no JSON form; {hint}"


_HINTS: tuple[tuple[Callable[[Any], Any], str], ...] = (
    (
        lambda value: isinstance(value, (bytes, bytearray, memoryview)),
        "write base64.b64encode(...).decode() for a file's bytes, .decode() for text",
    ),
    (_is_file, 'a path or an open file is read as the "data" of a source of type "base64" only'),
    (lambda value: isinstance(value, enum.Enum), "write its .value"),
    (dataclasses.is_dataclass, "write dataclasses.asdict(...)"),
    (inspect.isawaitable, "await it first"),
    (inspect.isasyncgen, "collect it into a list first"),
    (lambda value: hasattr(value, "tolist"), "write its .tolist()"),
    (lambda value: hasattr(value, "to_dict"), "write its .to_dict()"),
    (lambda value: hasattr(value, "__iter__"), "write list(...)"),
    (lambda value: True, "write a text, a number, a list or a dict"),
)
