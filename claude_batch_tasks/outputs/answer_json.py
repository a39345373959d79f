"""The JSON of an answer: the text of a message, or the input of the tool by which the model had to answer."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

import jiter
import msgspec

from claude_batch_tasks.outputs.sending import TOOL


class NoAnswer(ValueError):
    """A message has no answer that can be read as JSON; the text says why."""


class OtherCall(NoAnswer):
    """A message calls a tool of the application, and so is no answer yet."""


class Answer:
    """An answer as JSON.

    Args:
        text: the JSON.
    """

    def __init__(self, text: bytes) -> None:
        self.text = text

    @cached_property
    def value(self) -> Any:
        """Its values; of a key that an object has twice, the last one.

        Raises:
            NoAnswer: the text is not JSON.
        """
        try:
            return jiter.from_json(self.text, allow_inf_nan=False)
        except ValueError as exc:
            raise NoAnswer(f"it is not JSON that can be read: {exc}") from None


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(list[_Block]).decode

#: Blocks that may stand between the texts of one answer.
_BESIDE = frozenset(("text", "thinking", "redacted_thinking"))


def read_answer(content: bytes | list[Any]) -> Answer:
    """Return the answer in the content of a message.

    Raises:
        NoAnswer: there is none, or it has a number that JSON does not have.
    """
    answer = Answer(_find_json(_read_blocks(content)))
    if b"NaN" in answer.text or b"Infinity" in answer.text:
        answer.value  # noqa: B018 - pydantic reads these as numbers, which JSON does not have
    return answer


def _read_blocks(content: bytes | list[Any]) -> list[_Block]:
    if isinstance(content, bytes):
        try:
            return _decode(content)
        except (msgspec.DecodeError, ValueError, RecursionError):
            pass
        try:
            content = json.loads(content)
        except (ValueError, RecursionError) as exc:
            raise NoAnswer(f"the message cannot be read ({type(exc).__name__})") from None
    return [_make_block(block) for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def _make_block(block: dict[str, Any]) -> _Block:
    kind, text, name = (found if isinstance(found := block.get(key), str) else None for key in ("type", "text", "name"))
    try:
        data = json.dumps(block.get("input") if kind == "tool_use" and name == TOOL else None).encode()
    except (ValueError, RecursionError):
        data = b""
    return _Block(kind or "", text, name, msgspec.Raw(data))


def _find_json(blocks: list[_Block]) -> bytes:
    if len(blocks) == 1 and blocks[0].text:  # as nearly always
        return _encode_text(blocks[0].text)
    if calls := [block for block in blocks if block.type == "tool_use"]:
        return _find_input(calls)
    last = max((number for number, block in enumerate(blocks) if block.type not in _BESIDE), default=-1)
    # Text before a server's tool is used is not the answer, if there is text after it.
    if not (text := _join_texts(blocks[last + 1 :]) or _join_texts(blocks)):
        raise NoAnswer("the message has no text")
    return _encode_text(text)


def _find_input(calls: list[_Block]) -> bytes:
    ours = [block for block in calls if block.name == TOOL]
    if not ours:
        raise OtherCall("the message calls a tool, and has no answer")
    if len(ours) > 1:
        raise NoAnswer("it answers several times")
    return bytes(ours[0].input)


def _join_texts(blocks: list[_Block]) -> str:
    return "".join([block.text for block in blocks if block.text])


def _encode_text(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise NoAnswer("it holds half of a surrogate pair") from None
