"""Leases in PostgreSQL, and the writes that need one."""

from __future__ import annotations

from typing import Any

import msgspec

from claude_batch_tasks import rules, steady
from claude_batch_tasks.records import Flight, Lease, Unit
from claude_batch_tasks.store.postgres.connection import Part, answering
from claude_batch_tasks.store.postgres.encoding import encode_changes, unit_key


class PostgresLeases(Part):
    """``interface.Leases`` on a PostgreSQL server."""

    @answering
    def acquire_lease(self, unit: Unit, position: int, owner: str, ttl: float) -> Lease:
        asked = steady.monotonic_now()
        found = self._connection.call_row(
            "acquire_lease", *unit_key(unit), position, owner, ttl, rules.LATENESS_LEFT, rules.MAX_LATENESS
        )
        state, remaining, now, failures, failure = found
        self._connection.clock.learn(now, asked)
        return Lease(state, remaining, failures, None if failure is None else msgspec.json.decode(failure))

    @answering
    def renew_lease(self, unit: Unit, owner: str, ttl: float) -> bool:
        return bool(self._connection.call("renew_lease", *unit_key(unit), owner, ttl))

    @answering
    def write_record(self, unit: Unit, owner: str, **changes: Any) -> bool:
        return bool(self._connection.call("write_record", *unit_key(unit), owner, encode_changes(changes)))

    @answering
    def end_batch(self, unit: Unit, owner: str, **changes: Any) -> int | None:
        changed = encode_changes({**changes, "done": True})
        finished: int | None = self._connection.call("write_leased", *unit_key(unit), owner, changed)
        return finished

    @answering
    def advance_unit(self, unit: Unit, owner: str, position: int, *, through: bool = False, **changes: Any) -> bool:
        args = [owner, position, changes.get("due_at") or 0, through, encode_changes(changes)]
        return bool(self._connection.call("advance_unit", *unit_key(unit), *args))

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
        # From then on, so that a moment that was reckoned a little wrong here is that far from now there, too.
        args: list[Any] = [owner, position, max(due_at - self._connection.now(), 0)]
        listed = [None] * 3 if flight is None else [account, msgspec.json.encode(flight).decode(), flight.deadline]
        changed = encode_changes({**changes, "due_at": due_at})
        return bool(self._connection.call("park_unit", *unit_key(unit), *args, *listed, changed))
