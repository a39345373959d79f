"""Client factories for workers: ``tests.adversarial.clients.<name>`` is the account of that name."""

from __future__ import annotations

from collections.abc import Callable

import anthropic


def __getattr__(name: str) -> Callable[[], anthropic.Anthropic]:
    if name.startswith("__"):
        raise AttributeError(name)
    return lambda: anthropic.Anthropic(default_headers={"x-account": name})
