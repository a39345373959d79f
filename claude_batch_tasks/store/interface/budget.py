"""What a job may spend, in nano-dollars, and how many requests it may send again."""

from __future__ import annotations

from typing import Literal, Protocol

from claude_batch_tasks.records import Unit


class Budget(Protocol):
    """What each job may spend. What is reserved counts as spent until its cost is recorded."""

    def reserve_cost(
        self, unit: Unit, turn: int, least: int, most: int, limit: int
    ) -> Literal["yes", "wait", "no", "lost"]:
        """Reserve the most that a batch may cost, of what its job may spend; a generation reserves it once.

        If that much is not left: ``yes`` nevertheless if the rest covers the least, and nothing else is reserved;
        ``wait`` if something else is, which may cost less. ``lost``: what the job has spent is gone from the store.
        """

    def record_cost(self, unit: Unit, turn: int, spent: int) -> None:
        """Record what a batch has cost, as far as is known; nothing if it was not reserved. It may be called again."""

    def reserve_quota(self, job_id: str, batch: int, wanted: int, limit: int) -> int:
        """Reserve up to ``wanted`` of the job's ``limit`` fallback requests for a batch; return the same each time."""
