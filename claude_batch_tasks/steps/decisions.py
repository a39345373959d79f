"""What a step decides: what follows it.

A step returns one of these, and raises an exception only if something went wrong. ``StepTask.carry_out`` is the one
place that turns them into Celery's terms.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from claude_batch_tasks import errors


@dataclass(frozen=True)
class Done:
    """The step has done its work: the unit advances, and the next message of its chain is sent."""

    value: Any
    """What the task returns."""


@dataclass(frozen=True)
class Wait:
    """All is well, and the step runs again after a while."""

    reason: str
    """What was seen, or what is waited for."""
    seconds: float | None = None
    """How long; None: until the batch is to be polled next."""
    spread: float = 0.0
    """The share of the seconds by which the wait may be longer: not all who wait for the same thing come at once."""
    tried: bool = True
    """Whether the step could do something, so that its failures in a row are over.

    If not, it may come back for its last poll after the job's deadline.
    """
    past_deadline: bool = False
    """Whether it comes back even if the job's deadline has passed."""

    def __str__(self) -> str:
        return self.reason

    def draw_seconds(self, until_next_poll: Callable[[], float]) -> float:
        """Draw how long the step waits."""
        if self.seconds is None:
            return until_next_poll()
        return self.seconds * (1 + random.random() * self.spread)


@dataclass(frozen=True)
class Fail:
    """The batch fails with this error; its chain continues, and the last task of it reports the error."""

    error: errors.BatchTasksError


@dataclass(frozen=True)
class StartOver:
    """The batch goes through its steps again, from the create on: its record has another generation."""


@dataclass(frozen=True)
class Drop:
    """Nothing is left to do for the unit: the message ends quietly, and none follows it."""

    reason: str


Decision: TypeAlias = Done | Wait | Fail | StartOver | Drop


def wait_out(exc: errors.RateLimited) -> Wait:
    """Return how a step waits that met a pause where it was to call the API, or to list an account's batches."""
    # The list call of another task may be the last poll of this batch too.
    listed = isinstance(exc, errors.ListCallRunning)
    return Wait(str(exc), exc.retry_after or 0.0, spread=0.25, tried=False, past_deadline=listed)
