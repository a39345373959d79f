"""Requests that go through the Messages API, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

from claude_batch_tasks import rules
from claude_batch_tasks.records import Need, Taken, Unit
from claude_batch_tasks.store.packing import Packer
from claude_batch_tasks.store.places import batch_key
from claude_batch_tasks.store.postgres.connection import Connection, Part, answering
from claude_batch_tasks.store.postgres.encoding import fit_bigint, fit_integer, unit_key

#: Positions that are written at a time.
_PAGE = 5_000


class PostgresMessageQueue(Part):
    """``interface.MessageQueue`` on a PostgreSQL server."""

    queries = "message_queue"

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._packer = Packer(connection.cipher)

    @answering
    def add_requests(self, job_id: str, batch: int, positions: Iterable[int]) -> None:
        left = iter(positions)
        while some := list(islice(left, _PAGE)):
            self._connection.call("enter_requests", job_id, batch, some)

    @answering
    def list_due(self, job_id: str, batch: int, limit: int) -> tuple[list[int], float | None]:
        positions, seconds = self._connection.call_row("list_due_requests", job_id, batch, limit)
        return positions or [], seconds

    @answering
    def count_unfinished(self, job_id: str, batch: int) -> int:
        return int(self._fetch_value("count_unfinished", job_id=job_id, batch=batch))

    @answering
    def take_request(
        self,
        unit: Unit,
        owner: str,
        position: int,
        pace: str,
        need: Need,
        ttl: float,
        *,
        cap: int,
        limit: int | None,
        total: int | None,
    ) -> Taken:
        limits = fit_integer(cap), fit_bigint(limit), fit_bigint(total)
        args = [*unit_key(unit), owner, position, pace, *need, ttl, *limits]
        numbers = rules.FIRST_IN_FLIGHT, rules.SLOT_WAIT, rules.REFILL, rules.RESERVED_WAIT
        return Taken(*self._connection.call_row("take_request", *args, *numbers))

    @answering
    def confirm_request(self, unit: Unit, owner: str, position: int, ttl: float) -> bool:
        return bool(self._connection.call("confirm_request", *unit_key(unit), owner, position, ttl))

    @answering
    def renew_calls(self, unit: Unit, paces: Mapping[int, str], ttl: float) -> None:
        self._run(
            "renew_calls",
            job_id=unit.job_id,
            batch=unit.batch,
            positions=list(paces),
            paces=list(paces.values()),
            ttl=ttl,
        )

    @answering
    def list_abandoned(self, unit: Unit) -> list[int]:
        rows = self._fetch("list_abandoned", job_id=unit.job_id, batch=unit.batch, lane=unit.lane or 0)
        return [position for (position,) in rows]

    @answering
    def record_answer(
        self,
        unit: Unit,
        position: int,
        pace: str,
        mark: str,
        *,
        limits: Mapping[str, tuple[int, int]],
        refused: bool,
        hold: float | None,
        cap: int,
        output: int | None = None,
    ) -> None:
        said = [limits.get(name, (None, None)) for name in rules.RATE_LIMITS]
        args = [unit.job_id, unit.batch, position, pace, mark, [most for most, _ in said], [left for _, left in said]]
        numbers = rules.FIRST_IN_FLIGHT, rules.OUTPUT_SHARE, rules.REFUSED_TOGETHER, rules.MAX_REFUSED_PAUSE
        self._connection.call("record_answer", *args, refused, hold, fit_integer(cap), output, *numbers)

    @answering
    def count_refusals(self, unit: Unit, position: int) -> int:
        refused = self._fetch_value("count_refusals", job_id=unit.job_id, batch=unit.batch, position=position)
        return int(refused or 0)

    @answering
    def put_back(self, unit: Unit, position: int, seconds: float, limit: int) -> int:
        return int(self._connection.call("put_back", unit.job_id, unit.batch, position, seconds, limit))

    @answering
    def drop_waiting(self, job_id: str, batch: int) -> int:
        return int(self._connection.call("drop_waiting", job_id, batch))

    @answering
    def list_known(self, job_id: str, batch: int) -> set[int]:
        return {position for (position,) in self._fetch("list_known", job_id=job_id, batch=batch)}

    @answering
    def save_outcome(
        self, unit: Unit, position: int, outcome: bytes, *, spent: int | None = None, given_up: bool = False
    ) -> bool:
        packed = self._packer.pack(outcome, f"{batch_key(unit.job_id, unit.batch, 'outcomes')}:{position}")
        args = [unit.job_id, unit.batch, position, packed, spent, given_up]
        stored = bool(self._connection.call("save_outcome", *args))
        self._connection.call("make_safe")  # what somebody else has stored, too
        return stored
