"""Anthropic's rate limits: when one answer asks for fewer calls, all workers on the account observe it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from claude_batch_tasks import errors, rules
from claude_batch_tasks.formatting import format_time
from claude_batch_tasks.store import Clock, HasInFlight

Kind = Literal["create", "look"]


class _Limits(HasInFlight, Clock, Protocol):
    """Where pauses are stored."""


@dataclass(frozen=True)
class RateLimits:
    """The rate limits of an account's batch calls, shared by all workers.

    A refused create pauses only creates (a full queue says nothing about polls); any other refusal pauses all calls.
    The Messages API has limits of its own.
    """

    store: _Limits
    account: str

    def check_pause(self, kind: Kind = "look") -> None:
        """Raise an error while the account's calls are paused.

        It is no decision of a step: calls are made deep inside searches and downloads, which cannot continue without
        them. ``StepTask.retry`` makes a wait of it.

        Raises:
            RateLimited: the calls are paused; the text says until when.
        """
        until = self.store.in_flight.paused_until(self.account, self._pause_name(kind))
        if (wait := until - self.store.now()) > 0:
            wait = min(wait, rules.LONGEST_PAUSE)  # whatever the clock of the worker that met the limit
            raise errors.RateLimited(
                f"Anthropic asked for fewer calls; calls are paused until {format_time(until)}", wait
            )

    @contextmanager
    def observe_call(self, kind: Kind = "look") -> Iterator[None]:
        """Wrap a call: an error that asks for fewer calls pauses the calls of all workers."""
        try:
            yield
        except errors.ApiError as exc:
            self.observe_answer(exc.hold, kind)
            raise

    def observe_answer(self, hold: float | None, kind: Kind = "look") -> None:
        """Pause calls for that many seconds, if any."""
        if hold is not None:
            self.store.in_flight.pause_calls(self._pause_name(kind), self.store.now() + hold)

    def _pause_name(self, kind: Kind) -> str:
        return self.account if kind == "look" else f"{self.account}:{kind}"
