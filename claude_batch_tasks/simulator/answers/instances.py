"""A valid instance of a JSON schema: small, and always the same."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from .patterns import make_match

Schema: TypeAlias = Any
#: Makes an instance of a schema, given what a text says, and the references that led there.
_Maker: TypeAlias = Callable[[dict[str, Any], str, tuple[str, ...]], Any]

#: A value of each format.
FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "duration": "P1D",
    "email": "user@example.com",
    "hostname": "example.com",
    "idn-email": "user@example.com",
    "idn-hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "iri": "https://example.com/",
    "iri-reference": "/path",
    "json-pointer": "/path",
    "regex": "a*",
    "time": "12:00:00Z",
    "uri": "https://example.com/",
    "uri-reference": "/path",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
}
#: Which type a schema without `type` means, by the keywords that only this type has.
_HINTS = {
    "object": ("properties", "required", "additionalProperties", "minProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_NO_LIMIT = math.inf


class _Impossible(Exception):
    """There is no instance here: the schema is false, or contains itself."""


def make_instance(schema: Schema) -> Any:
    """Return an instance of a schema; an empty object where it has none that can be found.

    Known are the usual keywords: type, enum, const, properties, required, additionalProperties, items, prefixItems,
    limits of sizes and numbers, format, pattern (as far as it is simple), anyOf, oneOf, allOf, and references into
    the schema itself. Optional properties are in it, unless the schema would contain itself.
    """
    try:
        return _Writer(schema).make_value(schema, "text", ())
    except _Impossible:
        return {}


class _Writer:
    def __init__(self, root: Schema) -> None:
        self._root = root
        #: By keyword: what decides before the type does.
        self._first_makers: dict[str, _Maker] = {
            "$ref": self._follow_reference,
            "const": lambda schema, *_: schema["const"],
            "enum": lambda schema, *_: schema["enum"][0],
            "allOf": lambda schema, *beside: self.make_value(self._merge_all(schema), *beside),
            "anyOf": lambda schema, *beside: self._make_first(schema, "anyOf", *beside),
            "oneOf": lambda schema, *beside: self._make_first(schema, "oneOf", *beside),
        }
        #: By type.
        self._makers: dict[str, _Maker] = {
            "object": self._make_object,
            "array": self._make_array,
            "string": _make_string,
            "integer": _make_number,
            "number": _make_number,
            "boolean": lambda *_: True,
            "null": lambda *_: None,
        }

    def make_value(self, schema: Schema, name: str, refs: tuple[str, ...]) -> Any:
        """Return an instance; `name` is what a text says, `refs` are the references that led here."""
        if schema is True:
            return name
        if not isinstance(schema, dict) or schema.get("enum") == []:
            raise _Impossible
        for keyword, maker in self._first_makers.items():
            if keyword in schema:
                return maker(schema, name, refs)
        kind = _find_type(schema)
        return self._makers[kind](schema, name, refs) if kind in self._makers else name

    def _follow_reference(self, schema: dict[str, Any], name: str, refs: tuple[str, ...]) -> Any:
        ref = schema["$ref"]
        if ref in refs:
            raise _Impossible
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return self.make_value(_merge(self._resolve(ref), beside), name, (*refs, ref))

    def _resolve(self, ref: str) -> Schema:
        target = self._root
        for part in ref.removeprefix("#").split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, dict) else None
        return target

    def _merge_all(self, schema: dict[str, Any]) -> Schema:
        merged: Schema = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            while isinstance(part, dict) and "$ref" in part:
                beside = {key: value for key, value in part.items() if key != "$ref"}
                part = _merge(self._resolve(part["$ref"]), beside)
            merged = _merge(merged, part)
        return merged

    def _make_first(self, schema: dict[str, Any], keyword: str, name: str, refs: tuple[str, ...]) -> Any:
        """Return an instance of the first branch that has one."""
        base = {key: value for key, value in schema.items() if key not in (keyword, "title", "description", "default")}
        for branch in schema[keyword]:
            try:
                return self.make_value({"allOf": [base, branch]} if base else branch, name, refs)
            except _Impossible:
                continue
        raise _Impossible

    def _make_object(self, schema: dict[str, Any], name: str, refs: tuple[str, ...]) -> dict[str, Any]:
        made = {}
        required = schema.get("required", ())
        others = schema.get("additionalProperties", True)
        known = schema.get("properties", {})
        names = [*known, *(key for key in required if key not in known)]
        names += [f"{name}_{number}" for number in range(1, 1 + schema.get("minProperties", 0) - len(names))]
        for key in names:
            try:
                made[key] = self.make_value(known.get(key, others), key, refs)
            except _Impossible:
                if key in required:
                    raise
        return made

    def _make_array(self, schema: dict[str, Any], name: str, refs: tuple[str, ...]) -> list[Any]:
        first = schema.get("prefixItems", [])
        made = [self.make_value(item, name, refs) for item in first]
        least = schema.get("minItems", 0)
        # One item where none is asked for, so that the items are seen.
        wanted = max(least, min(1, schema.get("maxItems", 1)))
        items = schema.get("contains", schema.get("items", True))
        try:
            made += self._make_items(items, wanted - len(made), name, refs, unique=schema.get("uniqueItems", False))
        except _Impossible:
            if len(made) < least:
                raise
        return made

    def _make_items(self, items: Schema, count: int, name: str, refs: tuple[str, ...], unique: bool) -> list[Any]:
        if count <= 0:
            return []
        if not unique or count == 1:
            return [self.make_value(items, name, refs)] * count
        if isinstance(items, dict) and items.get("enum"):
            return list(items["enum"][:count])
        kind = _find_type(items) if isinstance(items, dict) else "string"
        if kind in ("integer", "number"):
            start = self.make_value(items, name, refs)
            return [start + number * items.get("multipleOf", 1) for number in range(count)]
        return [self.make_value(items, f"{name}{number}", refs) for number in range(1, count + 1)]


def _find_type(schema: dict[str, Any]) -> str:
    """Return the type that an instance of the schema has: the first that is not null."""
    given = schema.get("type")
    if isinstance(given, str):
        return given
    if given:
        return next((kind for kind in given if kind != "null"), "null")
    return next((kind for kind, keywords in _HINTS.items() if any(word in schema for word in keywords)), "")


def _merge(one: Schema, other: Schema) -> Schema:
    """Return a schema that asks for what both ask for, as far as keywords can be joined."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return other if one is True else one if other is True else False
    joined = {key: join(one[key], other[key]) for key, join in _JOINS.items() if key in one and key in other}
    return {**one, **other, **joined}


def _join_properties(one: dict[str, Schema], other: dict[str, Schema]) -> dict[str, Schema]:
    both = {name: {"allOf": [one[name], other[name]]} for name in one if name in other}
    return {**one, **other, **both}


#: How a keyword that two schemas have is joined; of others, the second schema's counts.
_JOINS: dict[str, Callable[[Any, Any], Any]] = {
    "properties": _join_properties,
    "required": lambda one, other: [*one, *(name for name in other if name not in one)],
    "enum": lambda one, other: [value for value in one if value in other],
    "allOf": lambda one, other: [*one, *other],
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}


def _make_string(schema: dict[str, Any], name: str, refs: tuple[str, ...]) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength", _NO_LIMIT)
    if "pattern" in schema:
        return next((text for text in _candidates(schema["pattern"], least) if least <= len(text) <= most), name)
    text = FORMATS.get(schema.get("format", ""), name)
    text = text.ljust(least, "x")
    return text if len(text) <= most else text[: int(most)]


def _candidates(pattern: str, least: int) -> Iterator[str]:
    """Yield texts that match the pattern, shorter ones first."""
    for extra in (*range(9), 16, 32, 64, 128, 256):
        if (text := make_match(pattern, extra)) is not None:
            yield from (each for each in (text, text.ljust(least, "x")) if re.search(pattern, each))


def _make_number(schema: dict[str, Any], name: str, refs: tuple[str, ...]) -> float:
    """Return 1, or the number next to it that the limits allow."""
    whole = schema.get("type") == "integer" or "integer" in (schema.get("type") or ())
    step = schema.get("multipleOf", 1 if whole else None)
    low, high = schema.get("minimum", -_NO_LIMIT), schema.get("maximum", _NO_LIMIT)
    above, below = schema.get("exclusiveMinimum", -_NO_LIMIT), schema.get("exclusiveMaximum", _NO_LIMIT)
    number: float = min(max(1, low), high)
    if step:
        return _find_multiple(step, number, max(low, above), above, min(high, below), below)
    if number <= above:
        number = above + 1
    if number >= below or number > high:
        least, most = max(low, above), min(high, below)
        number = (least + most) / 2 if math.isfinite(least) else most - 1
    return number


def _find_multiple(step: float, number: float, low: float, above: float, high: float, below: float) -> float:
    multiple = math.ceil(max(number, low) / step) * step if math.isfinite(low) or number > 0 else 0
    if multiple <= above:
        multiple += step
    if multiple > high or multiple >= below:
        multiple = math.floor(high / step) * step
        if multiple >= below:
            multiple -= step
    return multiple
