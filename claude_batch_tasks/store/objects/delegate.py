"""What of a part of the ledger stays as it is."""

from __future__ import annotations

from typing import Any


class Delegate:
    """Has all that a part of the ledger has, but for what a subclass does in its own way."""

    def __init__(self, part: Any) -> None:
        self._part = part

    def __getattr__(self, name: str) -> Any:
        if name == "_part":  # of a copy that has nothing yet
            raise AttributeError(name)
        return getattr(self._part, name)
