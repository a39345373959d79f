"""Kinds of values, and what the API says of a value that is of another kind.

A check takes a value and returns an empty text if it is valid; otherwise the path below the value, and the message:
`.0.type: Field required`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

Check: TypeAlias = Callable[[Any], str]

OBJECT = "Input should be an object"
SHAPE = "Input does not match the expected shape."
EXTRA = "Extra inputs are not permitted"
MISSING = "Field required"


def anything(_: Any) -> str:
    """Accept any value."""
    return ""


def make_text(least: int = 0, most: int | None = None, pattern: str = "") -> Check:
    matches = re.compile(pattern).search if pattern else None

    def check(value: Any) -> str:
        if type(value) is not str:
            return ": Input should be a valid string"
        if len(value) < least:
            return f": String should have at least {least} character{'s' * (least > 1)}"
        if most is not None and len(value) > most:
            return f": String should have at most {most} characters"
        if matches is not None and not matches(value):
            return f": String should match pattern '{pattern}'"
        return ""

    return check


def make_integer(least: int | None = None, told: str = "Input should be greater than or equal to") -> Check:
    def check(value: Any) -> str:
        if type(value) is not int:
            return ": Input should be a valid integer"
        return f": {told} {least}" if least is not None and value < least else ""

    return check


def check_fraction(value: Any) -> str:
    """Accept numbers from 0 to 1."""
    if type(value) not in (int, float):
        return ": Input should be a valid number"
    return "" if 0 <= value <= 1 else ": range: 0..1"


def check_flag(value: Any) -> str:
    """Accept true and false."""
    return "" if type(value) is bool else ": Input should be a valid boolean"


def check_map(value: Any) -> str:
    """Accept any object."""
    return "" if type(value) is dict else f": {OBJECT}"


def make_choice(*values: str) -> Check:
    *first, last = (f"'{value}'" for value in values)
    told = f": Input should be {', '.join(first)} or {last}" if first else f": Input should be {last}"
    return lambda value: "" if type(value) is str and value in values else told


def make_array(item: Check) -> Check:
    def check(value: Any) -> str:
        if type(value) is not list:
            return ": Input should be a valid array"
        for index, member in enumerate(value):
            if problem := item(member):
                return f".{index}{problem}"
        return ""

    return check


def make_optional(kind: Check) -> Check:
    """Return the check that also accepts null."""
    return lambda value: "" if value is None else kind(value)


def make_text_or(kind: Check) -> Check:
    """Return the check that also accepts a string."""
    return lambda value: "" if type(value) is str else kind(value)


#: Whether fields and types that are not known are accepted now.
_lenient: ContextVar[bool] = ContextVar("lenient", default=False)


@contextmanager
def accept_unknown() -> Iterator[None]:
    """Accept fields and types that are not known, while the block runs."""
    token = _lenient.set(True)
    try:
        yield
    finally:
        _lenient.reset(token)


class Shape:
    """The check of an object with these fields, which are checked in their order, and no others."""

    def __init__(self, fields: Mapping[str, Check], required: tuple[str, ...] = (), wrong: str = OBJECT) -> None:
        self.fields = dict(fields)
        self._required = frozenset(required)
        self._wrong = wrong

    def __call__(self, value: Any) -> str:
        if type(value) is not dict:
            return f": {self._wrong}"
        found = 0
        for name, kind in self.fields.items():
            if name in value:
                found += 1
                if problem := kind(value[name]):
                    return f".{name}{problem}"
            elif name in self._required:
                return f".{name}: {MISSING}"
        if found == len(value) or _lenient.get():
            return ""
        return f".{next(name for name in value if name not in self.fields)}: {EXTRA}"


class Union:
    """The check of an object whose `type` says which of the shapes it has; `default`: without a type."""

    def __init__(self, shapes: Mapping[str, Check], default: str = "") -> None:
        self.shapes = dict(shapes)
        self._default = default
        self._tags = ", ".join(f"'{tag}'" for tag in sorted(shapes))

    def __call__(self, value: Any) -> str:
        if type(value) is not dict:
            return f": {OBJECT}"
        tag = value.get("type") or self._default
        if not tag:
            return f".type: {MISSING}"
        kind = self.shapes.get(tag) if type(tag) is str else None
        if kind is None:
            if type(tag) is str and _lenient.get():
                return ""
            return f": Input tag '{tag}' found using 'type' does not match any of the expected tags: {self._tags}"
        problem = kind(value)
        return f".{tag}{problem}" if problem else ""
