"""The work of the Models API."""

from __future__ import annotations

from typing import Any

from ..models import EFFORTS, Model, read_catalog
from ..prompts import ApiError
from .effects import Work
from .pages import cut_page
from .received import Received
from .replies import Reply, json_reply

_SERVER_TOOLS = ("code_execution", "web_search")
_EDITS = ("clear_thinking_20251015", "clear_tool_uses_20250919", "compact_20260112")


async def list_models(received: Received) -> Work:
    async def answer() -> Reply:
        # Retired models are shown only to those who ask for them.
        query = received.request.query_params
        stages = query.getlist("lifecycle[]") or query.getlist("lifecycle") or ["active", "deprecated"]
        models = {model.id: model for model in read_catalog(received.world.behaviour.models).values()}
        newest = sorted(models.values(), key=lambda model: model.released, reverse=True)
        return json_reply(cut_page(received, [show_model(model) for model in newest if model.lifecycle in stages]))

    return Work(answer)


async def retrieve_model(received: Received) -> Work:
    async def answer() -> Reply:
        name = received.request.path_params["model_id"]
        model = read_catalog(received.world.behaviour.models).get(name)
        if model is None:
            raise ApiError("not_found_error", f"model: {name}")
        return json_reply(show_model(model))

    return Work(answer)


def show_model(model: Model) -> dict[str, Any]:
    """Return a model as the API shows it."""
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.shown_name,
        "created_at": _show_day(model.released or "1970-01-01"),
        "max_input_tokens": model.max_input_tokens,
        "max_tokens": model.max_tokens,
        "lifecycle": model.lifecycle,
        "deprecated_at": _show_day(model.deprecated),
        "retires_at": _show_day(model.retires),
        "line": model.line,
        "capabilities": {
            "batch": _support(model.batch),
            "citations": _support(),
            "code_execution": _support(),
            "context_management": {**_support(), **{name: _support() for name in _EDITS}},
            "effort": {**_support(bool(model.effort)), **{name: _support(name in model.effort) for name in EFFORTS}},
            "image_input": _support(model.vision),
            "pdf_input": _support(model.vision),
            "server_tools": {**_support(), **{name: _support() for name in _SERVER_TOOLS}},
            "structured_outputs": _support(model.structured_outputs),
            "thinking": {
                **_support(set(model.thinking) != {"disabled"}),
                "types": {
                    name: _support(name in model.thinking)
                    for name in ("adaptive", "between_tools", "disabled", "enabled")
                },
            },
        },
    }


def _support(supported: bool = True) -> dict[str, Any]:
    return {"supported": supported}


def _show_day(day: str) -> str | None:
    return f"{day}T00:00:00Z" if day else None
