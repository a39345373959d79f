"""A text that a regular expression matches, as far as the expression is simple."""

from __future__ import annotations

import importlib
import re
import string
import sys
from collections.abc import Callable
from typing import Any

# The parser of the standard library has no public name.
_parse = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse").parse

_ALPHABET = string.ascii_lowercase + string.ascii_uppercase + string.digits + "_- .,:;/@#!?+*=()[]{}<>\"'\\|~^%&$\n\t"
_CATEGORIES: dict[str, Callable[[str], bool]] = {
    "CATEGORY_DIGIT": str.isdigit,
    "CATEGORY_NOT_DIGIT": lambda char: not char.isdigit(),
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_NOT_SPACE": lambda char: not char.isspace(),
    "CATEGORY_WORD": lambda char: char.isalnum() or char == "_",
    "CATEGORY_NOT_WORD": lambda char: not (char.isalnum() or char == "_"),
}


def make_match(pattern: str, extra: int = 0) -> str | None:
    """Return a text that the pattern probably matches; None if it is no pattern of Python's.

    Args:
        pattern: the regular expression.
        extra: how much longer than necessary its repetitions are.
    """
    try:
        return _Writer(extra).write_all(_parse(pattern))
    except (re.error, OverflowError, RecursionError):
        return None


class _Writer:
    def __init__(self, extra: int) -> None:
        self._extra = extra
        self._groups: dict[int, str] = {}

    def write_all(self, items: Any) -> str:
        return "".join(self._write_item(str(op), value) for op, value in items)

    def _write_item(self, op: str, value: Any) -> str:
        if op == "LITERAL":
            return chr(value)
        if op in ("ANY", "NOT_LITERAL", "IN"):
            return _choose_char(op, value)
        if op in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            least, most, items = value
            return "".join(self.write_all(items) for _ in range(min(least + self._extra, int(most))))
        if op == "SUBPATTERN":
            self._groups[value[0]] = text = self.write_all(value[-1])
            return text
        if op == "BRANCH":
            return self.write_all(value[1][0])
        if op == "ATOMIC_GROUP":
            return self.write_all(value)
        # Places and conditions have no text of their own.
        return self._groups.get(value, "") if op == "GROUPREF" else ""


def _choose_char(op: str, value: Any) -> str:
    if op == "ANY":
        return "a"
    if op == "NOT_LITERAL":
        return "b" if value == ord("a") else "a"
    negated = str(value[0][0]) == "NEGATE"
    members = value[1:] if negated else value
    for char in _ALPHABET:
        if any(_is_member(char, str(kind), member) for kind, member in members) != negated:
            return char
    # None of the usual characters: the first of the set.
    kind, member = value[0]
    return chr(member if str(kind) == "LITERAL" else member[0])


def _is_member(char: str, kind: str, member: Any) -> bool:
    if kind == "LITERAL":
        return bool(ord(char) == member)
    if kind == "RANGE":
        return bool(member[0] <= ord(char) <= member[1])
    return _CATEGORIES[str(member)](char)
