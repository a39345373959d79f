"""Leases: one worker at a time runs a step of a unit, and only it writes the unit's record."""

from __future__ import annotations

from typing import Any, Protocol

from claude_batch_tasks.records import Flight, Lease, Unit


class Leases(Protocol):
    """The leases of units, and the writes that are refused without one.

    A unit is a batch, a sender or the job itself. Its position says which messages are stale.
    """

    def acquire_lease(self, unit: Unit, position: int, owner: str, ttl: float) -> Lease:
        """Take the lease of a unit for the message at ``position``, for ``ttl`` seconds."""

    def renew_lease(self, unit: Unit, owner: str, ttl: float) -> bool:
        """Keep the lease for another ``ttl`` seconds; return False if the owner has lost it."""

    def write_record(self, unit: Unit, owner: str, **changes: Any) -> bool:
        """Change the unit's record; return False if the owner has lost the lease."""

    def end_batch(self, unit: Unit, owner: str, **changes: Any) -> int | None:
        """Record that a batch has finished, with more changes to its record.

        Return how many batches of the job have finished then: of those that finish at the same moment, one is the last.
        0: the job is gone. None: the owner has lost the lease.
        """

    def advance_unit(self, unit: Unit, owner: str, position: int, *, through: bool = False, **changes: Any) -> bool:
        """Move the unit to ``position`` and release the lease, in one; return False if the owner has lost it.

        Args:
            through: the unit has finished.
            changes: to its record; ``due_at`` says when its next message is due.
        """

    def park_unit(
        self,
        unit: Unit,
        owner: str,
        position: int,
        due_at: float,
        *,
        account: str = "",
        flight: Flight | None = None,
        **changes: Any,
    ) -> bool:
        """Advance a unit that has no message on its way: ``take_due`` returns it when it is due.

        Args:
            due_at: epoch seconds.
            account, flight: of a batch in flight, which is listed among those of its account while it waits.
        """
