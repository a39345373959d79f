"""The content blocks of messages and the system prompt: their fields, required ones first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .kinds import (
    SHAPE,
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
    make_text_or,
)

TEXT = make_text()
CACHE_CONTROL = make_optional(Union({"ephemeral": Shape({"type": TEXT, "ttl": make_choice("5m", "1h")}, ("type",))}))
TOOL_ID = make_text(pattern="^[a-zA-Z0-9_-]+$")
CITATIONS = make_optional(Shape({"enabled": check_flag}))


def _make_block(required: Mapping[str, Check], optional: Mapping[str, Check], *, cached: bool = True) -> Check:
    fields = {"type": TEXT, **required, **optional}
    if cached:
        fields["cache_control"] = CACHE_CONTROL
    return Shape(fields, tuple(required))


def _make_source(*required: str, **kinds: Check) -> Check:
    return Shape({"type": TEXT, **dict.fromkeys(required, TEXT), **kinds}, (*required, *kinds))


_IMAGE_TYPE = make_choice("image/jpeg", "image/png", "image/gif", "image/webp")
_text = _make_block({"text": TEXT}, {"citations": make_optional(make_array(check_map))})
_image = _make_block(
    {
        "source": Union(
            {
                "base64": _make_source("data", media_type=_IMAGE_TYPE),
                "url": _make_source("url"),
                "file": _make_source("file_id"),
            }
        )
    },
    {"transformations": anything},
)
_document = _make_block(
    {
        "source": Union(
            {
                "base64": _make_source("data", media_type=make_choice("application/pdf")),
                "text": _make_source("data", media_type=make_choice("text/plain")),
                "content": _make_source(content=make_text_or(make_array(Union({"text": _text, "image": _image})))),
                "url": _make_source("url"),
                "file": _make_source("file_id"),
            }
        )
    },
    {"citations": CITATIONS, "context": make_optional(TEXT), "title": make_optional(TEXT)},
)
_search_result = _make_block(
    {"content": make_array(Union({"text": _text})), "source": TEXT, "title": TEXT}, {"citations": CITATIONS}
)

#: The blocks that the result of a client's tool may have.
RESULT_BLOCKS: dict[str, Check] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
    "tool_reference": _make_block({"tool_name": TEXT}, {}),
    "browser_state": anything,
}


def _make_server_result(**optional: Check) -> Check:
    return _make_block({"content": anything, "tool_use_id": TOOL_ID}, optional)


#: The blocks that the content of a message may have. What servers made is not looked into: clients send it back as it
#: came.
BLOCKS: dict[str, Check] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
    "thinking": _make_block({"thinking": TEXT, "signature": TEXT}, {}, cached=False),
    "redacted_thinking": _make_block({"data": TEXT}, {}, cached=False),
    "tool_use": _make_block(
        {"id": TOOL_ID, "input": check_map, "name": make_text(1, 200)},
        {"caller": check_map, "toolset_name": make_optional(TEXT)},
    ),
    "tool_result": _make_block(
        {"tool_use_id": TOOL_ID},
        {
            "content": make_text_or(make_array(Union(RESULT_BLOCKS))),
            "is_error": check_flag,
            "toolset_name": make_optional(TEXT),
        },
    ),
    "server_tool_use": _make_block({"id": TOOL_ID, "input": check_map, "name": TEXT}, {"caller": check_map}),
    "web_search_tool_result": _make_server_result(caller=check_map),
    "web_fetch_tool_result": _make_server_result(caller=check_map),
    "code_execution_tool_result": _make_server_result(),
    "bash_code_execution_tool_result": _make_server_result(),
    "text_editor_code_execution_tool_result": _make_server_result(),
    "tool_search_tool_result": _make_server_result(),
    "container_upload": _make_block({"file_id": TEXT}, {}),
}
#: Those that need a beta header.
BETA_BLOCKS: dict[str, Check] = dict.fromkeys(
    (
        "advisor_tool_result",
        "mcp_tool_use",
        "mcp_tool_result",
        "mcp_tool_listing",
        "compaction",
        "tool_addition",
        "tool_removal",
        "fallback",
    ),
    anything,
)

SYSTEM = make_text_or(
    make_array(
        Shape(
            {
                "type": make_choice("text"),
                "text": TEXT,
                "citations": make_optional(make_array(check_map)),
                "cache_control": CACHE_CONTROL,
            },
            ("type", "text"),
            wrong=SHAPE,
        )
    )
)
METADATA = Shape({"user_id": make_optional(make_text(most=256))}, wrong=SHAPE)
FORMAT = make_optional(
    Shape({"type": make_choice("json_schema"), "schema": check_map}, ("type", "schema"), wrong=SHAPE)
)


def make_thinking(beta: bool) -> Check:
    displays = ("summarized", "omitted", "updates") if beta else ("summarized", "omitted")
    how: dict[str, Check] = {"type": TEXT, "display": make_optional(make_choice(*displays))}
    if beta:
        how["block_binding"] = anything
    return Union(
        {
            "adaptive": Shape(how),
            "between_tools": Shape({"type": TEXT}),
            "disabled": Shape({"type": TEXT}),
            "enabled": Shape({**how, "budget_tokens": make_integer(1024)}, ("budget_tokens",)),
        }
    )


def make_message(beta: bool) -> Check:
    """Return the check of a message, except for its role."""
    blocks = make_array(Union({**BLOCKS, **BETA_BLOCKS} if beta else BLOCKS))
    fields: dict[str, Check] = {"role": TEXT, "content": make_text_or(blocks)}
    plain = Shape(fields, ("role", "content"))
    more: dict[str, Check] = {"clear_at": anything, "output_config": anything} if beta else {}
    directive = Shape({**fields, **more}, ("role",) if beta else ("role", "content"))

    def check(message: Any) -> str:
        # Most messages are a role and a text.
        if type(message) is dict and len(message) == 2 and type(message.get("content")) is str and "role" in message:
            return TEXT(message["role"])
        return (directive if type(message) is dict and message.get("role") == "system" else plain)(message)

    return check
