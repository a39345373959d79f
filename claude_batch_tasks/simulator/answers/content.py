"""The content of an answer: a pure function of the stored prompt, so that the same request always gets the same."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from ..script import Answer, Behaviour, ToolCall
from .prompt import Prompt

#: How every answer without a script begins.
BEGINNING = "Echo: "
CHARS_PER_TOKEN = 4
THINKING = ("thinking", "redacted_thinking")

_encode = msgspec.json.Encoder().encode


class Content(NamedTuple):
    """The content of a message, and why it ends."""

    blocks: list[dict[str, Any]]
    stop_reason: str | None
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None


class Said(NamedTuple):
    """How much of the answer the assistant's last turn has: characters of text, and other blocks than text."""

    chars: int = 0
    blocks: int = 0


def make_content(prompt: Prompt, behaviour: Behaviour) -> Content:
    """Return the content that answers a prompt."""
    rule, said = prompt.answer, Said(prompt.said_chars, prompt.said_blocks)
    blocks = _whole_blocks(prompt, behaviour)
    part = None
    if rule is not None and rule.pauses:
        part = _find_part(blocks, rule.pauses + 1, said)
    if part is not None and not part.is_last:
        content = Content(part.blocks, "pause_turn")
    else:
        rest = part.blocks if part is not None else drop_said(blocks, said)
        content = _end_content(rest, rule)
    if rule is not None and rule.stop_reason is not UNSET:
        return content
    if prompt.form is not None:
        content = _obey_stop_sequences(content, prompt.form.stop_sequences)
    return _cut_content(content, prompt.max_tokens)


def _end_content(blocks: list[dict[str, Any]], rule: Answer | None) -> Content:
    """Return the content with the reason for which it ends."""
    tools = any(block.get("type") == "tool_use" for block in blocks)
    reason: str | None = "tool_use" if tools else "end_turn"
    if rule is None:
        return Content(blocks, reason)
    details = rule.stop_details
    if rule.is_refusal:
        reason, details = "refusal", details or _refusal_details(rule.refusal)
    if rule.stop_reason is not UNSET:
        reason = rule.stop_reason
    return Content(blocks, reason, rule.stop_sequence, details)


def _refusal_details(refusal: str | bool | dict[str, Any] | None) -> dict[str, Any]:
    if isinstance(refusal, dict):
        return refusal
    return {"type": "refusal", "category": refusal if isinstance(refusal, str) else None, "explanation": None}


# The whole answer


def _whole_blocks(prompt: Prompt, behaviour: Behaviour) -> list[dict[str, Any]]:
    """Return the blocks of the whole answer, as if it were given at once."""
    rule = prompt.answer
    if rule is None:
        return _default_blocks(prompt, behaviour)
    if rule.content is not None:
        return list(rule.content)
    blocks: list[dict[str, Any]] = []
    if rule.thinking is not None:
        blocks.append({"type": "thinking", "thinking": rule.thinking, "signature": "c2ltdWxhdGVk"})
    tools = (rule.tool,) if isinstance(rule.tool, ToolCall) else rule.tool
    if rule.text is not None or rule.json is not UNSET:
        blocks += _text_blocks(rule, prompt.echo)
    elif not tools and not rule.is_refusal:
        blocks += _default_blocks(prompt, behaviour)
    return blocks + [_tool_block(call, prompt, number) for number, call in enumerate(tools)]


def _text_blocks(rule: Answer, echo: str) -> list[dict[str, Any]]:
    if rule.text is not None:
        text = rule.text.replace("{prompt}", echo)
    else:
        text = _encode(rule.json).decode().replace("{prompt}", _encode(echo).decode()[1:-1])
    if not text:
        return []
    block: dict[str, Any] = {"type": "text", "text": text}
    if rule.citations:
        block = {"citations": list(rule.citations), **block}
    return [block]


def _default_blocks(prompt: Prompt, behaviour: Behaviour) -> list[dict[str, Any]]:
    """Return the answer without a script: a valid instance, a call of the forced tool, or an echo."""
    form = prompt.form
    if form is not None and form.tool is not None:
        return [_tool_block(form.tool, prompt, 0)]
    if form is not None and form.instance:
        return [{"type": "text", "text": form.instance}]
    return [{"type": "text", "text": (BEGINNING + prompt.echo).ljust(behaviour.answer_chars, ".")}]


def _tool_block(call: ToolCall, prompt: Prompt, number: int) -> dict[str, Any]:
    call_id = call.id or f"toolu_01{prompt.digest.hex()[:20]}{number:02d}"
    return {"type": "tool_use", "id": call_id, "name": call.name, "input": call.input, "caller": {"type": "direct"}}


# What was said before


def measure_said(blocks: list[dict[str, Any]]) -> Said:
    """Return how much the blocks say. Thinking does not count: it may be left out of the assistant's turn."""
    chars = sum(len(block["text"]) for block in blocks if block.get("type") == "text")
    return Said(chars, sum(block.get("type") not in ("text", *THINKING) for block in blocks))


def find_said(prompt: Prompt, behaviour: Behaviour, last_turn: Any) -> Said:
    """Return how much of its answer the last turn of a request has; nothing if that turn says something else."""
    blocks = [{"type": "text", "text": last_turn}] if isinstance(last_turn, str) else last_turn
    said = measure_said(blocks)
    rule = prompt.answer
    if rule is not None and rule.content is not None and not rule.pauses:
        return Said()
    whole = _whole_blocks(prompt, behaviour)
    if not _join_text(whole).startswith(_join_text(blocks)) or said.blocks > measure_said(whole).blocks:
        return Said()
    return said


def _join_text(blocks: list[dict[str, Any]]) -> str:
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


class _Part(NamedTuple):
    blocks: list[dict[str, Any]]
    is_last: bool


def _find_part(blocks: list[dict[str, Any]], count: int, said: Said) -> _Part | None:
    """Return the part of a paused answer that comes after what was said; None if no part begins there."""
    parts = _split_parts(blocks, count)
    before: list[dict[str, Any]] = []
    for number, part in enumerate(parts, 1):
        if measure_said(before) == said:
            return _Part(part, number == len(parts))
        before += part
    return None


def _split_parts(blocks: list[dict[str, Any]], count: int) -> list[list[dict[str, Any]]]:
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


# What ends it early


def _obey_stop_sequences(content: Content, sequences: tuple[str, ...]) -> Content:
    for number, block in enumerate(content.blocks):
        if block.get("type") != "text":
            continue
        found = [(at, sequence) for sequence in sequences if (at := block["text"].find(sequence)) >= 0]
        if found:
            at, sequence = min(found)
            kept = content.blocks[:number]
            if at:
                kept.append({**block, "text": block["text"][:at]})
            return Content(kept, "stop_sequence", sequence)
    return content


def _cut_content(content: Content, max_tokens: int) -> Content:
    """Return the content as `max_tokens` allows it, four characters a token."""
    left = max_tokens * CHARS_PER_TOKEN
    kept: list[dict[str, Any]] = []
    for block in content.blocks:
        size = count_chars(block)
        if size > left:
            if left:
                kept.append(_cut_block(block, left))
            return Content(kept, "max_tokens")
        left -= size
        kept.append(block)
    return content


def _cut_block(block: dict[str, Any], chars: int) -> dict[str, Any]:
    """Return the beginning of a block; a call of a tool has no input then."""
    field = block.get("type")
    if field in ("text", "thinking"):
        return {**block, field: block[field][:chars]}
    return {**block, "input": {}} if "input" in block else block


def count_chars(block: dict[str, Any]) -> int:
    """Return the characters of a block that count as output."""
    for field in ("text", "thinking"):
        if isinstance(block.get(field), str):
            return len(block[field])
    return len(_encode(block["input"])) if "input" in block else 0


def has_output(blocks: list[dict[str, Any]]) -> bool:
    """Return whether there is more than blank text."""
    return any(block.get("type") != "text" or block["text"].strip() for block in blocks)


def count_output(blocks: list[dict[str, Any]], *kinds: str) -> int:
    """Return the tokens of an answer's blocks, or of those of some kinds."""
    return sum(count_chars(block) for block in blocks if not kinds or block.get("type") in kinds) // CHARS_PER_TOKEN
