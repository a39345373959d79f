"""The JSON schemas that the API can keep a model to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: The keywords of JSON Schema that are refused with each type.
UNSUPPORTED: dict[str, tuple[str, ...]] = {
    "integer": ("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"),
    "number": ("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"),
    "string": ("maxLength", "minLength"),
    "array": ("maxItems", "uniqueItems", "contains", "prefixItems"),
    "object": ("maxProperties", "minProperties", "patternProperties"),
}
_TYPED_OTHERWISE = ("type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const")


def find_schema_problem(schema: Any) -> str:
    """Return why the API would refuse to keep a model to a schema; an empty text: it would not."""
    if type(schema) is not dict:
        return ""
    if not any(name in schema for name in _TYPED_OTHERWISE):
        return f"Invalid schema: Schema type is missing for schema: {schema}"
    for type_ in _types_of(schema):
        if problem := _find_type_problem(schema, type_):
            return problem
    return next(filter(None, map(find_schema_problem, _inner_schemas(schema))), "")


def _types_of(schema: dict[str, Any]) -> list[str]:
    type_ = schema.get("type")
    return [t for t in (type_ if type(type_) is list else [type_]) if type(t) is str]


def _find_type_problem(schema: dict[str, Any], type_: str) -> str:
    if type_ == "object" and schema.get("additionalProperties") is not False:
        return "For 'object' type, 'additionalProperties' must be explicitly set to false"
    if names := [name for name in UNSUPPORTED.get(type_, ()) if name in schema]:
        told = f"property '{names[0]}' is" if len(names) == 1 else f"properties {', '.join(names)} are"
        return f"For '{type_}' type, {told} not supported"
    if type_ == "array" and schema.get("minItems") not in (None, 0, 1):
        return "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    return ""


def _inner_schemas(schema: dict[str, Any]) -> Iterator[Any]:
    for name in ("properties", "$defs", "definitions"):
        inner = schema.get(name)
        yield from inner.values() if type(inner) is dict else ()
    for name in ("anyOf", "oneOf", "allOf"):
        inner = schema.get(name)
        yield from inner if type(inner) is list else ()
    yield schema.get("items")
