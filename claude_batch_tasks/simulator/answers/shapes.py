"""The shapes of what is sent: messages, lines of results, errors. They are structs, since a download makes 100,000."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

#: The fields that `ResultsStyle.unknown_fields` adds at every level.
UNKNOWN = {"unknown": True}
UNKNOWN_BLOCK = {"type": "simulated_block", "payload": [1, {"two": None}]}


class CacheCreation(Struct, gc=False, frozen=True):
    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class ServerToolUse(Struct, gc=False, frozen=True):
    web_search_requests: int = 0
    web_fetch_requests: int = 0


class OutputDetails(Struct, gc=False, frozen=True):
    thinking_tokens: int = 0


class Usage(Struct, gc=False, kw_only=True):
    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation: CacheCreation = CacheCreation()
    output_tokens: int
    output_tokens_details: OutputDetails = OutputDetails()
    server_tool_use: ServerToolUse = ServerToolUse()
    service_tier: Literal["batch", "standard"]
    inference_geo: str = "not_available"


class Message(Struct, gc=False, kw_only=True):
    model: str
    id: str
    type: str = "message"
    role: str = "assistant"
    content: list[Any]
    stop_reason: str | None
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None
    container: dict[str, Any] | UnsetType = UNSET
    usage: Usage | dict[str, Any]


class Result(Struct, gc=False):
    type: str
    message: Message | UnsetType = UNSET
    error: dict[str, Any] | UnsetType = UNSET
    simulated: dict[str, bool] | UnsetType = UNSET


class Line(Struct, gc=False):
    custom_id: str
    result: Result
    simulated: dict[str, bool] | UnsetType = UNSET


def error_json(kind: str, text: str, request_id: str | None, details: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return an error as the API sends it; `details` only where there are some."""
    error = {"type": kind, "message": text}
    return {
        "type": "error",
        "error": error if details is None else {"details": details, **error},
        "request_id": request_id,
    }
