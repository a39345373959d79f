"""JSON schemas: their hash, and the form of them that structured outputs accept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

#: Keywords that say nothing about which answers fit.
_REMARKS = frozenset(("title", "description", "examples", "default", "$comment", "$schema", "$id", "deprecated"))

#: Those of them that the model reads.
_SHOWN = ("title", "description")

#: Keywords whose value maps names to schemas, holds a list of schemas, or is one.
_NAMED = frozenset(("properties", "$defs", "definitions", "patternProperties", "dependentSchemas"))
_LISTED = frozenset(("anyOf", "oneOf", "allOf", "prefixItems"))
_SINGLE = frozenset(
    ("items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames", "unevaluatedProperties")
)

#: Keywords under which a schema holds its definitions.
_PARTS = ("$defs", "definitions")

#: Formats of texts that structured outputs know.
_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"))

#: The most optional properties, and the most unions, of one schema.
_MOST_OPTIONAL, _MOST_UNIONS = 24, 16


class NotStructured(ValueError):
    """Structured outputs cannot express a schema; the text says why."""


def hash_schema(schema: Any) -> str:
    """Return the SHA-256 of a schema without its titles, descriptions and other remarks."""
    text = json.dumps(_strip_remarks(schema), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _strip_remarks(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    found = _map_parts(schema, _strip_remarks)
    if isinstance(required := found.get("required"), list):
        found["required"] = sorted(required, key=str)
    return {name: value for name, value in found.items() if name not in _REMARKS}


def _map_parts(schema: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """Return a schema with each schema that is directly in it changed."""
    found = dict(schema)
    for name, value in schema.items():
        if name in _NAMED and isinstance(value, dict):
            found[name] = {key: change(inner) for key, inner in value.items()}
        elif name in _LISTED and isinstance(value, list):
            found[name] = [change(inner) for inner in value]
        elif name in _SINGLE:
            found[name] = change(value)
    return found


def list_schemas(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema and all schemas in it."""
    todo = [schema]
    while todo:
        found = todo.pop()
        if isinstance(found, dict):
            yield found
            _map_parts(found, todo.append)


def inline_root(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose top is no reference, as that of a tool's input must be."""
    target, found = schema, schema.get("$ref")
    while isinstance(found, str):
        target = _follow(schema, found)
        found = target.get("$ref")
    if target is schema:
        return schema
    references = _list_references(target) | _list_references({"$defs": _definitions(schema)})
    kept = {
        part: {name: inner for name, inner in _named(schema, part) if f"#/{part}/{name}" in references}
        for part in _PARTS
    }
    return {**target, **{part: inner for part, inner in kept.items() if inner}}


def _follow(schema: dict[str, Any], reference: str) -> dict[str, Any]:
    found: Any = schema
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return dict(found)


def make_structured(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema in the form that structured outputs accept.

    What they do not know goes into the descriptions, which the model reads.

    Raises:
        NotStructured: what the schema says cannot be said in that form.
    """
    schema = inline_root(schema)
    _refuse_recursion(schema)
    found = _convert(schema)
    optional = unions = 0
    for each in list_schemas(found):
        optional += len(each.get("properties", {}).keys() - set(each.get("required", ())))
        unions += "anyOf" in each or isinstance(each.get("type"), list)
    if optional > _MOST_OPTIONAL:
        raise NotStructured(f"it has {optional} optional properties, and {_MOST_OPTIONAL} are the most")
    if unions > _MOST_UNIONS:
        raise NotStructured(f"it has {unions} unions, and {_MOST_UNIONS} are the most")
    return found


def _refuse_recursion(schema: dict[str, Any]) -> None:
    """Refuse a schema that refers to itself.

    Raises:
        NotStructured: it does.
    """
    definitions = {
        f"#/{part}/{name}": inner for part in ("$defs", "definitions") for name, inner in _named(schema, part)
    }
    refers = {name: _list_references(inner) for name, inner in definitions.items()}
    refers["#"] = _list_references(
        {name: value for name, value in schema.items() if name not in ("$defs", "definitions")}
    )
    done: set[str] = set()
    while ready := {name for name in refers.keys() - done if not (refers[name] & refers.keys()) - done}:
        done |= ready
    if len(done) < len(refers):
        raise NotStructured("it refers to itself")


def _definitions(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the definitions of a schema by the references to them."""
    return {f"#/{part}/{name}": inner for part in _PARTS for name, inner in _named(schema, part)}


def _named(schema: dict[str, Any], part: str) -> Iterator[tuple[str, Any]]:
    found = schema.get(part)
    yield from found.items() if isinstance(found, dict) else ()


def _list_references(schema: Any) -> set[str]:
    return {each["$ref"] for each in list_schemas(schema) if isinstance(each.get("$ref"), str)}


def _convert(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, dict):
        raise NotStructured("a part of it allows any value")
    left = {name: value for name, value in schema.items() if name not in _REMARKS}
    found: dict[str, Any] = {
        part: {name: _convert(inner) for name, inner in left.pop(part).items()} for part in _PARTS if part in left
    }
    if (reference := _single_reference(left)) is not None:
        return {"$ref": reference, **found}
    found |= {name: schema[name] for name in _SHOWN if name in schema}
    _convert_kind(left, found)
    _describe_rest(left, found)
    return found


def _describe_rest(left: dict[str, Any], found: dict[str, Any]) -> None:
    if not left:
        return
    rest = ", ".join(f"{name}: {_write(value)}" for name, value in left.items())
    found["description"] = "\n\n".join(filter(None, (found.get("description"), f"{{{rest}}}")))


def _single_reference(schema: dict[str, Any]) -> str | None:
    """Return the reference that a schema consists of, beside remarks."""
    only = schema.get("allOf")
    if isinstance(only, list) and len(only) == 1 and isinstance(only[0], dict) and "type" not in schema:
        schema = only[0]
    found = schema.get("$ref")
    return found if isinstance(found, str) else None


def _convert_kind(left: dict[str, Any], found: dict[str, Any]) -> None:
    """Move what is supported of a schema from ``left`` to ``found``."""
    _convert_choices(left, found)
    _convert_literals(left, found)
    if "type" in left:
        found["type"] = left.pop("type")
    elif not found.keys() & {"anyOf", "allOf", "enum", "const"}:
        raise NotStructured("a part of it allows any value")
    types = found.get("type", ())
    for name, convert in (("object", _convert_object), ("array", _convert_array), ("string", _convert_text)):
        if name in ([types] if isinstance(types, str) else types):
            convert(left, found)


def _convert_choices(left: dict[str, Any], found: dict[str, Any]) -> None:
    for name in ("anyOf", "oneOf", "allOf"):
        if isinstance(left.get(name), list):
            found["allOf" if name == "allOf" else "anyOf"] = [_convert(inner) for inner in left.pop(name)]
            left.pop("discriminator", None)
            return


def _convert_literals(left: dict[str, Any], found: dict[str, Any]) -> None:
    for name in ("enum", "const"):
        if name not in left:
            continue
        found[name] = left.pop(name)
        left.pop("type", None)
        values = found[name] if name == "enum" else [found[name]]
        if any(isinstance(value, (dict, list)) for value in values):
            raise NotStructured(f"its {name} holds an object or a list")


def _convert_object(left: dict[str, Any], found: dict[str, Any]) -> None:
    if left.pop("additionalProperties", False) is not False or "patternProperties" in left:
        raise NotStructured("an object of it has properties of any name")
    found["properties"] = {name: _convert(inner) for name, inner in left.pop("properties", {}).items()}
    if "required" in left:
        found["required"] = left.pop("required")
    found["additionalProperties"] = False


def _convert_array(left: dict[str, Any], found: dict[str, Any]) -> None:
    if "prefixItems" in left:
        raise NotStructured("a list of it has items of different types by position")
    found["items"] = _convert(left.pop("items", None))
    if left.get("minItems") in (0, 1):
        found["minItems"] = left.pop("minItems")


def _convert_text(left: dict[str, Any], found: dict[str, Any]) -> None:
    if left.get("format") in _FORMATS:
        found["format"] = left.pop("format")


def _write(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
