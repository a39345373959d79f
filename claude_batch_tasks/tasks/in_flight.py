"""What the steps have in common after which a batch may be in flight."""

from __future__ import annotations

from claude_batch_tasks.lifecycle import polling
from claude_batch_tasks.records import Flight
from claude_batch_tasks.steps.step_task import StepTask


class InFlightTask(StepTask):
    """A step after which the batch may be in flight: a listing may spare it its next look."""

    abstract = True

    def flight(self) -> tuple[str, Flight] | None:
        """The batch, if listings tell it apart and may speak for it."""
        record = self.step.batch
        if record.state not in ("in_progress", "canceling") or record.provisional or record.created_at is None:
            return None
        return self.step.account, polling.flight(self.step)
