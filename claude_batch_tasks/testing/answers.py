"""Scripted answers: which requests each is for, and what it makes of them, in the form of the API."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from msgspec import Struct
from typing_extensions import TypedDict

#: What selects requests by a text: the text itself, or a pattern to search for.
Selector: TypeAlias = "str | re.Pattern[str]"

_numbers = itertools.count(1)


class SentRequest(Struct, frozen=True, kw_only=True):
    """A request as the API got it."""

    custom_id: str
    """The custom_id that the job's caller gave it."""
    params: dict[str, Any]
    via: str
    """``batch`` or ``messages`` (the fallback at full price)."""
    batch_id: str | None = None

    @property
    def model(self) -> str:
        """The model that it is for."""
        return str(self.params.get("model"))

    @property
    def prompt(self) -> str:
        """All of its text: the system prompt, then the messages, a line each."""
        parts = [self.params.get("system"), *(each.get("content") for each in self.params.get("messages") or ())]
        return "\n".join(text for part in parts for text in _texts_of(part))


class Selected(TypedDict, total=False):
    """Which requests get an answer; without any of these: all."""

    custom_id: Selector
    """The request with this custom_id, or those whose custom_id a pattern is found in."""
    prompt: Selector
    """Those whose text has this in it, or that a pattern is found in."""
    model: str
    """Those for this model."""
    times: int
    """So many requests."""


class Rule(Struct, kw_only=True):
    """A scripted answer, and the requests that get it."""

    make: Callable[[SentRequest], dict[str, Any]]
    """Returns the ``result`` of a line of a result file."""
    custom_id: Selector | None = None
    prompt: Selector | None = None
    model: str | None = None
    times: int | None = None
    """How many requests still get it; None: all."""

    def takes(self, request: SentRequest) -> bool:
        """Return whether the request gets this answer."""
        return (
            self.times != 0
            and (self.custom_id is None or _is_selected(self.custom_id, request.custom_id, whole=True))
            and (self.prompt is None or _is_selected(self.prompt, request.prompt))
            and self.model in (None, request.model)
        )


def _is_selected(selector: Selector, text: str, *, whole: bool = False) -> bool:
    if isinstance(selector, str):
        return selector == text if whole else selector in text
    return selector.search(text) is not None


def _texts_of(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    blocks = content if isinstance(content, list) else []
    return [block["text"] for block in blocks if isinstance(block, dict) and isinstance(block.get("text"), str)]


def echo_prompt(request: SentRequest) -> dict[str, Any]:
    """Return the answer of a request without a script: its last message."""
    texts = _texts_of((request.params.get("messages") or [{}])[-1].get("content"))
    return text_result(request, "Echo: " + "\n".join(texts))


def answer_result(request: SentRequest, answer: Any) -> dict[str, Any]:
    """Return a result with an answer: a text, a value that becomes JSON, or a function of the request."""
    if callable(answer) and not isinstance(answer, type):
        answer = answer(request)
    if isinstance(answer, str):
        return text_result(request, answer)
    dump = getattr(answer, "model_dump_json", None)  # a pydantic model
    return text_result(request, dump() if callable(dump) else json.dumps(answer))


def text_result(request: SentRequest, text: str) -> dict[str, Any]:
    """Return a result with a text."""
    return message_result(request, [{"type": "text", "text": text}], "end_turn")


def message_result(
    request: SentRequest,
    content: list[dict[str, Any]],
    stop_reason: str,
    usage: Mapping[str, Any] | None = None,
    details: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a result with a whole message; a token for every four characters, unless ``usage`` says other counts."""
    counts = {
        "input_tokens": max(1, len(json.dumps(request.params)) // 4),
        "output_tokens": len(json.dumps(content)) // 4 if content else 0,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "service_tier": "batch" if request.via == "batch" else "standard",
    }
    message = {
        "id": f"msg_test_{next(_numbers):06d}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "stop_details": dict(details) if details else None,
        "usage": {**counts, **(usage or {})},
    }
    return {"type": "succeeded", "message": message}


def error_result(kind: str, text: str) -> dict[str, Any]:
    """Return a result with an error of the API."""
    return {"type": "errored", "error": {"type": "error", "error": {"type": kind, "message": text}}}
