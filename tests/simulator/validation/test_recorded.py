"""What the API said of single faults in 2026, and what it took; the names say what is wrong or right."""

from __future__ import annotations

from typing import Any

import pytest

from claude_batch_tasks.simulator.models import read_catalog
from claude_batch_tasks.simulator.validation import Terms, find_problem

GONE = object()
TERMS = Terms("2023-06-01", read_catalog(("claude-x",)))
TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {}}}
USER = {"role": "user", "content": "a"}
DIRECTIVE = {"role": "system", "content": "s"}
PLACE = "the directive-only form (content: [] with output_config) is accepted at any position"
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}


def problem_of(changes: dict[str, Any], terms: Terms = TERMS) -> str:
    """What is wrong with a valid request after these changes."""
    params = {"model": "claude-haiku-4-5", "max_tokens": 16, "messages": [USER], **changes}
    found = find_problem({name: value for name, value in params.items() if value is not GONE}, terms)
    return found[1] if found else ""


def said(*contents: Any) -> dict[str, Any]:
    """Messages of the user and the assistant in turn."""
    return {"messages": [{"role": ("user", "assistant")[n % 2], "content": c} for n, c in enumerate(contents)]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": GONE}, "model: Field required"),
        ({"model": None}, "model: Input should be a valid string"),
        ({"model": ""}, "model: String should have at least 1 character"),
        ({"messages": GONE}, "messages: Field required"),
        ({"messages": "x"}, "messages: Input should be a valid array"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"max_tokens": GONE}, "max_tokens: Field required"),
        ({"max_tokens": "x"}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": True}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": -1}, "max_tokens: must be greater than or equal to 0"),
        ({"messages": [{"content": "a"}]}, "messages.0.role: Field required"),
        (
            {"messages": [{"role": "bogus", "content": "a"}]},
            'messages: Unexpected role "bogus". Allowed roles are "user" or "assistant"',
        ),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        (said(None), "messages.0.content: Input should be a valid array"),
        (said({}), "messages.0.content: Input should be a valid array"),
        (said([7]), "messages.0.content.0: Input should be an object"),
        (said([{}]), "messages.0.content.0.type: Field required"),
        ({"messages": [{**USER, "bogus": 1}]}, "messages.0.bogus: Extra inputs are not permitted"),
        ({"tool_choice": 7}, "tool_choice: Input should be an object"),
        ({"tools": "x"}, "tools: Input should be a valid array"),
        ({"tools": [7]}, "tools.0: Input should be an object"),
        ({"tools": [{**TOOL, "name": ""}]}, "tools.0.custom.name: String should have at least 1 character"),
        ({"tools": [{"input_schema": {}}]}, "tools.0.custom.name: Field required"),
        (
            {"tools": [{**TOOL, "name": "  "}]},
            "tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'",
        ),
        ({"tools": [{"name": "f"}]}, "tools.0.custom.input_schema: Field required"),
        ({"tools": [{"name": "f", "input_schema": {}}]}, "tools.0.custom.input_schema.type: Field required"),
        (
            {"tools": [{"name": "f", "input_schema": {"type": "array"}}]},
            "tools.0.custom.input_schema.type: Input should be 'object'",
        ),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "Tool 'g' not found in provided tools"),
        ({"tool_choice": {"type": "tool", "name": "g"}}, "Tool 'g' not found in provided tools"),
        ({"tool_choice": {"type": "any"}}, "tool_choice.any may only be specified while providing tools"),
        (
            {"tools": [{**TOOL, "strict": True}]},
            "tools.0.custom: For 'object' type, 'additionalProperties' must be explicitly set to false",
        ),
        ({"system": 7}, "system: Input should be a valid array"),
        ({"system": [7]}, "system.0: Input does not match the expected shape."),
        ({"thinking": "x"}, "thinking: Input should be an object"),
        ({"output_config": "x"}, "output_config: Input does not match the expected shape."),
        ({"metadata": "x"}, "metadata: Input does not match the expected shape."),
        ({"metadata": {"bogus": "x"}}, "metadata.bogus: Extra inputs are not permitted"),
        ({"metadata": {"user_id": 7}}, "metadata.user_id: Input should be a valid string"),
        ({"stop_sequences": "Z"}, "stop_sequences: Input should be a valid array"),
        ({"stop_sequences": [1]}, "stop_sequences.0: Input should be a valid string"),
        ({"temperature": "x"}, "temperature: Input should be a valid number"),
        ({"temperature": 2}, "temperature: range: 0..1"),
        ({"top_k": None}, "top_k: Input should be a valid integer"),
        ({"top_p": 1.5}, "top_p: range: 0..1"),
        ({"service_tier": "bogus"}, "service_tier: Input should be 'auto' or 'standard_only'"),
        ({"stream": "yes"}, "stream: Input should be a valid boolean"),
        ({"inference_geo": 7}, "inference_geo: Input should be a valid string"),
        ({"bogus": 1}, "bogus: Extra inputs are not permitted"),
    ],
)
def test_a_parameter_of_the_wrong_kind(changes: dict[str, Any], message: str) -> None:
    assert problem_of(changes) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tools": "x", "tool_choice": 7}, "tool_choice: Input should be an object"),
        ({"messages": "x", "tools": "x"}, "tools: Input should be a valid array"),
        ({"thinking": "x", "system": 7}, "system: Input should be a valid array"),
        ({"max_tokens": "x", "metadata": 7}, "max_tokens: Input should be a valid integer"),
        ({"top_k": "x", "service_tier": 7}, "service_tier: Input should be 'auto' or 'standard_only'"),
        ({"bogus": 1, "inference_geo": 7}, "inference_geo: Input should be a valid string"),
        ({"bogus": 1, **said([])}, "bogus: Extra inputs are not permitted"),
        ({"temperature": "x", **said([])}, "temperature: Input should be a valid number"),
    ],
)
def test_of_several_faults_the_first_in_the_order_of_the_api_is_reported(changes: dict[str, Any], message: str) -> None:
    assert problem_of(changes) == message


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([DIRECTIVE], f"messages.0: use the top-level 'system' parameter for the initial system prompt; {PLACE}"),
        ([{**DIRECTIVE, "content": []}, USER], "messages.0: system content must contain at least one block"),
        (
            [USER, DIRECTIVE, USER],
            f"messages.1: role 'system' must precede an 'assistant' message or end the array; {PLACE}",
        ),
        (
            [USER, DIRECTIVE, DIRECTIVE, USER],
            f"messages.2: role 'system' must precede an 'assistant' message or end the array; {PLACE}",
        ),
        ([USER, {**DIRECTIVE, "content": "  "}], "messages.1: system text blocks must contain non-whitespace text"),
        (
            [USER, {**DIRECTIVE, "content": [IMAGE]}],
            "messages.1: role 'system' supports text, tool_addition, and tool_removal blocks only",
        ),
        (said("")["messages"], "messages.0: user messages must have non-empty content"),
        (said("a", "b", [])["messages"], "messages.2: user messages must have non-empty content"),
        (
            said("a", [], "b")["messages"],
            "messages.1: all messages must have non-empty content except for the optional final assistant message",
        ),
        (said("  ")["messages"], "messages: text content blocks must contain non-whitespace text"),
        (said([{"type": "text", "text": ""}])["messages"], "messages: text content blocks must be non-empty"),
    ],
)
def test_a_conversation_that_is_none(messages: Any, message: str) -> None:
    assert problem_of({"messages": messages}) == message


USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "x"}
PAIR = "Each `tool_use` block must have a corresponding `tool_result` block in the next message."


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (
            ("a", [USE], "b"),
            f"messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_1. {PAIR}",
        ),
        (
            ("a", [USE]),
            f"messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_1. {PAIR}",
        ),
        (
            ("a", "b", [RESULT]),
            "messages.2.content.0: unexpected `tool_use_id` found in `tool_result` blocks: toolu_1. Each `tool_result`"
            " block must have a corresponding `tool_use` block in the previous message.",
        ),
        (
            ("a", [USE], [RESULT, RESULT]),
            "messages.2.content.1: each tool_use must have a single result. Found multiple `tool_result` blocks with"
            " id: toolu_1",
        ),
        (("a", [USE, USE], [RESULT]), "messages: `tool_use` ids must be unique"),
        (([USE],), "messages.0: `tool_use` blocks can only be in `assistant` messages"),
        (("a", [RESULT]), "messages.1: `tool_result` blocks can only be in `user` messages"),
        (
            ("a", [{**USE, "id": "a b"}], [RESULT]),
            "messages.1.content.0.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'",
        ),
        (
            ("a", [USE], [{**RESULT, "content": [{"type": "audio"}]}]),
            "messages.2.content.0.tool_result.content.0: Input tag 'audio' found using 'type' does not match any of the"
            " expected tags: 'browser_state', 'document', 'image', 'search_result', 'text', 'tool_reference'",
        ),
    ],
)
def test_tools_and_their_results(contents: Any, message: str) -> None:
    assert problem_of(said(*contents)) == message


def test_unknown_blocks_and_fields_have_their_paths() -> None:
    problem = problem_of(said([{"type": "audio"}]))
    assert problem.startswith("messages.0.content.0: Input tag 'audio' found using 'type' does not match any of the")
    assert "'text', 'text_editor_code_execution_tool_result', 'thinking', 'tool_result'" in problem
    extra = {"type": "text", "text": "x", "scope": 1}
    assert problem_of(said([extra])) == "messages.0.content.0.text.scope: Extra inputs are not permitted"
    mark = {"type": "ephemeral", "scope": "x"}
    system = [{"type": "text", "text": "x", "cache_control": mark}]
    assert problem_of({"system": system}) == "system.0.cache_control.ephemeral.scope: Extra inputs are not permitted"
    tools = [{**TOOL, "parameters": {}}]
    assert problem_of({"tools": tools}) == "tools.0.custom.parameters: Extra inputs are not permitted"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_tokens": 0},
        said("a", "b"),
        said("a", []),
        said("a", "b", "c", "d", "e"),
        said("a", [USE], [RESULT]),
        said(
            "a", [USE], [{**RESULT, "content": [{"type": "text", "text": "x"}, IMAGE]}, {"type": "text", "text": "y"}]
        ),
        said([{"type": "document", "source": {"type": "file", "file_id": "file_1"}, "citations": {"enabled": True}}]),
        said([{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}]),
        said("a", [{"type": "thinking", "thinking": "", "signature": "x"}, {"type": "text", "text": "y"}], "b"),
        {"messages": [USER, USER, {"role": "assistant", "content": "x"}, USER]},
        {"messages": [USER, DIRECTIVE]},
        {"messages": [USER, DIRECTIVE, {"role": "assistant", "content": "x"}, USER]},
        {"messages": [USER, {**USER, "content": []}]},
        {"system": "", "metadata": {"user_id": None}, "stop_sequences": [], "tools": [], "stream": False},
        {"tools": [TOOL, {"type": "web_search_20250305", "name": "web_search", "max_uses": 1}]},
        {"tools": [{**TOOL, "type": None}], "tool_choice": {"type": "tool", "name": "f"}},
        {"tools": [TOOL], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
        {"tool_choice": {"type": "none"}},
        {"cache_control": {"type": "ephemeral"}, "service_tier": "auto", "inference_geo": None, "container": None},
        {"temperature": 0, "top_k": 5},
        {"temperature": 1.0},
    ],
)
def test_what_the_api_takes(changes: dict[str, Any]) -> None:
    assert problem_of(changes) == ""
