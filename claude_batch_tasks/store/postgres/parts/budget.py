"""What a job may spend, in PostgreSQL."""

from __future__ import annotations

from typing import Any

from claude_batch_tasks.records import Unit
from claude_batch_tasks.store.postgres.connection import Part, answering
from claude_batch_tasks.store.postgres.encoding import fit_bigint, fit_integer


class PostgresBudget(Part):
    """``interface.Budget`` on a PostgreSQL server."""

    @answering
    def reserve_cost(self, unit: Unit, turn: int, least: int, most: int, limit: int) -> Any:
        return self._connection.call("reserve_cost", unit.job_id, unit.batch, turn, least, most, fit_bigint(limit))

    @answering
    def record_cost(self, unit: Unit, turn: int, spent: int) -> None:
        self._connection.call("record_cost", unit.job_id, unit.batch, turn, spent)

    @answering
    def reserve_quota(self, job_id: str, batch: int, wanted: int, limit: int) -> int:
        return int(self._connection.call("reserve_quota", job_id, batch, wanted, fit_integer(limit)))
