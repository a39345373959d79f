"""The rules that join several parameters, and those of models, versions, beta headers and batches."""

from __future__ import annotations

from typing import Any

import pytest

from claude_batch_tasks.simulator import Model
from claude_batch_tasks.simulator.models import read_catalog
from claude_batch_tasks.simulator.validation import Terms, find_problem

from .test_recorded import TERMS, TOOL, problem_of, said

NEW = TERMS._replace(version="2026-10-21")
BATCH = TERMS._replace(in_batch=True)
OBJECT = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


def output(schema: Any) -> dict[str, Any]:
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}


def thinking(budget: int, **more: Any) -> dict[str, Any]:
    return {"thinking": {"type": "enabled", "budget_tokens": budget}, **more}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"max_tokens": 64_001},
            "max_tokens: 64001 > 64000, which is the maximum allowed number of output tokens for"
            " claude-haiku-4-5-20251001",
        ),
        (thinking(1023), "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"),
        (
            thinking(2048, max_tokens=2048),
            "`max_tokens` must be greater than `thinking.budget_tokens`. Please consult our documentation at"
            " https://docs.claude.com/en/docs/build-with-claude/extended-thinking#max-tokens-and-context-window-size",
        ),
        (
            thinking(2048, max_tokens=4096, tools=[TOOL], tool_choice={"type": "any"}),
            "Thinking may not be enabled when tool_choice forces tool use.",
        ),
        (
            {"thinking": {"type": "maybe"}},
            "thinking: Input tag 'maybe' found using 'type' does not match any of the expected tags: 'adaptive',"
            " 'between_tools', 'disabled', 'enabled'",
        ),
        ({"thinking": {"type": "adaptive"}}, "adaptive thinking is not supported on this model"),
        (
            {"model": "claude-opus-5", **thinking(2048, max_tokens=4096)},
            '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" and'
            ' "output_config.effort" to control thinking behavior.',
        ),
        (
            {"model": "claude-opus-5-5", "tools": [TOOL], "tool_choice": {"type": "tool", "name": "f"}},
            'tool_choice: type "tool" and "any" are not supported for this model.',
        ),
        (
            {"model": "claude-sonnet-4-6", **said("a", "b")},
            "This model does not support assistant message prefill. The conversation must end with a user message.",
        ),
        (said("a", "b "), "messages: final assistant content cannot end with trailing whitespace"),
        ({"model": "claude-opus-5", "temperature": 0.5}, "`temperature` is deprecated for this model."),
        (
            {"temperature": 0.5, "top_p": 0.5},
            "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
        ),
        ({"output_config": {"effort": "low"}}, "This model does not support the effort parameter."),
        (
            {"model": "claude-opus-4-5", "output_config": {"effort": "max"}},
            "This model does not support effort level 'max'. Supported levels: high, low, medium.",
        ),
        ({"tools": [TOOL, TOOL]}, "tools: Tool names must be unique."),
        (
            {"system": [{"type": "text", "text": t, "cache_control": {"type": "ephemeral"}} for t in "abcde"]},
            "A maximum of 4 blocks with cache_control may be provided. Found 5.",
        ),
        ({"output_format": {}}, "output_format: Extra inputs are not permitted"),
    ],
)
def test_a_rule_that_is_broken(changes: dict[str, Any], message: str) -> None:
    assert problem_of(changes) == message


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (OBJECT, ""),
        ({**OBJECT, "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "b": {"enum": [1]}}}, ""),
        ({**OBJECT, "$defs": {"x": OBJECT}, "properties": {"a": {"$ref": "#/$defs/x"}}}, ""),
        ({"type": "object"}, "For 'object' type, 'additionalProperties' must be explicitly set to false"),
        (
            {**OBJECT, "properties": {"a": {"type": "array", "items": {"type": "object"}}}},
            "For 'object' type, 'additionalProperties' must be explicitly set to false",
        ),
        (
            {**OBJECT, "properties": {"a": {"type": "integer", "minimum": 1, "maximum": 2}}},
            "For 'integer' type, properties maximum, minimum are not supported",
        ),
        (
            {**OBJECT, "properties": {"a": {"type": "array", "items": {"type": "string"}, "maxItems": 2}}},
            "For 'array' type, property 'maxItems' is not supported",
        ),
        ({"schema": OBJECT}, f"Invalid schema: Schema type is missing for schema: {{'schema': {OBJECT}}}"),
    ],
)
def test_schemas(schema: Any, message: str) -> None:
    assert problem_of(output(schema)) == (f"output_config.format.schema: {message}" if message else "")


def test_what_does_not_go_with_a_schema() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "x"}
    document = {"type": "document", "source": source, "citations": {"enabled": True}}
    assert "Citations" in problem_of({**output(OBJECT), **said([document])})
    assert problem_of({**output(OBJECT), **said([{**document, "citations": {"enabled": False}}])}) == ""
    assert "Prefilling" in problem_of({**output(OBJECT), **said("a", "{")})
    assert problem_of({"output_config": {"format": {"type": "json"}}}) == (
        "output_config.format.type: Input should be 'json_schema'"
    )


def test_a_paused_turn_is_continued_also_where_there_is_no_prefill() -> None:
    paused = [{"type": "text", "text": "x"}, {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search"}]
    paused[1]["input"] = {}  # type: ignore[assignment]
    assert problem_of({"model": "claude-opus-5-5", **said("a", paused)}) == ""


def test_a_last_turn_that_used_tools_begins_with_its_thinking() -> None:
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    result = [{"type": "tool_result", "tool_use_id": "t"}]
    thought = {"type": "thinking", "thinking": "x", "signature": "y"}
    asked = thinking(1024, max_tokens=2000, tools=[TOOL])
    assert problem_of({**asked, **said("a", [thought, use], result)}) == ""
    problem = problem_of({**asked, **said("a", [use], result)})
    assert problem.startswith("messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_")


def test_the_api_version_removes_parameters_and_blocks() -> None:
    for name in ("temperature", "top_p", "top_k"):
        assert problem_of({name: 1}, TERMS) == ""
        assert problem_of({name: 1}, NEW) == f"{name}: Extra inputs are not permitted"
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
    answered = said("a", [document, {"type": "text", "text": "x"}], "b")
    assert problem_of(answered, TERMS) == ""
    assert problem_of(answered, NEW) == "messages.1.content.0: `document` blocks can only be in `user` messages"


@pytest.mark.parametrize(
    "changes", [{"stream": True}, {"speed": "fast"}, {"max_tokens": 0}], ids=["stream", "speed", "max_tokens"]
)
def test_what_goes_only_through_the_messages_api(changes: dict[str, Any]) -> None:
    assert problem_of(changes, TERMS) == ""
    assert problem_of(changes, BATCH).startswith(f"{next(iter(changes))}: ")


def test_long_outputs_need_a_batch_and_a_beta_header() -> None:
    asked = {"model": "claude-opus-5", "max_tokens": 300_000}
    header = frozenset(("output-300k-2026-03-24",))
    assert problem_of(asked, BATCH._replace(betas=header)) == ""
    for terms in (BATCH, TERMS._replace(betas=header)):
        assert problem_of(asked, terms).startswith("max_tokens: 300000 > 128000, ")


def test_beta_parameters_need_a_beta_header() -> None:
    asked = {"mcp_servers": [{"type": "url", "url": "https://x.invalid", "name": "x"}]}
    assert problem_of(asked) == "mcp_servers: Extra inputs are not permitted"
    assert problem_of(asked, TERMS._replace(betas=frozenset(("mcp-client-2025-11-20",)))) == ""
    fallbacks = {"fallbacks": [{"model": "claude-opus-5"}]}
    header = frozenset(("server-side-fallback-2026-07-01",))
    assert problem_of(fallbacks, TERMS._replace(betas=header)) == ""
    assert problem_of(fallbacks, BATCH._replace(betas=header)).startswith("fallbacks: ")
    assert problem_of(fallbacks, BATCH) == "fallbacks: Extra inputs are not permitted"


def test_a_beta_that_is_not_known_may_add_anything() -> None:
    terms = TERMS._replace(betas=frozenset(("telepathy-2027-01-01",)))
    new = {"telepathy": 1, **said([{"type": "thought", "of": 1}, {"type": "text", "text": "x", "of": 1}])}
    assert problem_of(new, terms) == ""
    assert problem_of({**new, "max_tokens": "x"}, terms) == "max_tokens: Input should be a valid integer"
    assert problem_of({**new, "messages": []}, terms) == "messages: at least one message is required"
    assert problem_of({**new, "model": "gpt"}, terms) == "model: gpt"
    assert problem_of({**new, "tools": 7}, terms) == "tools: Input should be a valid array"
    assert problem_of(new) == "messages.0.content.0: Input tag 'thought' found" + problem_of(new).partition(" found")[2]


def test_models() -> None:
    params = {"model": "claude-mine", "max_tokens": 10, "messages": [{"role": "user", "content": "x"}]}
    assert find_problem(params, TERMS) == ("not_found_error", "model: claude-mine")
    retired = {**params, "model": "claude-3-haiku-20240307"}
    assert find_problem(retired, TERMS) == ("not_found_error", "model: claude-3-haiku-20240307")
    own = Terms("2023-06-01", read_catalog((Model("claude-mine", max_tokens=9),)))
    assert find_problem(params, own) == (
        "invalid_request_error",
        "max_tokens: 10 > 9, which is the maximum allowed number of output tokens for claude-mine",
    )
