"""Which models have structured outputs, and which can be forced to call a tool."""

from __future__ import annotations

import re

#: Models without structured outputs: those before the generation 4.5. Others, also unknown ones, have them.
_WITHOUT = re.compile(
    r"claude-(?:instant|v?[12](?![0-9])|3(?![0-9])|(?:opus|sonnet|haiku)-3(?![0-9])"
    r"|(?:opus|sonnet)-4(?:-[01](?![0-9]))?(?:-20[0-9]{6})?$)"
)

#: Models that take no forced tool, since they think as they like.
_UNFORCED = re.compile(r"claude-(?:fable|mythos|(?:opus|sonnet)-(?:5-[5-9]|[6-9]))(?![0-9])")

#: What platforms put around a model's name: ``us.anthropic.claude-...-v1:0``, ``claude-...@20250514``.
_BEFORE = re.compile(r".*(?=claude-)", re.DOTALL)
_AFTER = re.compile(r"(?:-v[0-9]+)?(?::[0-9]+)?$|-latest$")


def has_structured_outputs(model: str) -> bool:
    """Return whether a model takes ``output_config.format``."""
    return _WITHOUT.match(_plain_name(model)) is None


def takes_forced_tool(model: str) -> bool:
    """Return whether ``tool_choice`` may force a model to call a tool."""
    return _UNFORCED.match(_plain_name(model)) is None


def _plain_name(model: str) -> str:
    name = _BEFORE.sub("", model.lower()).replace("@", "-").replace(".", "-")
    return _AFTER.sub("", name)
