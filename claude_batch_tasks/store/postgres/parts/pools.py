"""Pools of asks in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from claude_batch_tasks import rules
from claude_batch_tasks.pool_records import Ask, AskPlace, PoolLimits, PoolRecord
from claude_batch_tasks.store.ask_encoding import (
    DOUBLINGS,
    PLACE_TTL,
    choose_page,
    describe_spent,
    encrypt_canvas,
    make_pool,
    pack_params,
    unpack_params,
)
from claude_batch_tasks.store.postgres.connection import Part, answering, in_transaction
from claude_batch_tasks.store.postgres.encoding import fit_bigint, fit_integer
from claude_batch_tasks.store.record_encoding import _encode

#: Records that are read in one go, and asks that are removed in one transaction.
_PAGE, _DROPPED = 500, 5_000


class PostgresPools(Part):
    """``interface.Pools`` on a PostgreSQL server."""

    queries = "pools"

    @answering
    def add_ask(self, key: str, pool: PoolRecord, new_id: str, ask: Ask, size: int, limits: PoolLimits) -> AskPlace:
        cipher = self._connection.cipher
        args = [
            *(key, new_id, _text(pool), pool.name, pool.due_at, pool.deadline, pool.starts_at),
            *(ask.id, size, pack_params(ask, cipher), ask.expires_at),
            *(encrypt_canvas(ask, cipher), ask.headers, PLACE_TTL),
            *(fit_integer(limits.max_requests), fit_bigint(limits.max_bytes), limits.max_wait),
            *(ask.reserved, fit_bigint(limits.max_cost), limits.window),
        ]
        with self._connection.lend() as connection:
            if in_transaction(connection):
                own = self._connection.in_transaction()
                found = self._connection.call_row_on(connection, "add_ask", own, *args)
            else:
                [found] = connection.execute(self._sql["add_ask"], args).fetchall()
        job_id, position, asked_at, state, reserved, left, seconds = found
        if job_id is None:
            raise describe_spent(pool.name, ask.reserved, left, seconds)
        return AskPlace(job_id=job_id, position=position, asked_at=asked_at, state=state, reserved=reserved)

    @answering
    def take_due(self, limit: int, again: float) -> tuple[list[str], float | None]:
        taken, pause = self._connection.call_row("take_due_pools", limit, again, DOUBLINGS)
        return taken or [], pause

    @answering
    def wait_again(self, job_ids: Sequence[str], seconds: float) -> None:
        self._run("wait_again", job_ids=list(job_ids), seconds=seconds)

    @answering
    def read_pool(self, job_id: str) -> PoolRecord | None:
        row = self._fetch_row("read_pool", job_id=job_id)
        return None if row is None else _read_row(row)

    @answering
    def read_asks(self, job_id: str, *, params: bool = True) -> Iterator[list[Ask | None]]:
        record = self.read_pool(job_id)
        count = int(self._fetch_value("count_places", job_id=job_id) or 0)
        page = choose_page(record)
        for first in range(0, count, page):
            asks: list[Ask | None] = [None] * min(page, count - first)
            rows = self._fetch("read_asks", job_id=job_id, first=first, after=first + len(asks), params=params)
            for position, ask_id, expires_at, packed in rows:
                body = unpack_params(packed, ask_id, self._connection.cipher) if params else b""
                asks[position - first] = Ask(id=ask_id, params=body, expires_at=expires_at)
            yield asks

    @answering
    def begin_sealing(self, job_id: str) -> PoolRecord | None:
        self._run("begin_sealing", job_id=job_id)
        return self.read_pool(job_id)

    @answering
    def stop_sealing(self, job_id: str) -> int:
        return int(self._fetch_value("stop_sealing", job_id=job_id) or 0)

    @answering
    def finish_sealing(self, job_id: str) -> None:
        self._run("finish_sealing", job_id=job_id, retention=rules.RETENTION)

    @answering
    def drop_asks(self, job_id: str) -> None:
        self._run("forget_asks", job_id=job_id)
        while self._run("drop_asks", job_id=job_id, most=_DROPPED) == _DROPPED:
            pass

    @answering
    def divide(self, job_id: str, parts: Mapping[str, tuple[PoolRecord, Sequence[int]]]) -> bool:
        now, records = self._connection.now(), [record for record, _ in parts.values()]
        moved = [(position, part) for part, (_, some) in enumerate(parts.values(), 1) for position in some]
        args: list[Any] = [
            list(parts),
            list(map(_text, records)),
            [record.state for record in records],
            [record.opened_at or now for record in records],
            [record.due_at or None for record in records],
            [record.deadline for record in records],
            [position for position, _ in moved],
            [part for _, part in moved],
        ]
        return bool(self._connection.call("divide_pool", job_id, *args, rules.RETENTION))

    @answering
    def merge(self, job_id: str, others: Sequence[str]) -> None:
        self._connection.call("merge_pools", job_id, list(others))

    @answering
    def release(self, job_id: str, record: PoolRecord) -> None:
        self._run("release", job_id=job_id, record=_text(record), deadline=record.deadline)

    @answering
    def list_pools(self, name: str | None = None) -> Iterator[tuple[str, PoolRecord]]:
        opened_at, last = 0.0, ""
        while rows := self._fetch("list_pools", opened_at=opened_at, last=last, most=_PAGE):
            for last, *row in rows:
                record = _read_row(row)
                opened_at = record.opened_at
                if name in (None, record.name):
                    yield last, record


def _text(record: PoolRecord) -> str:
    return _encode(record).decode()


def _read_row(row: Sequence[Any]) -> PoolRecord:
    """Return the record of a pool, from the columns that the queries select."""
    record, state, count, withdrawn, size, opened_at, due_at, deadline = row
    return make_pool(
        record,
        state,
        count=count,
        withdrawn=withdrawn,
        size=size,
        opened_at=opened_at,
        due_at=due_at,
        deadline=deadline,
    )
