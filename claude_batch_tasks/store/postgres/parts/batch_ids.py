"""Which batch at Anthropic belongs to which batch of a job, in PostgreSQL."""

from __future__ import annotations

from typing import Any

from claude_batch_tasks.records import Unit
from claude_batch_tasks.store.postgres.connection import Part, answering
from claude_batch_tasks.store.postgres.encoding import encode_changes, unit_key, unit_of
from claude_batch_tasks.store.retention import CLAIM_TTL


class PostgresBatchIds(Part):
    """``interface.BatchIds`` on a PostgreSQL server."""

    queries = "batch_ids"

    @answering
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
        args = [*unit_key(unit), owner, batch_id, CLAIM_TTL, force, *unit_key(instead_of or unit)]
        job_id, batch, lane = self._connection.call_row("own_batch", *args, encode_changes(changes))
        return None if job_id is None else unit_of(job_id, batch, lane)

    @answering
    def release_id(self, unit: Unit, owner: str, batch_id: str, /, **changes: Any) -> bool:
        args = [*unit_key(unit), owner, batch_id, encode_changes(changes)]
        return bool(self._connection.call("release_batch", *args))

    @answering
    def find_owner(self, batch_id: str) -> Unit | None:
        found = self._fetch_row("find_owner", batch_id=batch_id)
        return None if found is None else unit_of(*found)
