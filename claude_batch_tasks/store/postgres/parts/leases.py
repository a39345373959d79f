"""Leases in PostgreSQL, and the writes that need one."""

from __future__ import annotations

from claude_batch_tasks.records import Unit
from claude_batch_tasks.store.postgres.connection import Part, answering
from claude_batch_tasks.store.postgres.encoding import unit_key


class PostgresLeases(Part):
    """``interface.Leases`` on a PostgreSQL server."""

    @answering
    def renew_lease(self, unit: Unit, owner: str, ttl: float) -> bool:
        return bool(self._connection.call("renew_lease", *unit_key(unit), owner, ttl))
