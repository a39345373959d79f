"""What requests demand of the form of their answers: a schema, a tool, stop sequences."""

from __future__ import annotations

from typing import Any

import msgspec

from ..script import ToolCall
from .instances import make_instance
from .prompt import Form

_encode = msgspec.json.Encoder().encode


class Forms:
    """The forms that the requests of one call demand: each once, however many requests demand it."""

    def __init__(self) -> None:
        self._known: dict[bytes, Form] = {}

    def find_form(self, params: dict[str, Any]) -> Form | None:
        """Return what valid params demand; None: nothing."""
        schema, tool, stops = _find_schema(params), _find_tool(params), params.get("stop_sequences") or ()
        if schema is None and tool is None and not stops:
            return None
        key = _encode((schema, tool, stops))
        if key not in self._known:
            self._known[key] = Form(
                "" if schema is None else _encode(make_instance(schema)).decode(),
                None if tool is None else ToolCall(tool["name"], make_instance(tool["input_schema"])),
                tuple(stops),
            )
        return self._known[key]


def _find_schema(params: dict[str, Any]) -> Any:
    """Return the schema that the text of the answer must fit: in `output_config`, or in the older `output_format`."""
    wanted = (params.get("output_config") or {}).get("format") or params.get("output_format") or {}
    return wanted.get("schema") if wanted.get("type") == "json_schema" else None


def _find_tool(params: dict[str, Any]) -> Any:
    """Return the tool that must be called: the one that is named, or the first one that the client defines itself."""
    choice = params.get("tool_choice") or {}
    if choice.get("type") not in ("tool", "any"):
        return None
    own = [tool for tool in params.get("tools") or () if "input_schema" in tool]
    return next((tool for tool in own if choice["type"] == "any" or tool["name"] == choice.get("name")), None)
