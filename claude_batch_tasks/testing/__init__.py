"""What tests of applications use: jobs in memory with scripted answers, and a reset of what a process stores."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from claude_batch_tasks.testing.process_state import KEPT as KEPT, reset as reset

if TYPE_CHECKING:
    from claude_batch_tasks.testing.answers import SentRequest as SentRequest
    from claude_batch_tasks.testing.claude_batch import ClaudeBatch as ClaudeBatch

__all__ = ["ClaudeBatch", "SentRequest", "reset"]

_HOME = {"ClaudeBatch": "claude_batch", "SentRequest": "answers"}

if not TYPE_CHECKING:  # else a name that is misspelled would be one of any type

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
