"""The schedule in Redis. It follows from the ledger, and can be made again."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from claude_batch_tasks.records import Lost, Unit
from claude_batch_tasks.store.interface import WakeupListener
from claude_batch_tasks.store.redis.connection import Part, answering
from claude_batch_tasks.store.redis.keys import (
    DUE,
    HELD,
    LATE,
    LISTED,
    MISSED,
    WAITING,
    batch_key,
    job_key,
    member,
    standing_key,
    unit_key,
    unit_of,
)
from claude_batch_tasks.store.redis.scripts import ALONE, WOKEN, Script

#: Units that are read at a time.
_PAGE = 500

#: Parts of arguments that a script takes at a time.
_ARGUMENTS = 4000


class RedisSchedule(Part):
    """``interface.Schedule`` on a Redis server."""

    _lost = Script("lost")
    _due = Script("due")
    _admit = Script("admit")
    _postpone = Script("postpone")

    @answering
    def are_scheduled(self, units: Sequence[Unit]) -> list[bool]:
        return [at is not None for at in self._redis.zmscore(DUE, list(map(member, units)))] if units else []

    @answering
    def due_times(self, units: Sequence[Unit]) -> list[float | None]:
        with self._redis.pipeline(transaction=False) as pipe:
            for unit in units:
                key, prefix = unit_key(unit)
                pipe.zscore(DUE, member(unit))
                pipe.hget(key, prefix + MISSED)
            found = pipe.execute() if units else []
        pairs = zip(found[::2], found[1::2], strict=True)
        return [None if due is None else float(due if missed is None else missed) for due, missed in pairs]

    @answering
    def add_units(self, units: Iterable[Unit], at: float) -> None:
        if members := {member(unit): at for unit in units}:
            self._redis.zadd(DUE, members)

    @answering
    def remove_unit(self, unit: Unit) -> None:
        self.wake_units([unit])  # and no list call speaks for it any more
        for index in (DUE, WAITING):
            self._redis.zrem(index, member(unit))

    @answering
    def list_overdue(self, before: float, limit: int) -> list[Unit]:
        members = self._redis.zrangebyscore(DUE, "-inf", f"({before}", start=0, num=limit)
        return [unit_of(member.decode()) for member in members]

    @answering
    def find_lost(self, unit: Unit, after: float) -> Lost | None:
        key, prefix = unit_key(unit)
        keys = [key, standing_key(unit), DUE, LATE, WAITING]
        found = self._lost(keys=keys, args=[prefix, member(unit), after])
        return Lost(int(found[0]), float(found[1])) if found else None

    @answering
    def scan_late(self, before: float) -> Iterator[list[tuple[Unit, float]]]:
        for first in itertools.count(step=_PAGE):
            found = self._redis.zrangebyscore(DUE, "-inf", f"({before}", start=first, num=_PAGE, withscores=True)
            yield [(unit_of(member.decode()), due) for member, due in found]
            if len(found) < _PAGE:
                return

    @answering
    def take_due(self, limit: int) -> tuple[list[Unit], float | None]:
        members, following, now = self._due(keys=[WAITING, DUE, HELD], args=[limit])
        pause = max(float(following) - float(now), 0) if following else None
        return [unit_of(found.decode()) for found in members], pause

    @answering
    def wake_units(self, units: Iterable[Unit]) -> None:
        self._postponed(((unit, 0) for unit in units), WOKEN)

    @answering
    def wait_again(self, units: Iterable[Unit], seconds: float) -> None:
        at = self._redis.time()[0] + seconds
        if members := {member(unit): at for unit in units}:
            self._redis.zadd(WAITING, members)
            self._redis.zadd(DUE, members, xx=True)

    @answering
    def postpone_units(self, due: Mapping[Unit, float], *, alone: bool = False, shown: float | None = None) -> None:
        self._postponed(due.items(), ALONE if alone else LISTED, "" if shown is None else repr(shown))

    @answering
    def start_next_batch(self, job_id: str, batch: int) -> int | None:
        keys = [job_key(job_id), batch_key(job_id, batch), DUE]
        admitted = self._admit(keys=keys, args=[member(Unit(job_id))])
        return None if admitted is None else int(admitted)

    def _postponed(self, changes: Iterable[tuple[Unit, float]], how: str, shown: str = "") -> None:
        args = [
            part
            for unit, at in changes
            for part in (
                member(unit),
                self._connection.prefix + batch_key(unit.job_id, unit.batch),
                repr(at),
                how,
                shown,
            )
        ]
        for start in range(0, len(args), _ARGUMENTS):
            self._postpone(keys=[WAITING, DUE], args=args[start : start + _ARGUMENTS])


class RedisWakeups:
    """``interface.Wakeups`` on a Redis server: it wakes nobody, workers ask every second."""

    def listen(self) -> AbstractContextManager[WakeupListener | None]:
        return nullcontext()
