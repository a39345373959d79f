"""One client for each way in which the API fails, and a factory that fails by itself, saying too much."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import anthropic

#: The first part of the path says how the server is to answer.
FAILING = ("echo", "missing", "broken", "redirect", "refused", "rows", "fallback")


def _make(name: str) -> anthropic.Anthropic:
    url = os.environ["NOBODYS_URL" if name == "refused" else "HOSTILE_URL"]
    return anthropic.Anthropic(base_url=f"{url}/{name}")


def too_open() -> anthropic.Anthropic:
    raise RuntimeError(f"no such tenant; key {os.environ['ANTHROPIC_API_KEY']}")


def __getattr__(name: str) -> Any:
    if name not in FAILING:
        raise AttributeError(name)
    return partial(_make, name)
