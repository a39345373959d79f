"""The parts of an answer: what was said before, and what comes after it."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import Any, NamedTuple

THINKING = ("thinking", "redacted_thinking")


class Said(NamedTuple):
    """How much of the answer the assistant's last turn has: characters of text, and other blocks than text."""

    chars: int = 0
    blocks: int = 0


def measure_said(blocks: list[dict[str, Any]]) -> Said:
    """Return how much the blocks say. Thinking does not count: it may be left out of the assistant's turn."""
    chars = sum(len(block["text"]) for block in blocks if block.get("type") == "text")
    return Said(chars, sum(block.get("type") not in ("text", *THINKING) for block in blocks))


def join_text(blocks: list[dict[str, Any]]) -> str:
    return "".join(block["text"] for block in blocks if block.get("type") == "text")


def drop_said(blocks: list[dict[str, Any]], said: Said) -> list[dict[str, Any]]:
    """Return the blocks after what was said. Thinking before the end of that is dropped with it."""
    chars, others = said
    rest = []
    for block in blocks:
        kind = block.get("type")
        if kind in THINKING:
            is_said = bool(chars or others)
        elif kind == "text":
            is_said = chars >= len(block["text"]) > 0
            if not is_said:
                block = {**block, "text": block["text"][chars:]} if chars else block
            chars = max(0, chars - len(block["text"])) if is_said else 0
        else:
            is_said = others > 0
            others -= is_said
        if not is_said:
            rest.append(block)
    return rest


def find_part(parts: list[list[dict[str, Any]]], said: Said) -> int:
    """Return which part comes after what was said; their number if none begins there."""
    before: list[dict[str, Any]] = []
    for number, part in enumerate(parts):
        if measure_said(before) == said:
            return number
        before += part
    return len(parts)


def split_parts(blocks: list[dict[str, Any]], count: int) -> list[list[dict[str, Any]]]:
    """Divide the blocks into parts, at most `count`; where there are too few blocks, the longest text is cut."""
    units = _group_blocks(blocks)
    longest = max(blocks, key=lambda block: len(block.get("text", "")), default={})
    if len(units) < count and longest.get("type") == "text":
        sections = _split_text(longest["text"], count - len(units) + 1)
        cut = [{**longest, "text": section} for section in sections]
        units = _group_blocks(list(chain(*((cut if block is longest else [block]) for block in blocks))))
    count = min(count, len(units))
    bounds = [len(units) * number // count for number in range(count + 1)] if count else []
    return [list(chain(*units[start:end])) for start, end in pairwise(bounds)]


def _group_blocks(blocks: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return each block with the thinking before it: a part of thinking alone says nothing."""
    units: list[list[dict[str, Any]]] = [[]]
    for block in blocks:
        units[-1].append(block)
        if block.get("type") not in THINKING:
            units.append([])
    return [unit for unit in units if unit]


def _split_text(text: str, count: int) -> list[str]:
    """Divide a text. No section but the last ends with white space, which the API refuses at the end of a turn."""
    sections, start = [], 0
    for number in range(1, count):
        end = start + len(text[start : len(text) * number // count].rstrip())
        if end > start:
            sections.append(text[start:end])
            start = end
    return [*sections, text[start:]] if start < len(text) else sections


def join_with_fetches(parts: list[list[dict[str, Any]]], key: str) -> list[list[dict[str, Any]]]:
    """Return the parts with a reason to pause: each ends with a call of a server's tool, whose result begins the next.

    So the API pauses, and models that take no text as the beginning of their answer take such a turn.
    """
    joined = [list(part) for part in parts]
    for number in range(len(parts) - 1):
        call_id = f"srvtoolu_01{key}{number:02d}"
        url = f"https://example.com/{number + 1}"
        caller = {"type": "direct"}
        joined[number].append(
            {"type": "server_tool_use", "id": call_id, "name": "web_fetch", "input": {"url": url}, "caller": caller}
        )
        result = {"type": "web_fetch_tool_result_error", "error_code": "unavailable"}
        joined[number + 1].insert(
            0, {"type": "web_fetch_tool_result", "tool_use_id": call_id, "content": result, "caller": caller}
        )
    return joined
