"""Anthropic's rate limits: what one answer asks for, all workers' calls on the account heed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from claude_batch_tasks import errors, rules
from claude_batch_tasks.formatting import clock
from claude_batch_tasks.store import Store

Kind = Literal["create", "look"]


@dataclass(frozen=True)
class Pace:
    """How fast an account's batches may be called for, in common to all workers.

    A create that was refused holds creates back (a queue that is full says nothing of looks), anything else all calls.
    The Messages API has limits of its own.
    """

    store: Store
    account: str

    def check(self, kind: Kind = "look") -> None:
        """Make no call while the account's calls are held back.

        Raises:
            HeldBack: until when.
        """
        until = self.store.held_back(self.account, self._name(kind))
        if (wait := until - self.store.now()) > 0:
            wait = min(wait, rules.LONGEST_HOLD)  # whatever the clock of the worker that was asked
            raise errors.HeldBack(f"Anthropic asked for fewer calls; none before {clock(until)}", wait)

    @contextmanager
    def heeded(self, kind: Kind = "look") -> Iterator[None]:
        """Around a call: an error that asks for fewer calls holds them back, for everybody."""
        try:
            yield
        except errors.ApiError as exc:
            self.heed(exc.hold, kind)
            raise

    def heed(self, hold: float | None, kind: Kind = "look") -> None:
        """Hold calls back for that many seconds, if any."""
        if hold is not None:
            self.store.hold_back(self._name(kind), self.store.now() + hold)

    def _name(self, kind: Kind) -> str:
        return self.account if kind == "look" else f"{self.account}:{kind}"
