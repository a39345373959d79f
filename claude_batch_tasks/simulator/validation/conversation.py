"""The rules of a conversation: who says what, in which order, and which results answer which tools."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

Messages: TypeAlias = list[dict[str, Any]]

_DIRECTIVE = "the directive-only form (content: [] with output_config) is accepted at any position"
#: Blocks that only one role may have.
_ONLY = {
    "tool_use": "assistant",
    "server_tool_use": "assistant",
    "thinking": "assistant",
    "redacted_thinking": "assistant",
    "tool_result": "user",
}
_DIRECTIVE_BLOCKS = ("text", "tool_addition", "tool_removal")


def find_conversation_problem(messages: Messages) -> str:
    """Return what is wrong with valid messages as a conversation; an empty text: nothing is."""
    return (
        _find_system_problem(messages)
        or _find_empty_turn(messages)
        or _find_misplaced_block(messages)
        or _find_blank_text(messages)
        or _find_unpaired_tool(messages)
    )


def blocks_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the blocks of a message that has any."""
    content = message.get("content")
    return content if type(content) is list else []


def _find_system_problem(messages: Messages) -> str:
    places = [index for index, message in enumerate(messages) if message["role"] == "system"]
    for rule in (_find_no_content, _find_wrong_block, _find_wrong_place, _find_blank_directive):
        for index in places:
            if problem := rule(messages, index):
                return f"messages.{index}: {problem}"
    return ""


def _find_no_content(messages: Messages, index: int) -> str:
    message = messages[index]
    empty = message.get("content", []) in ([], "")
    return "system content must contain at least one block" if empty and "output_config" not in message else ""


def _find_wrong_block(messages: Messages, index: int) -> str:
    wrong = any(block["type"] not in _DIRECTIVE_BLOCKS for block in blocks_of(messages[index]))
    return "role 'system' supports text, tool_addition, and tool_removal blocks only" if wrong else ""


def _find_wrong_place(messages: Messages, index: int) -> str:
    if not messages[index].get("content"):
        return ""
    if index == 0:
        return f"use the top-level 'system' parameter for the initial system prompt; {_DIRECTIVE}"
    # Of several in a row, only the last one has a place of its own.
    if index + 1 < len(messages) and messages[index + 1]["role"] == "user":
        return f"role 'system' must precede an 'assistant' message or end the array; {_DIRECTIVE}"
    return ""


def _find_blank_directive(messages: Messages, index: int) -> str:
    texts = list(_texts_of(messages[index]))
    blank = any(not text or text.isspace() for text in texts)
    return "system text blocks must contain non-whitespace text" if blank else ""


def _texts_of(message: dict[str, Any]) -> Iterator[str]:
    content = message.get("content")
    if type(content) is str:
        yield content
    for block in blocks_of(message):
        if block["type"] == "text":
            yield block["text"]


def list_turns(messages: Messages) -> list[tuple[str, list[int]]]:
    """Return the turns, each with the indexes of its messages: neighbours of one role are one turn."""
    turns: list[tuple[str, list[int]]] = []
    for index, message in enumerate(messages):
        role = message["role"]
        if role == "system":
            continue
        if turns and turns[-1][0] == role:
            turns[-1][1].append(index)
        else:
            turns.append((role, [index]))
    return turns


def _find_empty_turn(messages: Messages) -> str:
    turns = list_turns(messages)
    for number, (role, indexes) in enumerate(turns, 1):
        if any(messages[index]["content"] for index in indexes):
            continue
        if role == "user":
            return f"messages.{indexes[0]}: user messages must have non-empty content"
        if number < len(turns):
            return (
                f"messages.{indexes[0]}: all messages must have non-empty content"
                " except for the optional final assistant message"
            )
    return ""


def _find_misplaced_block(messages: Messages) -> str:
    for index, message in enumerate(messages):
        for block in blocks_of(message):
            type_ = block["type"]
            if _ONLY.get(type_, message["role"]) != message["role"]:
                return f"messages.{index}: `{type_}` blocks can only be in `{_ONLY[type_]}` messages"
    return ""


def _find_blank_text(messages: Messages) -> str:
    for message in messages:
        if message["role"] == "system":
            continue
        content = message["content"]
        if type(content) is str and content.isspace():
            return "messages: text content blocks must contain non-whitespace text"
        for block in blocks_of(message):
            if block["type"] != "text":
                continue
            if not block["text"]:
                return "messages: text content blocks must be non-empty"
            if block["text"].isspace():
                return "messages: text content blocks must contain non-whitespace text"
    return ""


def _find_unpaired_tool(messages: Messages) -> str:
    asked: dict[str, int] = {}
    turns = list_turns(messages)
    for role, indexes in turns:
        if role == "user":
            if problem := _find_wrong_result(messages, indexes, asked):
                return problem
            asked = {}
        else:
            uses = [(index, block["id"]) for index in indexes for block in _blocks_of_type(messages[index], "tool_use")]
            asked = {id_: index for index, id_ in uses}
            if len(asked) < len(uses):
                return "messages: `tool_use` ids must be unique"
    return _describe_unanswered(asked)


def _find_wrong_result(messages: Messages, indexes: list[int], asked: dict[str, int]) -> str:
    """Return what is wrong with the results of a user's turn, which answers the tools that were `asked`."""
    open_ = dict(asked)
    for index in indexes:
        for number, block in enumerate(blocks_of(messages[index])):
            if block["type"] != "tool_result":
                continue
            id_ = block["tool_use_id"]
            if id_ not in asked:
                return (
                    f"messages.{index}.content.{number}: unexpected `tool_use_id` found in `tool_result` blocks: {id_}."
                    " Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
                )
            if open_.pop(id_, None) is None:
                return (
                    f"messages.{index}.content.{number}: each tool_use must have a single result."
                    f" Found multiple `tool_result` blocks with id: {id_}"
                )
    return _describe_unanswered(open_)


def _describe_unanswered(asked: dict[str, int]) -> str:
    if not asked:
        return ""
    return (
        f"messages.{min(asked.values())}: `tool_use` ids were found without `tool_result` blocks immediately after:"
        f" {', '.join(asked)}. Each `tool_use` block must have a corresponding `tool_result` block in the next message."
    )


def _blocks_of_type(message: dict[str, Any], type_: str) -> Iterator[dict[str, Any]]:
    return (block for block in blocks_of(message) if block["type"] == type_)
