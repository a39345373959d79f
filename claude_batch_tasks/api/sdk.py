"""The official SDK, imported when it is first used.

An application that only submits jobs never calls Anthropic, and importing the SDK takes it a second.
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
    """Import the SDK now, such as before a worker forks its pool: so the processes share its memory."""
    importlib.import_module("anthropic")
