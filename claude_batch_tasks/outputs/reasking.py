"""The turns by which a model is asked again for an answer that did not fit."""

from __future__ import annotations

from typing import Any

_AGAIN = "Give the whole answer again, corrected."


def make_turns(content: list[dict[str, Any]], problem: str) -> list[dict[str, Any]]:
    """Return the turns that follow a conversation whose answer did not fit.

    Args:
        content: the content of the answer's message.
        problem: what is wrong with it, as ``path: reason``.
    """
    said = [block for block in content if block.get("type") != "text" or str(block.get("text") or "").strip()]
    text = f"Your answer does not fit: {problem}\n{_AGAIN}"
    results = [
        {"type": "tool_result", "tool_use_id": block.get("id"), "is_error": True, "content": text}
        for block in said
        if block.get("type") == "tool_use"
    ]
    answer: Any = results or [{"type": "text", "text": text}]
    turns: list[dict[str, Any]] = [{"role": "user", "content": answer}]
    return [{"role": "assistant", "content": said}, *turns] if said else turns
