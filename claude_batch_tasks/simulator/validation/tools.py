"""The tools of a request, and the choice of one of them."""

from __future__ import annotations

from .blocks import CACHE_CONTROL, CITATIONS, TEXT
from .kinds import (
    Check,
    Shape,
    Union,
    anything,
    check_flag,
    check_map,
    make_array,
    make_choice,
    make_integer,
    make_optional,
    make_text,
)

TOOL_NAME = make_text(1, pattern="^[a-zA-Z0-9_-]{1,128}$")

_EXAMPLES: dict[str, Check] = {"input_examples": make_array(check_map)}
_COUNT = make_optional(make_integer(1))
_SITES: dict[str, Check] = {
    "allowed_domains": make_optional(make_array(TEXT)),
    "blocked_domains": make_optional(make_array(TEXT)),
    "max_uses": _COUNT,
}
_SEARCH: dict[str, Check] = {**_SITES, "user_location": make_optional(check_map)}
_FETCH: dict[str, Check] = {
    **_SITES,
    "citations": CITATIONS,
    "max_content_tokens": _COUNT,
    "url_sources": make_optional(anything),
}
_CACHED_FETCH: dict[str, Check] = {**_FETCH, "use_cache": check_flag}
_INCLUSION: dict[str, Check] = {"response_inclusion": make_choice("full", "excluded")}
_SCREEN: dict[str, Check] = {
    "display_height_px": make_integer(1),
    "display_width_px": make_integer(1),
    "display_number": make_optional(make_integer()),
    **_EXAMPLES,
}
_TOOLSET: dict[str, Check] = {"configs": make_optional(check_map)}

#: The tools that Anthropic defines: type, the name that it has, and the fields that only some have.
SERVER_TOOLS: tuple[tuple[str, str, dict[str, Check]], ...] = (
    ("bash_20250124", "bash", _EXAMPLES),
    ("code_execution_20250522", "code_execution", {}),
    ("code_execution_20250825", "code_execution", {}),
    ("code_execution_20260120", "code_execution", {}),
    ("code_execution_20260521", "code_execution", {}),
    ("memory_20250818", "memory", _EXAMPLES),
    ("text_editor_20250124", "str_replace_editor", _EXAMPLES),
    ("text_editor_20250429", "str_replace_based_edit_tool", _EXAMPLES),
    ("text_editor_20250728", "str_replace_based_edit_tool", {**_EXAMPLES, "max_characters": _COUNT}),
    ("tool_search_tool_bm25", "tool_search_tool_bm25", {}),
    ("tool_search_tool_bm25_20251119", "tool_search_tool_bm25", {}),
    ("tool_search_tool_regex", "tool_search_tool_regex", {}),
    ("tool_search_tool_regex_20251119", "tool_search_tool_regex", {}),
    ("web_fetch_20250910", "web_fetch", _FETCH),
    ("web_fetch_20260209", "web_fetch", _FETCH),
    ("web_fetch_20260309", "web_fetch", _CACHED_FETCH),
    ("web_fetch_20260318", "web_fetch", {**_CACHED_FETCH, **_INCLUSION}),
    ("web_search_20250305", "web_search", _SEARCH),
    ("web_search_20260209", "web_search", _SEARCH),
    ("web_search_20260318", "web_search", {**_SEARCH, **_INCLUSION}),
)
TOOLSETS = ("browser_toolset_20260801", "computer_toolset_20260801")
#: Those that need a beta header.
BETA_TOOLS: tuple[tuple[str, str, dict[str, Check]], ...] = (
    (
        "advisor_20260301",
        "advisor",
        {"model": TEXT, "caching": CACHE_CONTROL, "max_tokens": _COUNT, "max_uses": _COUNT},
    ),
    ("bash_20241022", "bash", _EXAMPLES),
    ("computer_20241022", "computer", _SCREEN),
    ("computer_20250124", "computer", _SCREEN),
    ("computer_20251124", "computer", {**_SCREEN, "enable_zoom": check_flag}),
    ("text_editor_20241022", "str_replace_editor", _EXAMPLES),
)


def _make_tool(fields: dict[str, Check], required: tuple[str, ...]) -> Check:
    common: dict[str, Check] = {
        "type": make_optional(TEXT),
        "allowed_callers": make_array(TEXT),
        "cache_control": CACHE_CONTROL,
        "defer_loading": check_flag,
        "strict": check_flag,
    }
    return Shape({**fields, **common}, required)


def _check_schema(schema: object) -> str:
    if type(schema) is not dict:
        return check_map(schema)
    if "type" not in schema:
        return ".type: Field required"
    return "" if schema["type"] == "object" else ".type: Input should be 'object'"


_CUSTOM = _make_tool(
    {
        "name": TOOL_NAME,
        "description": TEXT,
        "input_schema": _check_schema,
        "eager_input_streaming": make_optional(check_flag),
        **_EXAMPLES,
    },
    ("name", "input_schema"),
)


def make_tools(beta: bool) -> Union:
    defined = (*SERVER_TOOLS, *BETA_TOOLS) if beta else SERVER_TOOLS
    shapes = {type_: _make_tool({"name": make_choice(name), **fields}, ("name",)) for type_, name, fields in defined}
    for type_ in TOOLSETS:
        shapes[type_] = Shape({"type": TEXT, "cache_control": CACHE_CONTROL, **_TOOLSET})
    if beta:
        shapes["mcp_toolset"] = anything
    return Union({"custom": _CUSTOM, **shapes}, default="custom")


_PARALLEL: dict[str, Check] = {"type": TEXT, "disable_parallel_tool_use": check_flag}

TOOL_CHOICE = Union(
    {
        "auto": Shape(_PARALLEL),
        "any": Shape(_PARALLEL),
        "tool": Shape({**_PARALLEL, "name": make_text(1)}, ("name",)),
        "none": Shape({"type": TEXT}),
    }
)
