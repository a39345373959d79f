"""The simulator's answers: messages, lines of results, errors. They are structs, since a download makes 100,000."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from .prompts import BEGINNING, Prompt
from .script import Behaviour

#: The fields that `ResultsStyle.unknown_fields` adds at every level.
UNKNOWN = {"unknown": True}
UNKNOWN_BLOCK = {"type": "simulated_block", "payload": [1, {"two": None}]}


class Text(Struct, gc=False, tag="text"):
    text: str
    citations: None = None


class CacheCreation(Struct, gc=False, frozen=True):
    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class Usage(Struct, gc=False, kw_only=True):
    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation: CacheCreation = CacheCreation()
    output_tokens: int
    service_tier: Literal["batch", "standard"]


class Message(Struct, gc=False, kw_only=True):
    id: str
    type: str = "message"
    role: str = "assistant"
    model: str
    content: list[Any]
    stop_reason: str | None
    stop_sequence: None = None
    usage: Usage


class Result(Struct, gc=False):
    type: str
    message: Message | UnsetType = UNSET
    error: dict[str, Any] | UnsetType = UNSET
    simulated: dict[str, bool] | UnsetType = UNSET


class Line(Struct, gc=False):
    custom_id: str
    result: Result
    simulated: dict[str, bool] | UnsetType = UNSET


def make_message(prompt: Prompt, message_id: str, tier: Literal["batch", "standard"], behaviour: Behaviour) -> Message:
    """Return the answer to a prompt: its echo, always the same."""
    text = (BEGINNING + prompt.echo).ljust(behaviour.answer_chars, ".")
    content: list[Any] = [Text(text)]
    if behaviour.results.unknown_fields and tier == "batch":
        content.insert(0, UNKNOWN_BLOCK)
    complete = len(text) // 4 <= prompt.output_tokens
    usage = Usage(input_tokens=prompt.input_tokens, output_tokens=prompt.output_tokens, service_tier=tier)
    if prompt.prefix is not None:
        tokens = prompt.count_tokens()
        usage.input_tokens = tokens.input
        usage.cache_creation = CacheCreation(tokens.cache_write_5m, tokens.cache_write_1h)
        usage.cache_creation_input_tokens = tokens.cache_write_5m + tokens.cache_write_1h
        usage.cache_read_input_tokens = tokens.cache_read
    return Message(
        id=message_id,
        model=prompt.model,
        content=content,
        stop_reason="end_turn" if complete else "max_tokens",
        usage=usage,
    )


def error_json(kind: str, text: str, request_id: str | None) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": text}, "request_id": request_id}
