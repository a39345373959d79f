"""A message of the Messages API put together from the events it is streamed as."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jiter
from msgspec import DecodeError

from claude_batch_tasks import lenient_json

#: Where what a delta of a content block adds belongs; texts are joined. (Streaming guide of the Messages API.)
_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}

#: Where the JSON of a tool's input does, which is read when it is there.
_INPUT = "input"


_END_OF_LINE = re.compile(rb"\r\n|\n|\r")


def events(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The data of each server-sent event of a stream.

    Not the SDK's ``Stream``: it copies what it has of an event for every line that comes, so that one without end holds
    a process for hours.
    """
    data: list[bytes] = []
    for line in _lines(chunks):
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif not line and data:
            yield b"\n".join(data)
            data = []


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Without what they end with: CR, LF or both, which may come apart."""
    held: list[bytes] = []
    after_return = False
    for chunk in chunks:
        first, *lines = _END_OF_LINE.split(chunk[after_return and chunk.startswith(b"\n") :])
        after_return = chunk.endswith(b"\r") or (after_return and not chunk)
        held.append(first)
        if lines:
            yield b"".join(held)
            held = [lines.pop()]
            yield from lines


class Message:
    """The message so far. Fields and blocks that nobody knows yet are kept as they came."""

    def __init__(self) -> None:
        self._message: dict[str, Any] | None = None
        self._blocks: dict[int, dict[str, Any]] = {}
        #: The pieces of each field of a block that comes in pieces.
        self._parts: dict[tuple[int, str], list[str]] = {}
        self._over = False

    @property
    def begun(self) -> bool:
        """A part of it has come, and may be charged for."""
        return self._message is not None

    def add(self, event: Any) -> None:
        """The next event, as the plain values of its JSON.

        Raises:
            DecodeError: it is not as the API documents it.
        """
        with _documented():
            self._add(event)

    def _add(self, event: Any) -> None:
        kind = event.get("type") if isinstance(event, dict) else None
        if kind == "message_start":
            self._message = dict(event["message"])
        elif self._message is None:
            return
        elif kind == "content_block_start":
            self._blocks[event["index"]] = dict(event["content_block"])
        elif kind == "content_block_delta":
            self._grow(event["index"], event["delta"])
        elif kind == "message_delta":
            # Usage is cumulative: what is named here has grown, the rest stays.
            self._message.update(event.get("delta") or {})
            known = self._message.get("usage") or {}
            new = {name: n for name, n in (event.get("usage") or {}).items() if n is not None}
            self._message["usage"] = {**known, **new}
            self._message.update({n: v for n, v in event.items() if n not in ("type", "delta", "usage")})
        elif kind == "message_stop":
            self._over = True

    def whole(self) -> bytes:
        """The message as JSON.

        Raises:
            DecodeError: the stream has ended before it.
        """
        if self._message is None or not self._over:
            raise DecodeError("the stream has ended before the message")
        with _documented():
            for (index, name), parts in self._parts.items():
                text = "".join(parts)
                if name != _INPUT:
                    self._blocks[index][name] = text
                elif text:
                    self._blocks[index][name] = _read(text)
            content = [self._blocks[index] for index in sorted(self._blocks)]
            return lenient_json.encode({**self._message, "content": content})

    def _grow(self, index: int, delta: dict[str, Any]) -> None:
        block, kind = self._blocks[index], str(delta.get("type"))
        if name := _TEXTS.get(kind):
            self._parts.setdefault((index, name), [block.get(name) or ""]).append(delta[name])
        elif kind == "input_json_delta":
            self._parts.setdefault((index, _INPUT), []).append(delta["partial_json"])
        elif kind == "citations_delta":
            block["citations"] = block.get("citations") or []
            block["citations"].append(delta["citation"])
        else:
            block.update({n: v for n, v in delta.items() if n != "type"})


@contextmanager
def _documented() -> Iterator[None]:
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError):
        raise DecodeError("an event is not the API's JSON as documented") from None


def _read(text: str) -> Any:
    """Return the input of a tool; as much of it as there is, where ``max_tokens`` has cut it off.

    What is no JSON at all is wrapped as Anthropic's guide to fine-grained tool streaming has it.
    """
    try:
        return lenient_json.loads(text)
    except lenient_json.BreaksOff:
        with suppress(ValueError):
            found = jiter.from_json(text.encode(errors="replace"), partial_mode=True)
            lenient_json.encode(found)  # it may hold a number that cannot be written
            return found
    except ValueError:
        pass
    return {"INVALID_JSON": text}
