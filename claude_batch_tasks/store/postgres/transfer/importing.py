"""A job written into PostgreSQL by COPY, some megabytes at a time. It is there when the last part is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, NamedTuple

import msgspec
from psycopg import Pipeline

from claude_batch_tasks.errors import ResultsMissing, StoreUnavailable
from claude_batch_tasks.pool_records import PoolRecord
from claude_batch_tasks.records import Flight
from claude_batch_tasks.store.places import batch_key
from claude_batch_tasks.store.postgres.connection import Connection
from claude_batch_tasks.store.postgres.sources import Connected
from claude_batch_tasks.store.postgres.statements import with_schema
from claude_batch_tasks.store.report_encoding import FIRST_EVENTS
from claude_batch_tasks.store.retention import UNFINISHED_TTL
from claude_batch_tasks.store.transfer import items

#: Rows and bytes of chunks that are written in one transaction, about.
_ROWS, _BYTES = 5_000, 4_000_000

#: Of a job with fewer rows, all are written at once.
_FEW = 200

#: Bits in a row.
_SEGMENT = 4096

_encode = msgspec.json.encode


class _Table(NamedTuple):
    """The columns of a table, and their types where it has chunks: these are written in the binary format."""

    columns: tuple[str, ...]
    types: tuple[str, ...] = ()


_PLACE = ("job", "batch")
_OF_PLACE = ("int8", "int4")

#: In the order in which they are written: rows and asks refer to what is before them.
_TABLES = {
    "records": _Table((*_PLACE, "lane", "record")),
    "history": _Table(("job", "number", "event")),
    "money": _Table(("job", "spent", "reserved", "fallback_spent", "fallback_reserved")),
    "turns": _Table((*_PLACE, "turn", "reserved", "spent")),
    "bits": _Table((*_PLACE, "name", "segment", "bits", "ones")),
    "taken": _Table((*_PLACE, "retry", "requests"), (*_OF_PLACE, "int4", "bytea")),
    "payload_chunks": _Table(
        (*_PLACE, "first_position", "requests", "body", "ids"), (*_OF_PLACE, "int4", "int4", "bytea", "bytea")
    ),
    "index_parts": _Table((*_PLACE, "attempt", "part", "entries"), (*_OF_PLACE, "int4", "int4", "bytea")),
    "result_attempts": _Table(
        (*_PLACE, "attempt", "copy", "pieces", "eligible", "again"),
        (*_OF_PLACE, "int4", "text", "bytea", "bytea", "bytea"),
    ),
    "result_chunks": _Table(
        (*_PLACE, "attempt", "copy", "number", "data"), (*_OF_PLACE, "int4", "text", "int4", "bytea")
    ),
    "outcomes": _Table((*_PLACE, "position", "outcome"), (*_OF_PLACE, "int4", "bytea")),
    "calls": _Table((*_PLACE, "position", "due_at", "lane", "most", "refused")),
    "pools": _Table(
        (
            *("job_id", "key", "starts_at", "record", "state", "count", "withdrawn", "size", "opened_at", "due_at"),
            *("deadline", "sealing", "sent", "failures", "dropped", "expires_at"),
        )
    ),
    "pool_asks": _Table(
        ("job_id", "position", "ask_id", "size", "send_before", "params"),
        ("text", "int4", "text", "int8", "float8", "bytea"),
    ),
    "units": _Table(
        (
            *("job_id", "batch", "lane", "position", "step_failures", "step_failure", "due_at", "waiting", "resent"),
            *("resent_at", "missed", "account", "flight", "deadline"),
        )
    ),
}


class JobImport:
    """A job that is being written."""

    def __init__(self, connection: Connection, sql: dict[str, str], job_id: str) -> None:
        self.job_id = job_id
        self.now = connection.now()
        self._connection = connection
        self._sql = sql
        self.job: int = connection.call("begin_import", job_id, UNFINISHED_TTL)
        self.record: items.Job | None = None
        self.pool: items.Pool | None = None
        #: What is added to the job's record.
        self.step: dict[str, str] = {}
        self.units: list[tuple[Any, ...]] = []
        #: What is known of each call, and which answers count as lost, by batch.
        self.calls: dict[tuple[int, int], dict[str, Any]] = {}
        self.given_up: dict[int, list[int]] = defaultdict(list)
        #: At which position the next chunk of requests of a batch begins.
        self.ends: dict[int, int] = defaultdict(int)
        self._rows: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self._count = self._bytes = 0

    def write(self, parts: Iterable[items.JobItem]) -> None:
        """Write all parts."""
        for part in parts:
            _WRITERS[type(part)](self, part)
            if self._count >= _ROWS or self._bytes >= _BYTES:
                with self._connection.transaction() as connection:
                    self._send(connection)
        small = self._count < _FEW and self._bytes < _BYTES // 10 and not self.calls and Pipeline.is_supported()
        # What is little goes all at once: a COPY waits several times for an answer.
        with (
            self._connection.lend() as connection,
            connection.pipeline() if small else nullcontext(),
            connection.transaction(),
        ):
            self._finish(connection, small=small)

    def add(self, table: str, *row: Any) -> None:
        """Have a row written."""
        self._rows[table].append(row)
        self._count += 1
        self._bytes += sum(len(value) for value in row if isinstance(value, bytes))

    def _send(self, connection: Connected, *, small: bool = False) -> None:
        for name, table in _TABLES.items():
            if rows := self._rows.pop(name, None):
                write = self._insert_rows if small else self._copy_rows
                write(connection, name, table, rows)
        self._count = self._bytes = 0

    def _insert_rows(self, connection: Connected, name: str, table: _Table, rows: list[tuple[Any, ...]]) -> None:
        marks = ", ".join(["%s"] * len(rows[0]))
        text = f"INSERT INTO claude_batch.{name} ({', '.join(table.columns)}) VALUES ({marks})"
        statement: Any = with_schema(text, self._connection.schema)
        connection.cursor().executemany(statement, rows)

    def _copy_rows(self, connection: Connected, name: str, table: _Table, rows: list[tuple[Any, ...]]) -> None:
        binary = " (FORMAT BINARY)" if table.types else ""
        text = f"COPY claude_batch.{name} ({', '.join(table.columns)}) FROM STDIN{binary}"
        statement: Any = with_schema(text, self._connection.schema)
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            if table.types:
                copy.set_types(table.types)
            for row in rows:
                copy.write_row(row)

    def _finish(self, connection: Connected, *, small: bool) -> None:
        if self.record is not None:
            record = {**self.record.record, **self.step}
            self.add("records", self.job, -1, -1, _encode(record).decode())
        for (batch, position), call in self.calls.items():
            known = (call.get(name) for name in ("due_at", "lane", "most"))
            self.add("calls", self.job, batch, position, *known, call.get("refused", 0))
        self._send(connection, small=small)
        for batch, positions in self.given_up.items():
            connection.execute(self._sql["mark_given_up"], {"job": self.job, "batch": batch, "positions": positions})
        if self.record is not None:
            self._make_job(connection, self.record, small=small)
        else:
            connection.execute(self._sql["drop_import"], {"job": self.job})
        if self.pool is not None:
            # That of a job which is over goes when the job does.
            remaining = self.pool.remaining if self.record is None else self.record.remaining or self.pool.remaining
            state = {"state": self.pool.state, "next_at": self.pool.next_at, "remaining": remaining}
            connection.execute(self._sql["open_pool"], {"job_id": self.job_id, **state})

    def _make_job(self, connection: Connected, job: items.Job, *, small: bool) -> None:
        nonce, at = msgspec.json.decode(job.record["nonce"]), float(job.record["submitted_at"])
        if not self._connection.call_on(connection, "finish_import", self.job_id, self.job, nonce, at, job.remaining):
            raise StoreUnavailable(f"somebody has written job {self.job_id} at the same time: nothing of it was copied")
        for row in self.units:
            self.add("units", *row)
        self._send(connection, small=small)


def _write_job(job: JobImport, part: items.Job) -> None:
    job.record = part


def _write_batch(job: JobImport, part: items.Batch) -> None:
    job.add("records", job.job, part.batch, -1, _encode(part.record).decode())


def _write_unit(job: JobImport, part: items.UnitState) -> None:
    batch, lane = -1 if part.batch is None else part.batch, -1 if part.lane is None else part.lane
    if lane >= 0:
        job.add("records", job.job, batch, lane, _encode(part.record).decode())
    elif part.record:
        job.step = part.record
    state = (part.position, part.step_failures, part.step_failure, part.due_at, part.waiting)
    sent = (part.resent, part.resent_at, part.missed, part.account, part.flight)
    deadline = None if part.flight is None else msgspec.json.decode(part.flight, type=Flight).deadline
    job.units.append((job.job_id, batch, lane, *state, *sent, deadline))


def _write_event(job: JobImport, part: items.Event) -> None:
    forgotten = job.record.forgotten if job.record is not None else 0
    number = part.number + (forgotten if part.number >= FIRST_EVENTS else 0)
    job.add("history", job.job, number, part.event)


def _write_money(job: JobImport, part: items.Money) -> None:
    job.add("money", job.job, part.spent, part.reserved, part.fallback_spent, part.fallback_reserved)


def _write_turn(job: JobImport, part: items.Turn) -> None:
    amounts = (0, part.amount) if part.settled else (part.amount, None)
    job.add("turns", job.job, part.batch, part.turn, *amounts)


def _write_bits(job: JobImport, part: items.Bits) -> None:
    name = part.name if part.part is None else f"{part.name}:{part.part}"
    size = _SEGMENT // 8
    for segment, first in enumerate(range(0, len(part.bits), size)):
        own = part.bits[first : first + size]
        if ones := int.from_bytes(own, "big").bit_count():
            bits = format(int.from_bytes(own.ljust(size, b"\0"), "big"), f"0{_SEGMENT}b")
            job.add("bits", job.job, -1 if part.batch is None else part.batch, name, segment, bits, ones)


def _write_requests(job: JobImport, part: items.RequestChunk) -> None:
    if part.size is None:
        key = batch_key(job.job_id, part.batch, "sizes")
        raise ResultsMissing(
            f"{key} is gone from the store, and what it follows from, the custom_ids, cannot be read: set "
            "claude_batch_encryption_key, or delete that job first",
            None,
            [key],
        )
    first = job.ends[part.batch]
    job.ends[part.batch] += part.size
    job.add("payload_chunks", job.job, part.batch, first, part.size, part.body, part.ids)


def _write_index(job: JobImport, part: items.IndexPart) -> None:
    place = (-1, -1) if part.batch is None else (part.batch, part.attempt)
    job.add("index_parts", job.job, *place, part.number, part.entries)


def _write_download(job: JobImport, part: items.Download) -> None:
    job.add("result_attempts", job.job, part.batch, part.attempt, "", part.pieces, part.eligible, part.again)


def _write_rows(job: JobImport, part: items.RowChunk) -> None:
    job.add("result_chunks", job.job, part.batch, part.attempt, "", part.number, part.rows)


def _write_taken(job: JobImport, part: items.Taken) -> None:
    job.add("taken", job.job, part.batch, part.retry, part.bits)


def _write_call(job: JobImport, part: items.ToSend | items.Sent | items.Refused) -> None:
    call = job.calls.setdefault((part.batch, part.position), {})
    if isinstance(part, items.ToSend):
        call["due_at"] = part.due_at
    elif isinstance(part, items.Sent):
        call["lane"], call["most"] = part.lane, part.reserved
    else:
        call["refused"] = part.times


def _write_given_up(job: JobImport, part: items.GivenUp) -> None:
    job.given_up[part.batch].append(part.position)


def _write_outcome(job: JobImport, part: items.Outcome) -> None:
    job.add("outcomes", job.job, part.batch, part.position, part.outcome)


def _write_pool(job: JobImport, part: items.Pool) -> None:
    job.pool = part
    starts_at = msgspec.json.decode(part.record, type=PoolRecord).starts_at
    counts = (part.count, part.withdrawn, part.size, part.opened_at, part.due_at, part.deadline)
    tries = (part.sealing, part.sent, part.failures, part.dropped)
    # Until all of it is there, nobody may put an ask into it, or make a job of it.
    ends = job.now + UNFINISHED_TTL
    job.add("pools", job.job_id, part.key, starts_at, part.record, "divided", *counts, *tries, ends)


def _write_ask(job: JobImport, part: items.PoolAsk) -> None:
    job.add("pool_asks", job.job_id, part.number, part.ask_id, part.size, part.expires_at, part.params)


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
    items.ToSend: _write_call,
    items.Sent: _write_call,
    items.Refused: _write_call,
    items.GivenUp: _write_given_up,
    items.Outcome: _write_outcome,
    items.Pool: _write_pool,
    items.PoolAsk: _write_ask,
}
