"""Which batch at Anthropic belongs to which batch of a job, in Redis."""

from __future__ import annotations

from typing import Any

from claude_batch_tasks.records import Unit
from claude_batch_tasks.store.record_encoding import changed_fields
from claude_batch_tasks.store.redis.connection import Part, answering
from claude_batch_tasks.store.redis.keys import member, owner_key, unit_key, unit_of
from claude_batch_tasks.store.redis.scripts import FORCE, RELEASE, TAKE, Script
from claude_batch_tasks.store.retention import CLAIM_TTL


class RedisBatchIds(Part):
    """``interface.BatchIds`` on a Redis server."""

    _claim = Script("claim")

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
        act = FORCE if force else member(instead_of) if instead_of else TAKE
        return self._own(act, unit, owner, batch_id, changes)

    @answering
    def release_id(self, unit: Unit, owner: str, batch_id: str, /, **changes: Any) -> bool:
        return self._own(RELEASE, unit, owner, batch_id, changes) is not None

    @answering
    def find_owner(self, batch_id: str) -> Unit | None:
        value = self._redis.get(owner_key(batch_id))
        return unit_of(value.decode()) if value else None

    def _own(self, act: str, unit: Unit, owner: str, batch_id: str, changes: dict[str, Any]) -> Unit | None:
        key, _ = unit_key(unit)
        args = [act, owner, member(unit), CLAIM_TTL, *changed_fields(changes)]
        found = self._claim(keys=[key, owner_key(batch_id)], args=args)
        return unit_of(found.decode()) if found else None
