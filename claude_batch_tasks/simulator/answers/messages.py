"""The message that answers a prompt, with its usage."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET

from ..models import find_model
from ..script import Behaviour
from .content import count_calls, count_output, make_content
from .parts import THINKING
from .prompt import Prompt
from .shapes import UNKNOWN_BLOCK, CacheCreation, Message, OutputDetails, ServerToolUse, Usage


def make_message(prompt: Prompt, message_id: str, tier: Literal["batch", "standard"], behaviour: Behaviour) -> Message:
    """Return the answer to a prompt, always the same."""
    content = make_content(prompt, behaviour)
    model = find_model(prompt.model, behaviour.models)
    blocks = content.blocks
    usage = make_usage(prompt, tier, blocks)
    if behaviour.results.unknown_fields and tier == "batch":
        blocks = [UNKNOWN_BLOCK, *blocks]
    return Message(
        id=message_id,
        model=prompt.model if model is None else model.id,
        content=blocks,
        stop_reason=content.stop_reason,
        stop_sequence=content.stop_sequence,
        stop_details=content.stop_details,
        container=prompt.answer.container or UNSET if prompt.answer is not None else UNSET,
        usage=usage if prompt.answer is None else {**msgspec.to_builtins(usage), **prompt.answer.usage},
    )


def make_usage(prompt: Prompt, tier: Literal["batch", "standard"], blocks: list[dict[str, Any]]) -> Usage:
    """Return the counters of an answer, without those that a script replaces."""
    usage = Usage(input_tokens=prompt.input_tokens, output_tokens=prompt.output_tokens, service_tier=tier)
    if prompt.answer is not None:
        usage.output_tokens_details = OutputDetails(count_output(blocks, *THINKING))
        usage.server_tool_use = ServerToolUse(prompt.searches, count_calls(blocks, "web_fetch"))
    if prompt.prefix is not None:
        tokens = prompt.count_tokens()
        usage.input_tokens = tokens.input
        usage.cache_creation = CacheCreation(tokens.cache_write_5m, tokens.cache_write_1h)
        usage.cache_creation_input_tokens = tokens.cache_write_5m + tokens.cache_write_1h
        usage.cache_read_input_tokens = tokens.cache_read
    return usage
