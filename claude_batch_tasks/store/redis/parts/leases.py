"""Leases in Redis, and the writes that need one."""

from __future__ import annotations

from typing import Any

import msgspec

from claude_batch_tasks import steady
from claude_batch_tasks.records import Flight, Lease, Unit
from claude_batch_tasks.store.record_encoding import _encode, changed_fields
from claude_batch_tasks.store.redis.connection import Part, answering
from claude_batch_tasks.store.redis.keys import (
    DUE,
    FLIGHTS,
    LATE,
    WAITING,
    account_key,
    job_key,
    member,
    standing_key,
    unit_key,
)
from claude_batch_tasks.store.redis.scripts import THROUGH, WAIT, Script


class RedisLeases(Part):
    """``interface.Leases`` on a Redis server."""

    _acquire = Script("acquire")
    _record = Script("record")

    @answering
    def acquire_lease(self, unit: Unit, position: int, owner: str, ttl: float) -> Lease:
        key, prefix = unit_key(unit)
        keys = [key, standing_key(unit), DUE, LATE, WAITING]
        asked = steady.monotonic_now()
        found = self._acquire(keys=keys, args=[prefix, member(unit), position, owner, ttl])
        state, remaining, now, failures, failure = found
        self._connection.clock.learn(float(now), asked)
        return Lease(state.decode(), remaining / 1000, failures, msgspec.json.decode(failure) if failure else None)

    @answering
    def renew_lease(self, unit: Unit, owner: str, ttl: float) -> bool:
        return bool(self._write(unit, owner, {}, ttl=ttl))

    @answering
    def write_record(self, unit: Unit, owner: str, **changes: Any) -> bool:
        return bool(self._write(unit, owner, changes))

    @answering
    def end_batch(self, unit: Unit, owner: str, **changes: Any) -> int | None:
        done = self._write(unit, owner, {**changes, "done": True})
        return done - 1 if done else None

    @answering
    def advance_unit(self, unit: Unit, owner: str, position: int, *, through: bool = False, **changes: Any) -> bool:
        # What comes after the last step of a batch is the job's.
        follower = "" if unit.batch is None or unit.lane is not None else member(Unit(unit.job_id))
        due = THROUGH + follower if through else changes.get("due_at") or 0
        return bool(self._write(unit, owner, changes, position=position, due=due))

    @answering
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
        changes["due_at"] = due_at
        # From then on, so that a moment that was reckoned a little wrong here is that far from now there, too.
        seconds = max(due_at - self._connection.now(), 0)
        listed = (account_key(account, FLIGHTS), _encode(flight)) if flight is not None else (WAITING, "")
        return bool(self._write(unit, owner, changes, position=position, due=seconds, wait=WAIT, listed=listed))

    def _write(
        self,
        unit: Unit,
        owner: str,
        changes: dict[str, Any],
        *,
        ttl: float | str = "",
        position: int | str = "",
        due: float | str = "",
        wait: str = "",
        listed: tuple[str, bytes | str] = (WAITING, ""),
    ) -> int:
        key, prefix = unit_key(unit)
        flights, flight = listed
        args = [prefix, member(unit), owner, ttl, position, due, wait, flight, *changed_fields(changes)]
        return int(self._record(keys=[key, DUE, job_key(unit.job_id), WAITING, flights], args=args))
