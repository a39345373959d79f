"""The schedule in PostgreSQL: it is in the same rows as the leases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from claude_batch_tasks import rules
from claude_batch_tasks.records import Lost, Unit
from claude_batch_tasks.store.postgres.connection import Part, answering
from claude_batch_tasks.store.postgres.encoding import unit_key, unit_of

#: Units that are read at a time.
_PAGE = 500

#: What stands before all units that are due at some time: such a row, without a limit to the time.
_START = (float("-inf"), Unit("", None, None))


class PostgresSchedule(Part):
    """``interface.Schedule`` on a PostgreSQL server."""

    queries = "schedule"

    @answering
    def are_scheduled(self, units: Sequence[Unit]) -> list[bool]:
        return [due is not None for due, _ in self._read(units)]

    @answering
    def due_times(self, units: Sequence[Unit]) -> list[float | None]:
        return [due if due is None or missed is None else missed for due, missed in self._read(units)]

    @answering
    def add_units(self, units: Iterable[Unit], at: float) -> None:
        if added := list(units):
            self._connection.call("add_units", *_columns(added), at)

    @answering
    def remove_unit(self, unit: Unit) -> None:
        self._connection.call("remove_unit", *unit_key(unit))

    @answering
    def list_overdue(self, before: float, limit: int) -> list[Unit]:
        return [unit for unit, _ in self._list(before, limit)]

    @answering
    def find_lost(self, unit: Unit, after: float) -> Lost | None:
        args = [*unit_key(unit), after, rules.RESENT_JUST_NOW, rules.MAX_COPIES]
        position, due = self._connection.call_row("find_lost", *args)
        return None if position is None else Lost(position, due)

    @answering
    def scan_late(self, before: float) -> Iterator[list[tuple[Unit, float]]]:
        last, at = _START[1], _START[0]
        while True:
            found = self._list(before, _PAGE, at, last)
            yield found
            if len(found) < _PAGE:
                return
            last, at = found[-1]

    @answering
    def take_due(self, limit: int) -> tuple[list[Unit], float | None]:
        job_ids, batches, lanes, pause = self._connection.call_row(
            "take_due",
            limit,
            rules.LONGEST_IN_BROKER,
            rules.UNCLAIMED_SECONDS,
            rules.MAX_UNCLAIMED_MESSAGES,
            rules.MAX_VAIN_POLLS,
            rules.LIST_CALL_FROM,
        )
        return list(map(unit_of, job_ids, batches, lanes)), pause

    @answering
    def wake_units(self, units: Iterable[Unit]) -> None:
        self._postpone(dict.fromkeys(units, 0.0), woken=True)

    @answering
    def wait_again(self, units: Iterable[Unit], seconds: float) -> None:
        self._connection.call("wait_again", *_columns(list(units)), seconds)

    @answering
    def postpone_units(self, due: Mapping[Unit, float], *, alone: bool = False, shown: float | None = None) -> None:
        self._postpone(due, alone=alone, shown=shown)

    @answering
    def start_next_batch(self, job_id: str, batch: int) -> int | None:
        started: int | None = self._connection.call("start_next_batch", job_id, batch)
        return started

    def _read(self, units: Sequence[Unit]) -> list[tuple[float | None, float | None]]:
        """Return of each unit when it is due, and since when its message is missed."""
        job_ids, batches, lanes = _columns(units)
        return [
            (due, missed) for due, missed in self._fetch("due_times", job_ids=job_ids, batches=batches, lanes=lanes)
        ]

    def _list(
        self, before: float, limit: int, at: float = _START[0], last: Unit = _START[1]
    ) -> list[tuple[Unit, float]]:
        """Return units that are due before a moment, and when, from behind one on."""
        job_id, batch, lane = unit_key(last)
        rows = self._fetch("list_overdue", before=before, limit=limit, last=at, job_id=job_id, batch=batch, lane=lane)
        return [(unit_of(*key), due) for *key, due in rows]

    def _postpone(
        self, due: Mapping[Unit, float], *, woken: bool = False, alone: bool = False, shown: float | None = None
    ) -> None:
        if due:
            self._connection.call(
                "postpone_units", *_columns(list(due)), list(map(float, due.values())), woken, alone, shown
            )


def _columns(units: Sequence[Unit]) -> tuple[list[str], list[int], list[int]]:
    """Return the jobs, batches and senders of units, as functions take them."""
    keys = list(map(unit_key, units))
    return [job_id for job_id, _, _ in keys], [batch for _, batch, _ in keys], [lane for _, _, lane in keys]
