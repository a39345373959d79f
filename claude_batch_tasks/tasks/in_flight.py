"""The base class of the steps after which a batch may be in flight."""

from __future__ import annotations

from claude_batch_tasks.lifecycle import polling
from claude_batch_tasks.records import Flight
from claude_batch_tasks.steps import StepTask


class InFlightTask(StepTask):
    """A step after which the batch may be in flight: a list call may spare it its next poll."""

    abstract = True

    def awaited_flight(self) -> tuple[str, Flight] | None:
        """Return the account and the batch if list calls can identify it and stand for its polls; None otherwise."""
        record = self.step.batch
        if record.state not in ("in_progress", "canceling") or record.provisional or record.created_at is None:
            return None
        return self.step.account, polling.flight_of(self.step)
