"""A message as server-sent events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from .shapes import Message

#: How many characters there are in one delta.
DELTA_CHARS = 40
#: The counters that `message_delta` repeats.
_COUNTERS = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "output_tokens_details",
    "server_tool_use",
)

_encode = msgspec.json.Encoder().encode


def stream_events(answer: Message) -> Iterator[bytes]:
    """Yield a message as events: its start, each block in deltas, and its end."""
    usage: dict[str, Any] = msgspec.to_builtins(answer.usage)
    first = {name: value for name, value in usage.items() if name not in ("output_tokens_details", "server_tool_use")}
    first["output_tokens"] = min(1, usage["output_tokens"])
    start = replace(
        answer, content=[], stop_reason=None, stop_sequence=None, stop_details=None, container=UNSET, usage=first
    )
    yield _encode_event("message_start", message=start)
    for index, block in enumerate(answer.content):
        shown, deltas = _divide_block(block)
        yield _encode_event("content_block_start", index=index, content_block=shown)
        if index == 0:
            yield _encode_event("ping")
        for delta in deltas:
            yield _encode_event("content_block_delta", index=index, delta=delta)
        yield _encode_event("content_block_stop", index=index)
    if not answer.content:
        yield _encode_event("ping")
    end = {
        "stop_reason": answer.stop_reason,
        "stop_sequence": answer.stop_sequence,
        "stop_details": answer.stop_details,
        **({} if answer.container is UNSET else {"container": answer.container}),
    }
    yield _encode_event("message_delta", delta=end, usage={n: usage[n] for n in _COUNTERS if n in usage})
    yield _encode_event("message_stop")


def _encode_event(kind: str, **data: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), _encode({"type": kind, **data}))


def _divide_block(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a block as its start shows it, and the deltas that complete it. Other blocks come whole in their start."""
    kind = block.get("type")
    if kind == "text":
        return _divide_text(block)
    if kind == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": section} for section in _cut_text(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {**block, "thinking": "", "signature": ""}, deltas
    if kind in ("tool_use", "server_tool_use"):
        text = _encode(block["input"]).decode() if block["input"] else ""
        deltas = [{"type": "input_json_delta", "partial_json": section} for section in ("", *_cut_text(text))]
        return {**block, "input": {}}, deltas
    return block, []


def _divide_text(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": section} for section in _cut_text(block["text"])]
    if not block.get("citations"):
        return {**block, "text": ""}, deltas
    cited = [{"type": "citations_delta", "citation": citation} for citation in block["citations"]]
    return {**block, "citations": [], "text": ""}, [*cited, *deltas]


def _cut_text(text: str) -> list[str]:
    return [text[at : at + DELTA_CHARS] for at in range(0, len(text), DELTA_CHARS)]
