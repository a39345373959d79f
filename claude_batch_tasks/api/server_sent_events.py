"""Messages of the Messages API, put together from the server-sent events in which they are streamed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jiter
from msgspec import DecodeError

from claude_batch_tasks.wire import lenient_json

#: The field to which each type of delta of a content block is appended; texts are joined. (Streaming guide of the
#: Messages API.)
_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}

#: The field for the JSON of a tool's input, which is parsed when it is complete.
_INPUT = "input"

_LAST = b"message_stop"

_LONGEST_ID = 100

_END_OF_LINE = re.compile(rb"\r\n|\n|\r")


#: Events that must be readable: without one of them a message is incomplete, or its failure is not seen.
_NEEDED = {"message_start", "content_block_start", "content_block_delta", "message_delta", "message_stop", "error"}


def is_needed(name: str, data: bytes) -> bool:
    """Return whether unreadable data is an event that must not be missing: by its name or, without one, by its form."""
    return name in _NEEDED or (name in ("", "message") and data.lstrip().startswith(b"{"))


def read_events(chunks: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the name (or "") and the data of each server-sent event of a stream.

    The SDK's ``Stream`` is not used: it copies what it has of an event for every line that comes, so that an event
    without end would block a process for hours.
    """
    name, data = "", list[bytes]()
    for line in _split_lines(chunks):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.strip().decode(errors="replace")
        elif not line:
            if data:
                yield name, b"\n".join(data)
            name, data = "", []


def _split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines without their ends: CR, LF or both, which may come in separate chunks.

    If the stream ends early, an event of which only the last line end or the empty line after it is missing is
    completed first; then the exception is raised.
    """
    held: list[bytes] = []
    after_return = False
    failure = None
    try:
        for chunk in chunks:
            first, *lines = _END_OF_LINE.split(chunk[after_return and chunk.startswith(b"\n") :])
            after_return = chunk.endswith(b"\r") or (after_return and not chunk)
            held.append(first)
            if lines:
                yield b"".join(held)
                held = [lines.pop()]
                yield from lines
    except Exception as exc:  # noqa: BLE001 - an error of the transport; raised below
        failure = exc
    # Only the last event is of any use then.
    if _LAST in (rest := b"".join(held)):
        yield rest
    yield b""
    if failure is not None:
        raise failure


class Message:
    """The message so far. Unknown fields and blocks are stored as they came.

    A ``message_start`` with another id than the one before starts the message again: something between us and the API
    has asked a second time. One with the same id repeats the first. After a second beginning no event may be missing or
    come twice, because events that remain of the first message would look like that.
    """

    def __init__(self) -> None:
        #: Whether the message is over: its ``message_stop`` has come.
        self.over = False
        #: Ids of the messages that were begun before this one.
        self.dropped: tuple[str, ...] = ()
        self._message: dict[str, Any] | None = None
        self._forget_content()

    def _forget_content(self) -> None:
        self._blocks: dict[int, dict[str, Any]] = {}
        #: The parts of each field of a block that comes in parts.
        self._parts: dict[tuple[int, str], list[str]] = {}
        self._grown: set[int] = set()
        self._stopped: set[int] = set()

    @property
    def begun(self) -> bool:
        """Whether a part of the message has come, and may be charged for."""
        return self._message is not None

    def add_event(self, event: Any) -> None:
        """Add the next event, as the plain values of its JSON.

        Raises:
            DecodeError: the event is not as the API documents it.
        """
        with _require_documented():
            self._apply_event(event)

    def _apply_event(self, event: Any) -> None:
        kind = event.get("type") if isinstance(event, dict) else None
        if kind == "message_start":
            self._begin_message(dict(event["message"]))
        elif self._message is not None and isinstance(kind, str) and kind in _TAKEN_BY:
            _TAKEN_BY[kind](self, event)

    def _begin_message(self, message: dict[str, Any]) -> None:
        had = self._message
        if had is not None and had.get("id") == message.get("id"):
            self._message = {
                **_merge_known(had, message),
                "usage": _merge_known(had.get("usage"), message.get("usage")),
            }
            return
        if had is not None:
            self.dropped += (str(had.get("id"))[:_LONGEST_ID],)
            self._forget_content()
        self._message = message

    def _start_block(self, event: dict[str, Any]) -> None:
        index = event["index"]
        if index in self._grown or index in self._stopped:
            raise ValueError("a block starts twice")
        self._blocks[index] = dict(event["content_block"])

    def _stop_block(self, event: dict[str, Any]) -> None:
        index = event["index"]
        if self.dropped and (index not in self._blocks or index in self._stopped):
            raise ValueError("a block of another message ends")
        self._stopped.add(index)

    def _change_message(self, event: dict[str, Any]) -> None:
        assert self._message is not None
        # Usage is cumulative: counters that the event names have grown, the others stay.
        self._message.update(event.get("delta") or {})
        self._message["usage"] = _merge_known(self._message.get("usage"), event.get("usage"))
        self._message.update({n: v for n, v in event.items() if n not in ("type", "delta", "usage")})

    def _stop_message(self, event: dict[str, Any]) -> None:
        """End the message; check, if it was started again, that every block is there and has ended."""
        whole = set(range(len(self._blocks)))
        if self.dropped and not (whole and whole == self._blocks.keys() == self._stopped):
            raise ValueError("blocks are missing")
        self.over = True

    def encode_message(self) -> bytes:
        """Return the message as JSON.

        Raises:
            DecodeError: the stream has ended before the message.
        """
        if self._message is None or not self.over:
            raise DecodeError("the stream has ended before the message")
        with _require_documented():
            for (index, name), parts in self._parts.items():
                text = "".join(parts)
                if name != _INPUT:
                    self._blocks[index][name] = text
                elif text:
                    self._blocks[index][name] = _read_input(text)
            content = [self._blocks[index] for index in sorted(self._blocks)]
            return lenient_json.encode_json({**self._message, **self._served_by(content), "content": content})

    def _served_by(self, content: list[dict[str, Any]]) -> dict[str, str]:
        """Return the model that has answered, if it is not the requested one, which the stream names at its beginning.

        A ``fallback`` block names the next model if the one before had begun to answer. An entry of
        ``usage.iterations`` names the last model in any case.
        """
        served: list[Any] = []
        with suppress(LookupError, TypeError, AttributeError):  # a malformed answer is still kept
            served += [block["to"]["model"] for block in content if block.get("type") == "fallback"]
        with suppress(LookupError, TypeError, AttributeError):
            entries = (self._message or {})["usage"]["iterations"]
            served += [entry["model"] for entry in entries if entry.get("type") == "fallback_message"]
        models = [model for model in served if isinstance(model, str)]
        return {"model": models[-1]} if models else {}

    def _grow_block(self, event: dict[str, Any]) -> None:
        index, delta = event["index"], event["delta"]
        if index in self._stopped:
            raise ValueError("a block that has ended continues")
        self._grown.add(index)
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


#: The methods that take the events of a message that has begun, by the type of the event.
_TAKEN_BY: dict[str, Callable[[Message, dict[str, Any]], None]] = {
    "content_block_start": Message._start_block,
    "content_block_delta": Message._grow_block,
    "content_block_stop": Message._stop_block,
    "message_delta": Message._change_message,
    "message_stop": Message._stop_message,
}


@contextmanager
def _require_documented() -> Iterator[None]:
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError):
        raise DecodeError("an event is not the API's JSON as documented") from None


def _merge_known(had: Any, new: Any) -> dict[str, Any]:
    """Return the known values, replaced by the new ones; null does not replace a value."""
    return {**(had or {}), **{name: value for name, value in (new or {}).items() if value is not None}}


def _read_input(text: str) -> Any:
    """Return the input of a tool, or as much of it as there is if ``max_tokens`` has cut it off.

    Text that is not JSON at all is wrapped as in Anthropic's guide to fine-grained tool streaming.
    """
    try:
        return lenient_json.loads(text)
    except lenient_json.BreaksOff:
        with suppress(ValueError):
            found = jiter.from_json(text.encode(errors="replace"), partial_mode=True)
            lenient_json.encode_json(found)  # it may hold a number that cannot be written
            return found
    except ValueError:
        pass
    return {"INVALID_JSON": text}
