"""The content of an answer: a pure function of the stored prompt, so that the same request always gets the same."""

from __future__ import annotations

from hashlib import blake2b
from itertools import chain
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from ..script import Answer, Behaviour, ToolCall
from .parts import Said, drop_said, find_part, join_text, join_with_fetches, measure_said, split_parts
from .prompt import Prompt

#: How every answer without a script begins.
BEGINNING = "Echo: "
CHARS_PER_TOKEN = 4

_encode = msgspec.json.Encoder().encode


_NOTHING = Said()


class Content(NamedTuple):
    """The content of a message, and why it ends."""

    blocks: list[dict[str, Any]]
    stop_reason: str | None
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None


def make_content(prompt: Prompt, behaviour: Behaviour) -> Content:
    """Return the content that answers a prompt."""
    rule, said = prompt.answer, Said(prompt.said_chars, prompt.said_blocks)
    if rule is None and prompt.form is None and said == _NOTHING:
        return _make_echo(prompt, behaviour)
    parts = _make_parts(prompt, behaviour)
    number = find_part(parts, said)
    if number < len(parts) - 1:
        content = Content(parts[number], "pause_turn")
    else:
        rest = parts[number] if number < len(parts) else drop_said(list(chain(*parts)), said)
        content = _end_content(rest, rule)
    if rule is not None and rule.stop_reason is not UNSET:
        return content
    if prompt.form is not None:
        content = _obey_stop_sequences(content, prompt.form.stop_sequences)
    return _cut_content(content, prompt.max_tokens)


def _make_echo(prompt: Prompt, behaviour: Behaviour) -> Content:
    """Return the content of most answers: in a batch there may be 100,000 of them."""
    (block,) = _default_blocks(prompt, behaviour)
    most = prompt.max_tokens * CHARS_PER_TOKEN
    if len(block["text"]) <= most:
        return Content([block], "end_turn")
    return Content([{**block, "text": block["text"][:most]}] if most else [], "max_tokens")


def find_said(prompt: Prompt, behaviour: Behaviour, last_turn: Any) -> Said:
    """Return how much of its answer the last turn of a request has; nothing if that turn says something else."""
    rule = prompt.answer
    if rule is not None and rule.content is not None and not rule.pauses:
        # Sent as it is, whatever was said.
        return _NOTHING
    blocks = [{"type": "text", "text": last_turn}] if isinstance(last_turn, str) else last_turn
    whole = list(chain(*_make_parts(prompt, behaviour)))
    said = measure_said(blocks)
    if not join_text(whole).startswith(join_text(blocks)) or said.blocks > measure_said(whole).blocks:
        return Said()
    return said


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


def _make_parts(prompt: Prompt, behaviour: Behaviour) -> list[list[dict[str, Any]]]:
    """Return the parts in which the answer comes: one, unless a script pauses it."""
    blocks, rule = _whole_blocks(prompt, behaviour), prompt.answer
    if rule is None or not rule.pauses:
        return [blocks]
    if rule.content is not None:
        return split_parts(blocks, rule.pauses + 1)
    # JSON is not cut into several texts: it comes in the last part.
    is_json = rule.json is not UNSET or (rule.text is None and prompt.form is not None and bool(prompt.form.instance))
    parts = [blocks] if is_json or rule.tool else split_parts(blocks, rule.pauses + 1)
    # The same key in every request that continues this one.
    key = blake2b(prompt.echo.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
    return join_with_fetches([[]] * (rule.pauses + 1 - len(parts)) + parts, key)


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


def count_calls(blocks: list[dict[str, Any]], name: str) -> int:
    """Return how often the server's tool is called."""
    return sum(block.get("type") == "server_tool_use" and block.get("name") == name for block in blocks)


def count_output(blocks: list[dict[str, Any]], *kinds: str) -> int:
    """Return the tokens of an answer's blocks, or of those of some kinds."""
    return sum(count_chars(block) for block in blocks if not kinds or block.get("type") in kinds) // CHARS_PER_TOKEN
