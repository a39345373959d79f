"""Scripted answers: which requests each is for, and what it makes of them, in the form of the API."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct
from typing_extensions import TypedDict

from claude_batch_tasks.simulator.answers.forms import Forms

#: What selects requests by a text: the text itself, or a pattern to search for.
Selector: TypeAlias = "str | re.Pattern[str]"

_numbers = itertools.count(1)
_forms = Forms()

#: The details of a refusal of which none are known.
_NO_DETAILS = {"type": "refusal", "category": None, "explanation": None}


class SentRequest(Struct, frozen=True, kw_only=True):
    """A request as the API got it."""

    custom_id: str
    """The custom_id that the job's caller gave it."""
    params: dict[str, Any]
    via: str
    """``batch`` or ``messages`` (the fallback at full price)."""
    batch_id: str | None = None
    attempt: int = 1
    """1 when the request is sent for the first time, 2 when it is sent again, and so on."""

    @property
    def model(self) -> str:
        """The model that it is for."""
        return str(self.params.get("model"))

    @property
    def prompt(self) -> str:
        """All of its text: the system prompt, then the messages, a line each."""
        parts = [self.params.get("system"), *(each.get("content") for each in self.params.get("messages") or ())]
        return "\n".join(text for part in parts for text in _texts_of(part))

    @property
    def forced_tool(self) -> str | None:
        """The name of the tool that it forces the model to call."""
        choice = self.params.get("tool_choice") or {}
        return str(choice["name"]) if choice.get("type") == "tool" and "name" in choice else None


class Selected(TypedDict, total=False):
    """Which requests get an answer; without any of these: all."""

    custom_id: Selector
    """The request with this custom_id, or those whose custom_id a pattern is found in."""
    prompt: Selector
    """Those whose text has this in it, or that a pattern is found in."""
    model: str
    """Those for this model."""
    attempt: int
    """Those that are sent for the first time (1), for the second time (2), and so on."""
    times: int
    """So many requests."""


class Rule(Struct, kw_only=True):
    """A scripted answer, and the requests that get it."""

    make: Callable[[SentRequest], dict[str, Any]]
    """Returns the ``result`` of a line of a result file."""
    custom_id: Selector | None = None
    prompt: Selector | None = None
    model: str | None = None
    attempt: int | None = None
    times: int | None = None
    """How many requests still get it; None: all."""

    def takes(self, request: SentRequest) -> bool:
        """Return whether the request gets this answer."""
        return (
            self.times != 0
            and (self.custom_id is None or _is_selected(self.custom_id, request.custom_id, whole=True))
            and (self.prompt is None or _is_selected(self.prompt, request.prompt))
            and self.model in (None, request.model)
            and self.attempt in (None, request.attempt)
        )


def _is_selected(selector: Selector, text: str, *, whole: bool = False) -> bool:
    if isinstance(selector, str):
        return selector == text if whole else selector in text
    return selector.search(text) is not None


def _texts_of(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    return [text for block in blocks for text in _texts_of(block.get("text") or block.get("content"))]


def echo_prompt(request: SentRequest) -> dict[str, Any]:
    """Return an answer with the last text of the user."""
    said = [each for each in request.params.get("messages") or () if each.get("role") == "user"]
    return make_answer(request, "Echo: " + "\n".join(_texts_of((said or [{}])[-1].get("content"))))


def default_answer(request: SentRequest) -> dict[str, Any]:
    """Return the answer of a request without a script: what its schema or tool demands, else an echo."""
    form = _forms.find_form(request.params)
    if form is not None and form.tool is not None:
        return message_result(request, [tool_call(form.tool.name, form.tool.input)], "tool_use")
    return make_answer(request, form.instance) if form is not None and form.instance else echo_prompt(request)


def make_answer(
    request: SentRequest, answer: Any, stop_reason: str | None = None, usage: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a result with an answer.

    Args:
        request: the request that is answered.
        answer: a text; a value that becomes JSON, or the input of the tool that the request forces; or a function of
            the request that returns one of these.
        stop_reason: None: the one that belongs to the content.
        usage: token counts other than those of the content.
    """
    if callable(answer) and not isinstance(answer, type):
        answer = answer(request)
    if not isinstance(answer, str):
        value = _as_json(answer)
        if (tool := request.forced_tool) is not None:
            return message_result(request, [tool_call(tool, value)], stop_reason or "tool_use", usage)
        answer = json.dumps(value)
    return message_result(request, [{"type": "text", "text": answer}], stop_reason or "end_turn", usage)


def _as_json(value: Any) -> Any:
    """Return a value of plain JSON for a dataclass, a pydantic model, a Struct, or what they are made of."""
    return msgspec.to_builtins(value, enc_hook=lambda found: found.model_dump(mode="json"))


def tool_call(name: str, value: Any) -> dict[str, Any]:
    """Return the content block with the call of a tool."""
    return {"type": "tool_use", "id": f"toolu_test_{name}", "name": name, "input": value}


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
        "stop_sequence": (request.params.get("stop_sequences") or [None])[0]
        if stop_reason == "stop_sequence"
        else None,
        "stop_details": dict(details or _NO_DETAILS) if stop_reason == "refusal" else None,
        "usage": {**counts, **(usage or {})},
    }
    return {"type": "succeeded", "message": message}


def error_result(kind: str, text: str) -> dict[str, Any]:
    """Return a result with an error of the API."""
    return {"type": "errored", "error": {"type": "error", "error": {"type": kind, "message": text}}}
