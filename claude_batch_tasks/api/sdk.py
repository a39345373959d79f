"""The official SDK, which is imported when it is first used.

An application that only submits jobs never calls Anthropic, and importing the SDK would cost it a second.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import anthropic
else:

    class _OnFirstUse:
        """Stands for the module ``anthropic``."""

        def __getattr__(self, name: str) -> Any:
            return getattr(importlib.import_module("anthropic"), name)

    anthropic = _OnFirstUse()

__all__ = ["anthropic", "load_sdk"]


def load_sdk() -> None:
    """Import the SDK now.

    A worker calls this before it forks its pool, so that the processes share the SDK's memory.
    """
    importlib.import_module("anthropic")
