"""Without a script, a schema or a forced tool is answered with a valid instance, and limits of the answer hold."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from claude_batch_tasks.simulator import Answer, Simulator
from claude_batch_tasks.simulator.answers.instances import make_instance

from .conftest import request
from .test_answers import run, send, texts


class Node(BaseModel):
    name: str = Field(min_length=8)
    size: float = Field(gt=0, lt=1)
    next: Node | None
    children: list[Node]


class City(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    size: int
    mayor: str | None
    kind: Literal["old", "new"]


#: As `output_config` takes it.
CITY = {"format": {"type": "json_schema", "schema": City.model_json_schema()}}


@pytest.mark.parametrize(
    ("schema", "instance"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "boolean"}}}, {"a": "a", "b": True}),
        ({"const": [1]}, [1]),
        ({"enum": ["x", "y"]}, "x"),
        ({"type": ["null", "integer"]}, 1),
        ({"type": "null"}, None),
        ({"anyOf": [False, {"type": "integer", "minimum": 5}]}, 5),
        ({"allOf": [{"minimum": 3}, {"type": "integer", "minimum": 7}]}, 7),
        ({"type": "integer", "exclusiveMinimum": 1, "multipleOf": 5}, 5),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 0.5}, 0.25),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True}, [1, 2, 3]),
        ({"type": "array", "prefixItems": [{"const": "x"}], "items": {"type": "null"}, "minItems": 2}, ["x", None]),
        ({"type": "array", "maxItems": 0}, []),
        ({"required": ["k"], "additionalProperties": {"type": "integer"}}, {"k": 1}),
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"type": "string", "maxLength": 2}, "te"),
        ({"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"enum": [5]}}}, 5),
        ({"$ref": "#"}, {}),
    ],
)
def test_keywords(schema: Any, instance: Any) -> None:
    assert make_instance(schema) == instance


@pytest.mark.parametrize(
    ("pattern", "limits"),
    [
        (r"^[A-Z]{2}-\d{3,5}$", {}),
        (r"^(foo|bar)+x*$", {"minLength": 7, "maxLength": 20}),
        (r"[^a-z]", {"minLength": 5}),
        (r"^#(?:[0-9a-fA-F]{3}){1,2}$", {}),
        (r"^\S+@\S+\.\w{2,}$", {}),
        (r"^(\w)\1$", {}),
    ],
)
def test_patterns(pattern: str, limits: dict[str, int]) -> None:
    text = make_instance({"type": "string", "pattern": pattern, **limits})
    assert re.search(pattern, text)
    assert limits.get("minLength", 0) <= len(text) <= limits.get("maxLength", 99)


def test_a_schema_of_pydantic_that_contains_itself() -> None:
    instance = make_instance(Node.model_json_schema())
    assert Node.model_validate(instance).children == []


def test_a_schema_is_answered_with_an_instance(simulator: Simulator) -> None:
    rows = run(simulator, *(request(name, name, output_config=CITY) for name in "ab"))
    answers = [texts(rows[name]["message"]) for name in "ab"]
    assert answers[0] == answers[1]
    City.model_validate_json(answers[0], strict=True)
    simulator.answer_with(Answer(text="scripted"))
    assert texts(send(simulator, "x", output_config=CITY)) == "scripted"


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "g"}, {"type": "any"}])
def test_a_forced_tool_is_called(simulator: Simulator, choice: dict[str, str]) -> None:
    schema = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
    tools = [{"name": name, "input_schema": schema} for name in ("f", "g")]
    message = send(simulator, "x", tools=tools, tool_choice=choice)
    (block,) = message["content"]
    assert block["id"].startswith("toolu_01")
    assert (message["stop_reason"], block["name"], block["input"]) == ("tool_use", choice.get("name", "f"), {"q": "q"})
    assert texts(send(simulator, "x", tools=tools)) == "Echo: x"


def test_stop_sequences_are_obeyed(simulator: Simulator) -> None:
    simulator.answer_with(Answer(prompt="scripted", text="one STOP two END"))
    message = send(simulator, "scripted", stop_sequences=["END", "STOP"])
    assert (message["stop_reason"], message["stop_sequence"], texts(message)) == ("stop_sequence", "STOP", "one ")
    assert send(simulator, "quiet", stop_sequences=["STOP"])["stop_reason"] == "end_turn"
    cut = send(simulator, "scripted", stop_sequences=["END"], max_tokens=1)
    assert (cut["stop_reason"], cut["stop_sequence"], texts(cut)) == ("max_tokens", None, "one ")


def test_an_instance_is_cut_like_every_answer(simulator: Simulator) -> None:
    whole, cut = (send(simulator, "x", output_config=CITY, max_tokens=tokens) for tokens in (100, 4))
    assert json.loads(texts(whole)) == make_instance(City.model_json_schema())
    assert (cut["stop_reason"], texts(cut)) == ("max_tokens", texts(whole)[:16])
