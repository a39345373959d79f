"""Which models have structured outputs."""

from __future__ import annotations

import re

#: Models without: those before Claude Opus 4.1. Others, also those that are not known, have them.
_WITHOUT = re.compile(
    r"claude-(?:instant|v?[12](?![0-9])|3(?![0-9])|(?:opus|sonnet|haiku)-3(?![0-9])|(?:opus|sonnet)-4(?:-0)?(?:-?20250514|-?$))"
)

#: What platforms put around a model's name: ``us.anthropic.claude-...-v1:0``, ``claude-...@20250514``.
_BEFORE = re.compile(r".*(?=claude-)", re.DOTALL)
_AFTER = re.compile(r"(?:-v[0-9]+)?(?::[0-9]+)?(?:\[[^\]]*\])?$|-latest$")


def has_structured_outputs(model: str) -> bool:
    """Return whether a model takes ``output_config.format``."""
    name = _BEFORE.sub("", model.lower()).replace("@", "-").replace(".", "-")
    return _WITHOUT.match(_AFTER.sub("", name)) is None
