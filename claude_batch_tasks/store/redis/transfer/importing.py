"""A job written into Redis part by part. It is there when the last part is; before, all expires in a day."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from claude_batch_tasks.records import Unit
from claude_batch_tasks.store.redis.connection import Connection
from claude_batch_tasks.store.redis.keys import (
    DUE,
    FIELDS,
    FLIGHTS,
    JOBS,
    LEASE,
    POOLS,
    POOLS_DUE,
    POOLS_OPEN,
    WAITING,
    account_key,
    attempt_key,
    batch_key,
    delivery_keys,
    history_keys,
    index_key,
    job_key,
    member,
    money_key,
    pool_keys,
    position_field,
    taken_field,
    turn_field,
    unit_key,
)
from claude_batch_tasks.store.redis.transfer.pools import packed_ask, pool_fields
from claude_batch_tasks.store.redis.transfer.task_bits import join_bits
from claude_batch_tasks.store.report_encoding import FIRST_EVENTS
from claude_batch_tasks.store.retention import UNFINISHED_TTL
from claude_batch_tasks.store.transfer import items

#: Commands and bytes that are sent in one go, about.
_COMMANDS, _BYTES = 1000, 4_000_000

_JOB, _MONEY = FIELDS["JOB"], FIELDS["MONEY"]


class JobImport:
    """A job that is being written."""

    def __init__(self, connection: Connection, job_id: str) -> None:
        self.job_id = job_id
        self.prefix = connection.prefix
        self._redis = connection.client
        self._pipe = self._redis.pipeline(transaction=False)
        self._bytes = 0
        self._keys: dict[str, None] = {}
        #: What makes it a job: all at once, in the end.
        self._last: list[tuple[Any, ...]] = []
        self.remaining: float | None = None
        #: Whether it is a pool of which no job is made yet.
        self.is_pool = True
        #: Asks that were written, and how many it has.
        self.asks = self.all_asks = 0
        #: How many requests it has, and the bits of each task of ``on_result``.
        self.requests = 0
        self.tasks: dict[int, bytes] = {}

    def write(self, parts: Iterable[items.JobItem]) -> None:
        """Write all parts."""
        with self._pipe:
            for part in parts:
                _WRITERS[type(part)](self, part)
                if len(self._pipe) >= _COMMANDS or self._bytes >= _BYTES:
                    self._send()
            self.skip_asks(self.all_asks)
            if self.tasks:
                self.add("set", delivery_keys(self.job_id)[2], join_bits(self.tasks, self.requests))
            self._send()
        self._finish()

    def add(self, command: str, key: str, *args: Any, size: int = 0, **named: Any) -> None:
        """Have a key of the job written; what a copy that was interrupted has left under it is removed first."""
        new = key not in self._keys
        if new:
            self._keys[key] = None
            self._pipe.unlink(key)
        getattr(self._pipe, command)(key, *args, **named)
        if new:
            self._pipe.expire(key, UNFINISHED_TTL)
        self._bytes += size

    def skip_asks(self, number: int) -> None:
        """Leave the places of asks empty that were withdrawn, or moved to another pool, up to that one."""
        for _ in range(self.asks, number):
            self.add("rpush", pool_keys(self.job_id)[1], b"")
        self.asks = max(self.asks, number)

    def add_last(self, command: str, key: str, *args: Any, **named: Any) -> None:
        """Have something written in the step that makes it a job."""
        self._last.append((command, key, args, named))

    def _send(self) -> None:
        self._pipe.execute()
        self._bytes = 0

    def _finish(self) -> None:
        with self._redis.pipeline(transaction=True) as pipe:
            for command, key, args, named in self._last:
                getattr(pipe, command)(key, *args, **named)
            for key in self._keys:
                if self.remaining is None:
                    pipe.persist(key)
                else:
                    pipe.pexpire(key, max(int(self.remaining * 1000), 1))
            pipe.execute()


def _write_job(job: JobImport, part: items.Job) -> None:
    key, fields = job_key(job.job_id), _stored(part.record)
    if part.forgotten:
        fields[_JOB["forgotten"]] = part.forgotten
    job.requests = int(part.record[_JOB["requests"]])
    job.remaining, job.is_pool = part.remaining, False
    job.add("hdel", key, "none")
    job.add_last("hset", key, mapping=fields)
    job.add_last("zadd", JOBS, {job.job_id: float(part.record[_JOB["submitted_at"]])})


def _write_batch(job: JobImport, part: items.Batch) -> None:
    job.add("hset", batch_key(job.job_id, part.batch), mapping=_stored(part.record))


def _write_unit(job: JobImport, part: items.UnitState) -> None:
    unit = Unit(job.job_id, part.batch, part.lane)
    key, prefix = unit_key(unit)
    numbers = {LEASE[name]: repr(at) for name in ("resent_at", "missed") if (at := getattr(part, name)) is not None}
    fields: dict[str, Any] = {**_stored(part.record), **numbers}
    fields |= {LEASE[name]: number for name in ("resent", "step_failures") if (number := getattr(part, name))}
    if part.position >= 0:
        fields[LEASE["position"]] = part.position
    if part.step_failure is not None:
        fields[LEASE["step_failure"]] = part.step_failure
    if part.account is not None and part.flight is not None:
        flights = account_key(part.account, FLIGHTS)
        fields[LEASE["flights"]] = job.prefix + flights
        job.add_last("hset", flights, member(unit), part.flight)
    if fields:
        write = job.add_last if unit.batch is None else job.add
        write("hset", key, mapping={prefix + name: value for name, value in fields.items()})
    if part.due_at is not None:
        for index in (DUE, WAITING) if part.waiting else (DUE,):
            job.add_last("zadd", index, {member(unit): part.due_at})


def _write_event(job: JobImport, part: items.Event) -> None:
    job.add("rpush", history_keys(job.job_id)[part.number >= FIRST_EVENTS], part.event)


def _write_money(job: JobImport, part: items.Money) -> None:
    fields = {name: getattr(part, name) for name in part.__struct_fields__}
    job.add("hset", money_key(job.job_id), mapping={**fields, _MONEY["begun"]: 1})
    job.add_last("hset", job_key(job.job_id), _JOB["money"], 1)


def _write_turn(job: JobImport, part: items.Turn) -> None:
    value = f"settled {part.amount}" if part.settled else part.amount
    job.add("hset", money_key(job.job_id), turn_field(Unit(job.job_id, part.batch), part.turn), value)


def _write_bits(job: JobImport, part: items.Bits) -> None:
    delivered, undelivered, _ = delivery_keys(job.job_id)
    if part.part is not None:
        job.tasks[part.part] = part.bits
        return
    known = {"delivered": delivered, "undelivered": undelivered, "ended": pool_keys(job.job_id)[2]}
    job.add("set", known.get(part.name) or batch_key(job.job_id, part.batch, part.name), part.bits)


def _write_requests(job: JobImport, part: items.RequestChunk) -> None:
    for name, value in (("body", part.body), ("ids", part.ids), ("sizes", part.size)):
        if value is not None:
            size = len(value) if isinstance(value, bytes) else 0
            job.add("rpush", batch_key(job.job_id, part.batch, name), value, size=size)


def _write_index(job: JobImport, part: items.IndexPart) -> None:
    key = index_key(job.job_id)
    if part.batch is not None:
        key = attempt_key(job.job_id, part.batch, "index", part.attempt)
    job.add("hset", key, str(part.number), part.entries, size=len(part.entries))


def _write_rows(job: JobImport, part: items.RowChunk) -> None:
    job.add("rpush", attempt_key(job.job_id, part.batch, "rows", part.attempt), part.rows, size=len(part.rows))


def _write_download(job: JobImport, part: items.Download) -> None:
    for name in ("pieces", "eligible", "again"):
        if (value := getattr(part, name)) is not None:
            job.add("set", attempt_key(job.job_id, part.batch, name, part.attempt), value, size=len(value))


def _write_taken(job: JobImport, part: items.Taken) -> None:
    job.add("hset", batch_key(job.job_id, part.batch), taken_field(part.retry), part.bits)


def _write_to_send(job: JobImport, part: items.ToSend) -> None:
    job.add("zadd", batch_key(job.job_id, part.batch, "to_send"), {position_field(part.position): part.due_at})


def _write_sent(job: JobImport, part: items.Sent) -> None:
    how = f"{part.lane} {'' if part.reserved is None else part.reserved}"
    job.add("hset", batch_key(job.job_id, part.batch, "sent"), position_field(part.position), how)


def _write_refused(job: JobImport, part: items.Refused) -> None:
    job.add("hset", batch_key(job.job_id, part.batch, "refused"), position_field(part.position), part.times)


def _write_given_up(job: JobImport, part: items.GivenUp) -> None:
    job.add("sadd", batch_key(job.job_id, part.batch, "given_up"), position_field(part.position))


def _write_outcome(job: JobImport, part: items.Outcome) -> None:
    key = batch_key(job.job_id, part.batch, "outcomes")
    job.add("hset", key, position_field(part.position), part.outcome, size=len(part.outcome))


def _write_pool(job: JobImport, part: items.Pool) -> None:
    key = pool_keys(job.job_id)[0]
    if job.is_pool:
        job.remaining = part.remaining
    job.add("hdel", key, "none")
    job.add_last("hset", key, mapping=pool_fields(part))
    if part.state == "open":
        job.add_last("hset", POOLS_OPEN, part.key, job.job_id)
    if part.state in ("open", "closed", "parked"):
        job.add_last("zadd", POOLS, {job.job_id: part.opened_at})
    if part.next_at is not None:
        job.add_last("zadd", POOLS_DUE, {job.job_id: part.next_at})
    job.all_asks = 0 if part.dropped else part.count


def _write_ask(job: JobImport, part: items.PoolAsk) -> None:
    job.skip_asks(part.number)
    job.add("rpush", pool_keys(job.job_id)[1], packed_ask(part), size=len(part.params))
    job.asks += 1


def _stored(record: dict[str, str]) -> dict[str, Any]:
    return {name: text.encode("utf-8", "surrogateescape") for name, text in record.items()}


_WRITERS: dict[type[msgspec.Struct], Callable[[JobImport, Any], None]] = {
    items.Job: _write_job,
    items.Batch: _write_batch,
    items.UnitState: _write_unit,
    items.Event: _write_event,
    items.Money: _write_money,
    items.Turn: _write_turn,
    items.Bits: _write_bits,
    items.RequestChunk: _write_requests,
    items.IndexPart: _write_index,
    items.RowChunk: _write_rows,
    items.Download: _write_download,
    items.Taken: _write_taken,
    items.ToSend: _write_to_send,
    items.Sent: _write_sent,
    items.Refused: _write_refused,
    items.GivenUp: _write_given_up,
    items.Outcome: _write_outcome,
    items.Pool: _write_pool,
    items.PoolAsk: _write_ask,
}
