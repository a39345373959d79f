from __future__ import annotations

import importlib
from typing import Any

import anthropic
import pytest

from claude_batch_tasks import outputs
from claude_batch_tasks.outputs.schemas import NotStructured, make_structured
from claude_batch_tasks.outputs.structured_models import has_structured_outputs, takes_forced_tool
from tests.unit.outputs import kinds


def schema_of(output: Any) -> dict[str, Any]:
    found = outputs.describe_output(output)
    assert found is not None
    schema: dict[str, Any] = found["schema"]
    return schema


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


class TestTheFormOfStructuredOutputs:
    def test_allows_no_other_properties(self) -> None:
        found = make_structured(an_object(a=an_object(b={"type": "integer"})))
        assert found["additionalProperties"] is False
        assert found["properties"]["a"]["additionalProperties"] is False

    def test_says_in_descriptions_what_it_does_not_know(self) -> None:
        found = make_structured(schema_of(kinds.Review))
        assert found["properties"]["stars"]["description"] == "{maximum: 5, minimum: 1}"
        assert found["properties"]["title"]["description"] == "{maxLength: 20}"
        assert found["description"] == "A review."

    @pytest.mark.parametrize(
        ("schema", "expected"),
        [
            ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
            ({"type": "string", "format": "color"}, {"type": "string", "description": "{format: color}"}),
            (
                {"type": "array", "items": {"type": "null"}, "minItems": 1},
                {"type": "array", "items": {"type": "null"}, "minItems": 1},
            ),
            (
                {"type": "array", "items": {"type": "null"}, "minItems": 2},
                {"type": "array", "items": {"type": "null"}, "description": "{minItems: 2}"},
            ),
            ({"enum": ["a", None], "type": ["string", "null"]}, {"enum": ["a", None]}),
            ({"const": 7, "default": 7}, {"const": 7}),
            (
                {"oneOf": [{"type": "null"}, {"type": "string"}], "discriminator": {"propertyName": "x"}},
                {"anyOf": [{"type": "null"}, {"type": "string"}]},
            ),
            (
                {"type": ["string", "null"], "pattern": "^a"},
                {"type": ["string", "null"], "description": "{pattern: ^a}"},
            ),
        ],
    )
    def test_of_keywords(self, schema: dict[str, Any], expected: dict[str, Any]) -> None:
        assert make_structured(an_object(a=schema))["properties"]["a"] == expected

    def test_has_references_without_what_stands_beside_them(self) -> None:
        schema = an_object(a={"allOf": [{"$ref": "#/$defs/A"}], "default": 1}, b={"$ref": "#/$defs/A", "title": "B"})
        found = make_structured({**schema, "$defs": {"A": {"type": "integer"}}})
        assert found["properties"] == {"a": {"$ref": "#/$defs/A"}, "b": {"$ref": "#/$defs/A"}}
        assert found["$defs"] == {"A": {"type": "integer"}}

    def test_has_no_reference_at_its_top(self) -> None:
        found = make_structured(schema_of(kinds.Packet))
        assert "$ref" not in found
        assert found["properties"].keys() == {"size", "parts"}

    @pytest.mark.parametrize(
        ("output", "why"),
        [
            (kinds.Node, "refers to itself"),
            (kinds.Free, "properties of any name"),
            (kinds.Anything, "allows any value"),
            (an_object(a={"type": "object", "additionalProperties": True}), "properties of any name"),
            (an_object(a={"type": "array"}), "allows any value"),
            (an_object(a=True), "allows any value"),
            (an_object(a={"enum": [{"b": 1}]}), "holds an object"),
            (an_object(a={"type": "array", "prefixItems": [{"type": "null"}]}), "by position"),
            ({"type": "object", "properties": {f"p{n}": {"type": "null"} for n in range(25)}}, "25 optional"),
            (an_object(**{f"p{n}": {"type": ["string", "null"]} for n in range(17)}), "17 unions"),
        ],
    )
    def test_cannot_say_everything(self, output: Any, why: str) -> None:
        with pytest.raises(NotStructured, match=why):
            make_structured(schema_of(output))

    @pytest.mark.latest  # SDK 0.96 leaves out enumerations
    @pytest.mark.parametrize("output", [kinds.Review, kinds.Point])
    def test_is_what_the_sdk_makes_of_it(self, output: Any) -> None:
        """The SDK writes the same, but for defaults, which it writes into descriptions."""
        if not hasattr(anthropic, "transform_schema"):
            pytest.skip("this SDK has no transform_schema")
        schema = schema_of(output)
        theirs = importlib.import_module("anthropic").transform_schema(schema)
        assert _without_descriptions(make_structured(schema)) == _without_descriptions(theirs)


def _without_descriptions(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {name: _without_descriptions(inner) for name, inner in schema.items() if name != "description"}
    return [_without_descriptions(each) for each in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-2.1", False),
        ("claude-instant-1.2", False),
        ("claude-3-opus-20240229", False),
        ("claude-3-5-haiku-latest", False),
        ("claude-3-7-sonnet-20250219", False),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", False),
        ("claude-sonnet-4-20250514", False),
        ("claude-sonnet-4-0", False),
        ("claude-opus-4", False),
        ("claude-opus-4@20250514", False),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", False),
        ("claude-opus-4-1", False),
        ("claude-opus-4-1-20250805", False),
        ("claude-opus-4-5", True),
        ("claude-opus-4-10", True),
        ("claude-opus-4-10-20270101", True),
        ("claude-sonnet-4-5", True),
        ("claude-sonnet-4-5-20250929", True),
        ("us.anthropic.claude-opus-4-6-v1", True),
        ("claude-haiku-4-5@20251001", True),
        ("claude-sonnet-5", True),
        ("claude-opus-5-5", True),
        ("claude-next-30", True),
        ("something-else", True),
    ],
)
def test_models_with_structured_outputs(model: str, expected: bool) -> None:
    assert has_structured_outputs(model) is expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-3-5-haiku-20241022", True),
        ("claude-haiku-4-5", True),
        ("claude-opus-4-6", True),
        ("claude-opus-5", True),
        ("claude-haiku-5-5", True),
        ("claude-opus-5-5", False),
        ("us.anthropic.claude-sonnet-5-5-v1:0", False),
        ("claude-opus-6", False),
        ("claude-fable-5", False),
        ("claude-mythos-5-2", False),
    ],
)
def test_models_that_can_be_forced_to_call_a_tool(model: str, expected: bool) -> None:
    assert takes_forced_tool(model) is expected
