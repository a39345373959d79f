"""The params of a request that is sent again: they follow from those submitted and from its stored row alone."""

from __future__ import annotations

from typing import Any

import msgspec

from claude_batch_tasks import rules
from claude_batch_tasks.records import RepairOptions
from claude_batch_tasks.wire import lenient_json, result_rows
from claude_batch_tasks.wire.stored_rows import Sending

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.encode

#: Blocks that only the model that wrote them may be given.
_THINKING = ("thinking", "redacted_thinking")


class _Container(msgspec.Struct):
    id: str | None = None


class _Contained(msgspec.Struct):
    container: _Container | None = None


def repair_params(params: bytes, sending: Sending, options: RepairOptions) -> bytes:
    """Return the params with which a request is sent again, as JSON: the same bytes each time.

    Args:
        params: as it was submitted, as JSON.
        options: those by which it was chosen.
    """
    found = _decode_members(params)
    changed: dict[str, Any] = {}
    model = sending.moved_to
    if model is not None:
        changed["model"] = model
    _fit_tokens(found, changed, sending, options)
    turns = [*_decode_list(sending.turns), *_continue_answer(sending, changed)]
    if model is not None or turns:
        own = _decode_list(found["messages"])
        changed["messages"] = [*(own if model is None else _strip_thinking(own)), *turns]
    if not changed:
        return params
    return _encode({name: value for name, value in {**found, **changed}.items() if value is not None})


def can_raise_tokens(params: bytes, moved_to: str | None, times: int, options: RepairOptions) -> bool:
    """Return whether a cut request gets more tokens when its ``max_tokens`` is doubled again.

    Args:
        params: as it was submitted.
        times: how many times it was doubled before.
    """
    found = _decode_members(params)
    return _raised(found, moved_to, times + 1, options) > _raised(found, moved_to, times, options)


def _raised(params: dict[str, msgspec.Raw], moved_to: str | None, times: int, options: RepairOptions) -> int:
    model = moved_to or msgspec.json.decode(params["model"], type=str)
    of_model = rules.output_limit(model, long_output=options.long_output)
    given = msgspec.json.decode(params["max_tokens"], type=int)
    if moved_to is not None and of_model is not None:
        given = min(given, of_model)
    return rules.raise_max_tokens(given, times, limit=options.max_tokens_limit, of_model=of_model)


def _fit_tokens(
    params: dict[str, msgspec.Raw], changed: dict[str, Any], sending: Sending, options: RepairOptions
) -> None:
    """Change ``max_tokens``, and the budget for thinking if that must stay under it."""
    given = msgspec.json.decode(params["max_tokens"], type=int)
    raised = _raised(params, sending.moved_to, sending.count_kind("max_tokens"), options)
    if raised == given:
        return
    changed["max_tokens"] = raised
    thinking = msgspec.json.decode(params.get("thinking", b"null"))
    if isinstance(thinking, dict) and type(budget := thinking.get("budget_tokens")) is int and budget >= raised:
        fitting = rules.fit_budget(budget, raised)
        changed["thinking"] = None if fitting is None else {**thinking, "budget_tokens": fitting}


def _continue_answer(sending: Sending, changed: dict[str, Any]) -> list[Any]:
    """Return the turn that a paused answer continues, and name the container that its tools ran in."""
    if sending.repair != "continue":
        return []
    message, _ = result_rows.read_member(result_rows.read_member(sending.earlier.line, "result")[0], "message")
    container = msgspec.json.decode(message, type=_Contained).container
    if container is not None and container.id is not None:
        changed["container"] = container.id
    return [{"role": "assistant", "content": msgspec.Raw(sending.earlier.row.content)}]


def _strip_thinking(messages: list[msgspec.Raw]) -> list[Any]:
    """Return turns without what another model has thought."""
    found: list[Any] = []
    for raw in messages:
        if b"thinking" not in bytes(raw):
            found.append(raw)
            continue
        message, _ = lenient_json.read_json(bytes(raw))
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, list) or message.get("role") != "assistant":
            found.append(raw)
        elif left := [block for block in content if not (isinstance(block, dict) and block.get("type") in _THINKING)]:
            found.append({**message, "content": left})
    return found
