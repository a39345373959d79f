"""What a request makes a model read: what its bytes tell, and what they do not, wherever in it that stands."""

from __future__ import annotations

from typing import Any

import pytest

from claude_batch_tasks.pricing.input_sizes import IMAGE, LARGE_IMAGE, Advisor, measure_inputs
from tests.factories import make_params

FILE = {"type": "file", "file_id": "file_1"}
URL = {"type": "url", "url": "https://example.com/a.pdf"}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "QUJD"}


def params(content: Any = "x", **more: Any) -> dict[str, Any]:
    return {**make_params(content, model="claude-opus-5", max_tokens=9), **more}


def document(source: Any) -> list[dict[str, Any]]:
    return [{"type": "document", "source": source}]


class TestPartsOfUnknownSize:
    @pytest.mark.parametrize(
        ("request_", "unknown"),
        [
            (params(document(FILE)), {"file": 1}),
            (params(document(URL) * 2), {"document by URL": 2}),
            (params(document(PDF)), {"PDF": 1}),
            (params(document(None)), {"document": 1}),
            (params([{"type": "tool_result", "content": document(FILE)}]), {"file": 1}),
            (params(document({"type": "content", "content": document(URL)})), {"document by URL": 1}),
            (params([{"type": "container_upload", "file_id": "file_1"}]), {"file": 1}),
            (params([{"type": "web_fetch_tool_result", "content": {"content": document(PDF)[0]}}]), {"PDF": 1}),
            (params([{"type": "of_tomorrow", "parts": [{"file_id": "file_1"}]}]), {"file": 1}),
            (params(system=document(FILE)), {"file": 1}),
            (params(thread={"type": "continue", "previous_message_id": "msg_1"}),
             {"conversation stored at Anthropic (thread)": 1}),
        ],
    )  # fmt: skip
    def test_are_counted_by_what_they_are(self, request_: Any, unknown: dict[str, int]) -> None:
        assert dict(measure_inputs(request_).unknown) == unknown

    @pytest.mark.parametrize(
        "request_",
        [
            params("https://example.com/a.pdf, file_id"),
            params(
                [{"type": "text", "text": "x"}, {"type": "image", "source": FILE}, {"type": "image", "source": URL}]
            ),
            params(document({"type": "text", "data": "x"})),
            params([{"type": "tool_use", "input": {"file_id": "file_1", "docs": document(URL)}}]),
            params([{"type": "search_result", "source": "https://x", "content": [{"type": "text", "text": "x"}]}]),
            params(tools=[{"name": "read", "input_schema": {"properties": {"file_id": {"type": "string"}}}}]),
            params(thread={"type": "create"}),
        ],
    )
    def test_are_none_where_bytes_or_pixels_limit_them(self, request_: Any) -> None:
        found = measure_inputs(request_)
        assert (dict(found.unknown), found.endless, found.prompts) == ({}, None, 1)

    @pytest.mark.parametrize("text", ["plain words", "日本語のテキスト", "🜲" * 50, "0f9e" * 30])
    def test_text_is_never_more_tokens_than_bytes(self, text: str) -> None:
        assert measure_inputs(params(text)).most >= len(text.encode())
        assert measure_inputs(params([{"type": "of_tomorrow", "text": text}])).most >= len(text.encode())


def test_the_format_of_an_answer_is_input() -> None:
    wanted = {"type": "json_schema", "schema": {"type": "object", "description": "x" * 3500}}
    plain, formed = measure_inputs(params()), measure_inputs(params(output_config={"format": wanted}))
    assert formed.tokens > plain.tokens + 1000
    assert formed.most > plain.most + 3500
    assert measure_inputs(params(output_config={"effort": "low"})) == plain


class TestAnImage:
    @pytest.mark.parametrize(
        ("model", "tokens"),
        [
            ("claude-3-haiku-20240307", IMAGE),
            ("claude-opus-4-20250514", IMAGE),
            ("claude-4-opus-20250514", IMAGE),
            ("claude-sonnet-4-0", IMAGE),
            ("claude-haiku-4-5-20251001", IMAGE),
            ("claude-opus-4-6", IMAGE),
            ("claude-opus-4-7", LARGE_IMAGE),
            ("claude-opus-4-8", LARGE_IMAGE),
            ("claude-haiku-5-5", LARGE_IMAGE),
            ("claude-sonnet-5", LARGE_IMAGE),
            ("claude-fable-5-2", LARGE_IMAGE),
            ("nobody-knows", LARGE_IMAGE),
        ],
    )
    def test_has_no_more_tokens_than_the_model_looks_at(self, model: str, tokens: int) -> None:
        block = {"type": "image", "source": {"type": "base64", "data": "A" * 100_000}}
        bare, one = (measure_inputs(params(content, model=model)) for content in ([], [block]))
        assert (one.most - bare.most, one.tokens - bare.tokens) == (tokens, tokens)
        nested = measure_inputs(params([{"type": "of_tomorrow", "inner": [block]}], model=model))
        assert nested.most >= tokens


class TestPromptsThatFollowByThemselves:
    @pytest.mark.parametrize(
        ("more", "field"),
        [
            ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "params.tools"),
            ({"tools": [{"type": "web_fetch_20260318", "name": "web_fetch", "max_content_tokens": 5}]}, "params.tools"),
            ({"tools": [{"type": "code_execution_20260521", "name": "code_execution"}]}, "params.tools"),
            ({"tools": [{"type": "tool_search_tool_bm25", "name": "tool_search_tool_bm25"}]}, "params.tools"),
            ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]}, "params.tools"),
            ({"tools": [{"type": "of_tomorrow_20270101", "name": "x"}]}, "params.tools"),
            ({"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]}, "params.mcp_servers"),
            ({"container": {"skills": [{"skill_id": "pptx"}]}}, "params.container.skills"),
        ],
    )
    def test_have_no_limit_where_nothing_gives_one(self, more: dict[str, Any], field: str) -> None:
        endless = measure_inputs(params(**more)).endless
        assert endless is not None
        assert endless[0] == field

    @pytest.mark.parametrize(
        "tool",
        [
            {"name": "mine", "input_schema": {}},
            {"type": "custom", "name": "mine", "input_schema": {}},
            {"type": "bash_20250124", "name": "bash"},
            {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
            {"type": "computer_20251124", "name": "computer"},
            {"type": "memory_20250818", "name": "memory"},
        ],
    )
    def test_are_none_with_tools_that_the_caller_runs(self, tool: dict[str, Any]) -> None:
        found = measure_inputs(params(tools=[tool]))
        assert (found.endless, found.prompts) == (None, 1)

    def test_are_as_many_as_the_uses_allow(self) -> None:
        tools = [
            {"type": "web_search_20260318", "name": "web_search", "max_uses": 3},
            {"type": "web_fetch_20260318", "name": "web_fetch", "max_uses": 2},
            {"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-5", "max_uses": 1, "max_tokens": 700},
        ]
        found = measure_inputs(params(tools=tools))
        assert (found.prompts, found.searches) == (7, 3)
        assert found.advisors == (Advisor("claude-opus-5", 1, 700),)
