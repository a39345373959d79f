"""JSON that is read and written without limits on numbers and nesting, and with small violations of the format.

It is slower than the usual readers, so these are tried first. Nothing here is recursive: nesting costs no stack.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec

#: Levels of nesting that become lists and dicts. Python's own encoders and copiers can handle several times as many.
DEPTH = 100

#: Kinds of values that need a decision: a number, a word that is no JSON (NaN, Infinity, others), a list or dict below
#: DEPTH, and strings with half a surrogate pair or with an escape that JSON does not have.
Odd = Literal["number", "constant", "word", "deep", "surrogate", "escape"]

#: Digits of an integer that Python converts, unless an application sets a lower limit.
_DIGITS = 4300

_CONSTANTS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_WORDS = {"true": True, "false": False, "null": None}

_BLANKS = " \t\n\r"
_SPACE = re.compile(r"[ \t\n\r]*")
_BARE = re.compile(r'[^\s"\[\]{},:]+')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<fraction>(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)\Z")
_BRACKETS_OR_QUOTE = re.compile(r'[\[{]+|[\]}]+|"')
_ESCAPE = re.compile(r'\\(?:(u[0-9a-fA-F]{4}|["\\/bfnrt])|)')
_SURROGATE = re.compile("[\ud800-\udfff]")

#: This decoder accepts control characters in strings, which JSON does not allow.
_STRINGS = json.JSONDecoder(strict=False)


_decode = msgspec.json.Decoder().decode

#: What msgspec raises for a text that it cannot read; before 0.20 its errors were not ValueErrors.
REFUSED = (msgspec.DecodeError, ValueError, RecursionError)


class BreaksOff(ValueError):
    """A JSON text ends before its value does."""


class Raw(str):
    """A part of a JSON text that stays as it is."""

    __slots__ = ()


def loads(data: bytes | str) -> Any:
    """Return the values of a JSON text, such that ``encode_json`` writes them without loss.

    Parts that Python cannot hold are ``Raw``.

    Raises:
        BreaksOff: the text ends before its value.
        ValueError: the text is not JSON.
    """
    try:
        return _decode(data)
    except REFUSED:
        return _parse_text(_decode_text(data), _keep_unchanged)


def read_json(data: bytes | str) -> tuple[Any, str | None]:
    """Return the values of a JSON text, and a note about values that differ from what the text says.

    Integers with more digits than Python converts, and values nested deeper than DEPTH, become text. Numbers that are
    too large for a float become infinite.

    Raises:
        ValueError: the text is not JSON.
    """
    try:
        return _decode(data), None
    except REFUSED:
        pass
    notes: dict[str, None] = {}

    def convert(kind: Odd, text: str) -> Any:
        if kind == "number":
            value = _convert_number(text)
            if value is text:
                notes[f"an integer of {len(text):,} digits is given as text"] = None
            elif isinstance(value, float) and math.isinf(value):
                notes["a number too large for a float is given as infinite"] = None
            return value
        notes[_NOTES[kind]] = None
        return _CONSTANTS[text] if kind == "constant" else text

    return _parse_noting_bytes(data, convert, notes), _join_notes(notes)


def strict_member(data: bytes, name: str) -> tuple[bytes, str | None]:
    """Return a member of a JSON object as strict JSON in one line, and a note about what was changed in it.

    Raises:
        ValueError: the text is not JSON, or not an object with this member.
    """
    notes: dict[str, None] = {}

    def convert(kind: Odd, text: str) -> Any:
        if kind in ("constant", "word", "escape"):
            notes[_NOTES["word" if kind == "constant" else kind]] = None
            return text
        return _keep_unchanged(kind, text)

    value = _parse_noting_bytes(data, convert, notes)
    if not isinstance(value, dict) or name not in value:
        raise ValueError(f"no JSON object with {name!r}")
    return encode_json(value[name]), _join_notes(notes)


def encode_json(value: Any) -> bytes:
    """Write values as JSON, with ``Raw`` parts unchanged."""
    parts: list[str] = []
    todo = [value]
    while todo:
        value = todo.pop()
        if isinstance(value, Raw):
            parts.append(value)
        elif isinstance(value, dict):
            todo.append(Raw("}"))
            for place, (name, inner) in reversed(list(enumerate(value.items()))):
                todo += (inner, Raw(f"{',' if place else ''}{json.dumps(name)}:"))
            todo.append(Raw("{"))
        elif isinstance(value, list):
            todo.append(Raw("]"))
            for place, inner in reversed(list(enumerate(value))):
                todo += (inner, Raw("," if place else ""))
            todo.append(Raw("["))
        else:
            parts.append(json.dumps(value))
    text = "".join(parts)
    if not text.isascii():  # from a ``Raw`` part
        text = _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return text.encode()


_NOT_UTF8 = "bytes that are not UTF-8 are given as U+FFFD"
_NOTES: dict[Odd, str] = {
    "constant": "NaN or Infinity, which JSON does not have, is given as a float",
    "word": "a value that is not JSON is given as text",
    "deep": f"what is nested deeper than {DEPTH} levels is given as text",
    "surrogate": "a text holds half of a surrogate pair",
    "escape": "a text holds an escape that JSON does not have",
}


def _join_notes(notes: dict[str, None]) -> str | None:
    # The list is cut, because an answer may hold numbers of any number of lengths.
    return "; ".join(list(notes)[:10]) or None


def _decode_text(data: bytes | str) -> str:
    return data if isinstance(data, str) else data.decode("utf-8-sig", errors="replace")


def _parse_noting_bytes(data: bytes | str, convert: Callable[[Odd, str], Any], notes: dict[str, None]) -> Any:
    """Return the value of a text; add a note if its bytes are not UTF-8."""
    text = _decode_text(data)
    value = _parse_text(text, convert)
    if isinstance(data, bytes) and "\ufffd" in text and not _is_utf8(data):
        notes[_NOT_UTF8] = None
    return value


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _convert_number(text: str) -> int | float | str:
    """Convert a number; return an integer with more digits than Python converts as text."""
    found = _NUMBER.match(text)
    if found is None or found["fraction"]:
        return float(text)
    try:
        return int(text) if len(text.lstrip("-")) <= _DIGITS else text
    except ValueError:
        return text


def _keep_unchanged(kind: Odd, text: str) -> Any:
    """Keep as ``Raw`` what ``encode_json`` could not write again in the same form."""
    if kind in ("surrogate", "escape"):
        return text
    short = kind == "number" and len(text) < 19 and text.lstrip("-").isdigit()
    # Line ends can only be white space between values here.
    return int(text) if short else Raw(text.replace("\n", " ").replace("\r", " "))


def _parse_text(text: str, convert: Callable[[Odd, str], Any]) -> Any:
    """Return the value of a text.

    Args:
        convert: returns the value for everything that is odd, and for every number.
    """
    # The lists and dicts that are open around the current position, each with the name of the next value in it.
    around: list[tuple[Any, str]] = []
    at = _skip_space(text, 0)
    while True:
        value, at, is_open = _begin_value(text, at, len(around), convert)
        if is_open:
            name, at = _next_name(value, text, at, convert)
            around.append((value, name))
            continue
        # The value has ended, and perhaps also the list or dict that holds it.
        while True:
            at = _skip_space(text, at)
            if not around:
                if at < len(text):
                    raise ValueError(f"Extra data after the JSON value, at character {at}")
                return value
            outer, name = around[-1]
            if isinstance(outer, dict):
                outer[name] = value
            else:
                outer.append(value)
            follows = text[at : at + 1]
            if follows == ",":
                name, at = _next_name(outer, text, _skip_space(text, at + 1), convert)
                around[-1] = outer, name
                break
            if follows != _ENDS[type(outer)]:
                raise _not_json(text, at)
            value, at = around.pop()[0], at + 1


def _begin_value(text: str, at: int, depth: int, convert: Callable[[Odd, str], Any]) -> tuple[Any, int, bool]:
    """Return the value that begins there, where it ends, and whether it is a list or dict that still holds values."""
    first = text[at : at + 1]
    if first == '"':
        return *_parse_string(text, at, convert), False
    if first not in _CLOSES:
        return *_parse_bare(text, at, convert, alone=not depth), False
    if depth == DEPTH:
        end = _end_of(text, at)
        return convert("deep", text[at:end]), end, False
    value: Any = {} if first == "{" else []
    at = _skip_space(text, at + 1)
    return (value, at + 1, False) if text[at : at + 1] == _CLOSES[first] else (value, at, True)


_CLOSES = {"{": "}", "[": "]"}
_ENDS: dict[type, str] = {dict: "}", list: "]"}


def _not_json(text: str, at: int) -> ValueError:
    return ValueError(f"not JSON at character {at}") if at < len(text) else BreaksOff("the JSON is cut off")


def _skip_space(text: str, at: int) -> int:
    if text[at : at + 1] not in _BLANKS:
        return at
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _next_name(outer: Any, text: str, at: int, convert: Callable[[Odd, str], Any]) -> tuple[str, int]:
    """Return the name at this position, and where its value begins; a list has no names."""
    if not isinstance(outer, dict):
        return "", at
    if text[at : at + 1] != '"':
        raise _not_json(text, at)
    name, at = _parse_string(text, at, convert)
    at = _skip_space(text, at)
    if text[at : at + 1] != ":":
        raise _not_json(text, at)
    return name, _skip_space(text, at + 1)


def _parse_string(text: str, at: int, convert: Callable[[Odd, str], Any]) -> tuple[str, int]:
    """Return the string at this position, and where it ends."""
    value: str
    try:
        value, end = _STRINGS.raw_decode(text, at)
    except ValueError:
        end = _end_of_string(text, at)
        # A backslash that does not begin an escape stands for itself.
        mended = _ESCAPE.sub(lambda escape: escape[0] if escape[1] else "\\\\", text[at:end])
        value = convert("escape", _STRINGS.decode(mended))
    if not value.isascii() and _SURROGATE.search(value):
        value = convert("surrogate", value)
    return value, end


def _parse_bare(text: str, at: int, convert: Callable[[Odd, str], Any], *, alone: bool) -> tuple[Any, int]:
    """Return the number or word at this position, and where it ends; a text of one unknown word is not JSON."""
    found = _BARE.match(text, at)
    if found is None:
        raise _not_json(text, at)
    word = found[0]
    if word in _WORDS:
        return _WORDS[word], found.end()
    kind: Odd = "number" if _NUMBER.match(word) else "constant" if word in _CONSTANTS else "word"
    if alone and kind == "word":
        raise _not_json(text, at)
    return convert(kind, word), found.end()


def _end_of(text: str, at: int) -> int:
    """Return where the list or object that begins there ends."""
    level = 0
    while found := _BRACKETS_OR_QUOTE.search(text, at):
        at, first = found.end(), found[0][0]
        if first == '"':
            at = _end_of_string(text, found.start())
        elif first in "[{":
            level += at - found.start()
        elif (level := level - (at - found.start())) <= 0:
            return at + level
    raise BreaksOff("the JSON is cut off")


def _end_of_string(text: str, at: int) -> int:
    """Return where the string that begins there ends."""
    end = at
    while (end := text.find('"', end + 1)) >= 0:
        escape = end
        while text[escape - 1] == "\\":
            escape -= 1
        if (end - escape) % 2 == 0:
            return end + 1
    raise BreaksOff("the JSON is cut off")
