"""Which batch at Anthropic belongs to which batch of a job."""

from __future__ import annotations

from typing import Any, Protocol

from claude_batch_tasks.records import Unit


class BatchIds(Protocol):
    """The owner of each batch id; every id has one at most."""

    def claim_id(
        self,
        unit: Unit,
        owner: str,
        batch_id: str,
        /,
        *,
        instead_of: Unit | None = None,
        force: bool = False,
        **changes: Any,
    ) -> Unit | None:
        """Claim a batch id for a unit, in one with changes to its record, unless another unit has it.

        Args:
            instead_of: the unit that may have it and does not use it.
            force: take it from whichever unit has it.

        Returns:
            The unit that has it; None: the owner has lost the lease.
        """

    def release_id(self, unit: Unit, owner: str, batch_id: str, /, **changes: Any) -> bool:
        """Give a batch id up, in one with changes to the unit's record; return False if the owner lost the lease."""

    def find_owner(self, batch_id: str) -> Unit | None:
        """Return the unit that has a batch id."""
