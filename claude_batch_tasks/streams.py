"""A message of the Messages API put together from the events it is streamed as."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import jiter
from msgspec import DecodeError

#: Where what a delta of a content block adds belongs; texts are joined. (Streaming guide of the Messages API.)
_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


class Message:
    """The message so far. Fields and blocks that nobody knows yet are kept as they came."""

    def __init__(self) -> None:
        self._message: dict[str, Any] | None = None
        self._blocks: dict[int, dict[str, Any]] = {}
        self._json: dict[int, str] = {}
        self._over = False

    @property
    def begun(self) -> bool:
        """A part of it has come, and may be charged for."""
        return self._message is not None

    def add(self, event: Any) -> None:
        """The next event, as the plain values of its JSON."""
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
        for index, text in self._json.items():
            if text:
                self._blocks[index]["input"] = _read(text)
        content = [self._blocks[index] for index in sorted(self._blocks)]
        return json.dumps({**self._message, "content": content}).encode()

    def _grow(self, index: int, delta: dict[str, Any]) -> None:
        block, kind = self._blocks[index], delta.get("type")
        if name := _TEXTS.get(str(kind)):
            block[name] = (block.get(name) or "") + delta[name]
        elif kind == "input_json_delta":
            self._json[index] = self._json.get(index, "") + delta["partial_json"]
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta["citation"]]
        else:
            block.update({n: v for n, v in delta.items() if n != "type"})


def _read(text: str) -> Any:
    """The input of a tool; as much of it as there is, where ``max_tokens`` has cut it off."""
    with suppress(ValueError):
        return json.loads(text)
    with suppress(ValueError):
        return jiter.from_json(text.encode(errors="replace"), partial_mode=True)
    return {}
