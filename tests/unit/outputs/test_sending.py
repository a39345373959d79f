from __future__ import annotations

from typing import Any

import pytest

from claude_batch_tasks import outputs
from claude_batch_tasks.outputs.sending import TOOL
from tests.unit.outputs import kinds

OLD, NEW = "claude-3-5-haiku-20241022", "claude-haiku-4-5"


def params(model: str = NEW, **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}], **more}


def sender(output: Any = kinds.Review) -> outputs.OutputSender:
    spec = outputs.describe_output(output)
    assert spec is not None
    return outputs.OutputSender(spec)


def problems_of(given: dict[str, Any], output: Any = kinds.Review) -> list[tuple[str, str]]:
    found, problems = sender(output).add_output(given)
    assert found == given
    return problems


class TestAModelWithStructuredOutputs:
    def test_is_asked_by_the_format(self) -> None:
        given = params(output_config={"effort": "low"}, tools=[{"name": "search"}], thinking={"type": "adaptive"})
        found, problems = sender().add_output(given)
        assert not problems
        assert found["output_config"]["effort"] == "low"
        assert found["output_config"]["format"]["type"] == "json_schema"
        assert found["output_config"]["format"]["schema"]["additionalProperties"] is False
        assert {name: found[name] for name in given if name != "output_config"} == {
            name: given[name] for name in given if name != "output_config"
        }
        assert "format" not in given["output_config"], "what the caller gave is not changed"

    def test_is_forced_to_a_tool_for_what_the_format_cannot_say(self) -> None:
        found, problems = sender(kinds.Free).add_output(params())
        assert not problems
        assert found["tool_choice"]["name"] == found["tools"][0]["name"] == TOOL
        assert "output_config" not in found

    @pytest.mark.parametrize(
        ("more", "field"),
        [
            ({"output_config": {"format": {"type": "json_schema"}}}, "params.output_config.format"),
            ({"output_config": "json"}, "params.output_config"),
            (
                {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "{"}]},
                "params.messages",
            ),
            ({"tool_choice": {"type": "any"}}, "params.tool_choice"),
            (
                {"messages": [{"role": "user", "content": [{"type": "document", "citations": {"enabled": True}}]}]},
                "params.messages",
            ),
            (
                {
                    "messages": [
                        {
                            "role": "user",
                            "content": [
                                {
                                    "type": "tool_result",
                                    "content": [{"type": "search_result", "citations": {"enabled": True}}],
                                }
                            ],
                        }
                    ]
                },
                "params.messages",
            ),
        ],
    )
    def test_is_not_asked_for_two_things(self, more: dict[str, Any], field: str) -> None:
        assert [found for found, _ in problems_of(params(**more))] == [field]

    def test_takes_documents_without_citations(self) -> None:
        blocks = [{"type": "document", "citations": {"enabled": False}}, {"type": "document", "citations": None}, "odd"]
        assert not sender().add_output(params(messages=[{"role": "user", "content": blocks}]))[1]


class TestAnotherModel:
    def test_is_forced_to_a_tool(self) -> None:
        found, problems = sender().add_output(params(OLD, thinking={"type": "disabled"}))
        assert not problems
        assert found["tool_choice"] == {"type": "tool", "name": TOOL, "disable_parallel_tool_use": True}
        (tool,) = found["tools"]
        assert tool["input_schema"]["properties"]["stars"] == {
            "maximum": 5,
            "minimum": 1,
            "title": "Stars",
            "type": "integer",
        }

    @pytest.mark.parametrize(
        ("more", "fields"),
        [
            ({"tools": [{"name": "search"}], "tool_choice": {"type": "auto"}}, ["params.tools", "params.tool_choice"]),
            ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, ["params.thinking"]),
            ({"output_config": {"format": {}}}, ["params.output_config.format"]),
        ],
    )
    def test_is_not_asked_for_two_things(self, more: dict[str, Any], fields: list[str]) -> None:
        problems = problems_of(params(OLD, **more))
        assert [field for field, _ in problems] == fields
        if fields != ["params.output_config.format"]:
            assert all(f"{OLD} has no structured outputs" in text for _, text in problems)

    def test_answers_with_objects_only(self) -> None:
        ((field, text),) = problems_of(params(OLD), {"type": "array", "items": {"type": "integer"}})
        assert field == "params.model"
        assert "its schema is not of an object" in text
        assert not sender({"type": "array", "items": {"type": "integer"}}).add_output(params(NEW))[1]

    def test_that_takes_no_forced_tool_is_refused_what_structured_outputs_cannot_say(self) -> None:
        ((field, text),) = problems_of(params("claude-opus-5-5"), kinds.Free)
        assert field == "params.model"
        assert "properties of any name" in text
        assert "this model takes no forced tool" in text
        assert not sender().add_output(params("claude-opus-5-5"))[1]


class TestReasking:
    def test_repeats_the_answer_and_says_what_is_wrong(self) -> None:
        content = [{"type": "thinking", "thinking": "...", "signature": "s"}, {"type": "text", "text": "{}"}]
        answer, question = outputs.make_turns(content, "$.title: Field required")
        assert answer == {"role": "assistant", "content": content}
        assert question["role"] == "user"
        assert "$.title: Field required" in question["content"][0]["text"]

    def test_gives_the_tool_its_result(self) -> None:
        content = [{"type": "text", "text": " "}, {"type": "tool_use", "id": "toolu_1", "name": TOOL, "input": {}}]
        answer, question = outputs.make_turns(content, "$.title: Field required")
        assert answer["content"] == content[1:], "the API takes no blank text"
        (result,) = question["content"]
        assert (result["type"], result["tool_use_id"], result["is_error"]) == ("tool_result", "toolu_1", True)
        assert "$.title: Field required" in result["content"]

    def test_of_an_answer_without_content(self) -> None:
        (question,) = outputs.make_turns([], "$: the message has no text")
        assert question["role"] == "user"
