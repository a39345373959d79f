"""What requests are checked against."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from ..models import Model
from .betas import BETAS


class Terms(NamedTuple):
    """What requests are checked against: the call's API version and beta headers, and the models there are."""

    version: str
    models: dict[str, Model]
    betas: frozenset[str] = frozenset()
    in_batch: bool = False
    #: Whether the call only counts tokens.
    counting: bool = False
    #: The files there are, by id; None: files are not looked up.
    files: Container[str] | None = None

    @property
    def has_new_beta(self) -> bool:
        """Whether there is a beta header that is newer than the list: it may add anything."""
        return not self.betas <= BETAS
