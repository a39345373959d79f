"""What a job may spend, in Redis."""

from __future__ import annotations

from typing import Any

from claude_batch_tasks.records import Unit
from claude_batch_tasks.store.redis.connection import Part, answering
from claude_batch_tasks.store.redis.keys import batch_key, job_key, money_key, turn_field
from claude_batch_tasks.store.redis.scripts import Script


class RedisBudget(Part):
    """``interface.Budget`` on a Redis server."""

    _reserve = Script("money", "reserve")
    _grant = Script("grant")

    @answering
    def reserve_cost(self, unit: Unit, turn: int, least: int, most: int, limit: int) -> Any:
        keys = self._money(unit)
        answer = self._reserve(keys=keys, args=[turn_field(unit, turn), "", least, most, limit]).decode()
        self._connection.expire_with_job(unit.job_id, keys[0])
        return answer

    @answering
    def record_cost(self, unit: Unit, turn: int, spent: int) -> None:
        self._reserve(keys=self._money(unit), args=[turn_field(unit, turn), spent])

    @answering
    def reserve_quota(self, job_id: str, batch: int, wanted: int, limit: int) -> int:
        return int(self._grant(keys=[job_key(job_id), batch_key(job_id, batch)], args=[wanted, limit]))

    def _money(self, unit: Unit) -> list[str]:
        return [money_key(unit.job_id), job_key(unit.job_id)]
