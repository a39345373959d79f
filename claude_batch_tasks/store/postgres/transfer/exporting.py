"""The parts of one job, read from PostgreSQL by pages. No transaction lasts while a caller works with a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from claude_batch_tasks.errors import JobNotFound
from claude_batch_tasks.formatting import describe_missing_job
from claude_batch_tasks.records import LaneRecord
from claude_batch_tasks.store.record_encoding import stored_names
from claude_batch_tasks.store.transfer import items

#: Rows that are read in one go: small ones; outcomes and asks; and chunks of a megabyte at most.
_ROWS, _VALUES, _CHUNKS = 2_000, 500, 8

#: What the last step of a job has left in the job's record, as a sender's has in the sender's.
_OF_STEP = frozenset((*stored_names(LaneRecord).values(), "task_id"))

#: What is in the table of units, and what a batch's record may have of it from when it was created.
_OF_UNIT = frozenset(("step_failures", "step_failure"))

_PART = "part:"

Row = tuple[Any, ...]
Fetch = Callable[..., list[Row]]


def read_job(fetch: Fetch, job_id: str) -> Iterator[items.JobItem]:
    """Yield the parts of a job, first its record, or the pool if there is no job.

    Args:
        fetch: runs a query of ``transfer.sql``.
    """
    found = fetch("read_job", job_id=job_id)
    if found:
        [(job, remaining, record, forgotten, *there)] = found
        fetch = _skipping(fetch, dict(zip(_LISTED, there, strict=True)))
        step = {name: record.pop(name) for name in _OF_STEP & record.keys()}
        yield items.Job(record=record, remaining=remaining, forgotten=forgotten or 0)
        yield from _read_parts(fetch, job_id, job, step)
    yield from _read_pool(fetch, job_id)
    if found and not fetch("read_job", job_id=job_id):
        raise JobNotFound(describe_missing_job(job_id))


#: The queries that find something of a job only if its table has it, in the order in which ``read_job`` says so.
_LISTED = (
    *("read_money", "read_turns", "read_history", "read_bits", "read_taken", "read_requests", "read_index"),
    *("read_attempts", "read_rows", "read_outcomes", "read_calls", "read_units"),
)


def _skipping(fetch: Fetch, there: dict[str, bool]) -> Fetch:
    """Return what runs only those queries that find something."""
    return lambda query, **params: fetch(query, **params) if there.get(query, True) else []


def _read_parts(fetch: Fetch, job_id: str, job: int, step: dict[str, str]) -> Iterator[items.JobItem]:
    for spent, reserved, fallback_spent, fallback_reserved in fetch("read_money", job=job):
        yield items.Money(
            spent=spent, reserved=reserved, fallback_spent=fallback_spent, fallback_reserved=fallback_reserved
        )
    for batch, turn, amount, settled in fetch("read_turns", job=job):
        yield items.Turn(batch=batch, turn=turn, amount=amount, settled=settled)
    for number, (event,) in enumerate(fetch("read_history", job=job)):
        yield items.Event(number=number, event=event)
    for batch, name, bits in fetch("read_bits", job=job):
        if bits := bytes(bits).rstrip(b"\0"):
            yield _bits_of(batch, name, bits)
    for batch, retry, requests in fetch("read_taken", job=job):
        yield items.Taken(batch=batch, retry=retry, bits=requests)
    yield from _read_records(fetch, job_id, job, step)
    yield from _read_requests(fetch, job)
    yield from _read_results(fetch, job)
    yield from _read_messages(fetch, job)


def pages(fetch: Fetch, query: str, limit: int, *names: str, **params: Any) -> Iterator[Row]:
    """Yield the rows of all pages.

    Args:
        names: the columns behind which a page begins, which are the first of the row.
    """
    place: Sequence[Any] = [-2] * len(names)
    while rows := fetch(query, **params, **dict(zip(names, place, strict=True)), limit=limit):
        yield from rows
        if len(rows) < limit:
            return
        place = rows[-1][: len(names)]


def _read_records(fetch: Fetch, job_id: str, job: int, step: dict[str, str]) -> Iterator[items.JobItem]:
    """Yield the records of batches, and the states of all units, with the records of senders."""
    units = pages(fetch, "read_units", _ROWS, "batch", "lane", job_id=job_id)
    states = {(batch, lane): row for batch, lane, *row in units}
    records: dict[tuple[int, int], dict[str, str]] = {(-1, -1): step}
    for batch, lane, record in pages(fetch, "read_records", _ROWS, "batch", "lane", job=job):
        if batch >= 0 and lane < 0:
            yield items.Batch(batch=batch, record={name: record[name] for name in record.keys() - _OF_UNIT})
        elif batch >= 0:
            records[batch, lane] = record
    for batch, lane in states.keys() | records.keys():
        state = _unit_of(batch, lane, states.get((batch, lane)), records.get((batch, lane), {}))
        if state != items.UnitState(batch=state.batch, lane=state.lane):
            yield state


def _unit_of(batch: int, lane: int, row: Sequence[Any] | None, record: dict[str, str]) -> items.UnitState:
    known = dict(zip(_UNIT_FIELDS, row, strict=True)) if row is not None else {}
    if known.get("step_failure") == "null":
        known["step_failure"] = None
    if known.get("flight") is None:
        known["account"] = None
    return items.UnitState(batch=None if batch < 0 else batch, lane=None if lane < 0 else lane, record=record, **known)


_UNIT_FIELDS = (
    *("position", "step_failures", "step_failure", "due_at", "waiting", "resent", "resent_at", "missed"),
    *("account", "flight"),
)


def _bits_of(batch: int, name: str, bits: bytes) -> items.Bits:
    known: Any = name
    if name.startswith(_PART):
        return items.Bits(name="part", part=int(name.removeprefix(_PART)), bits=bits)
    return items.Bits(name=known, batch=None if batch < 0 else batch, bits=bits)


def _read_requests(fetch: Fetch, job: int) -> Iterator[items.JobItem]:
    last, number = -1, 0
    for batch, _, size, body, ids in pages(fetch, "read_requests", _CHUNKS, "batch", "first", job=job):
        last, number = batch, number + 1 if batch == last else 0
        yield items.RequestChunk(batch=batch, number=number, body=body, ids=ids, size=size)
    for batch, attempt, part, entries in pages(fetch, "read_index", _VALUES, "batch", "attempt", "part", job=job):
        place = {} if batch < 0 else {"batch": batch, "attempt": attempt}
        yield items.IndexPart(number=part, entries=entries, **place)


def _read_results(fetch: Fetch, job: int) -> Iterator[items.JobItem]:
    for batch, attempt, *values in pages(fetch, "read_attempts", _CHUNKS, "batch", "attempt", job=job):
        pieces, eligible, again = values
        yield items.Download(batch=batch, attempt=attempt, pieces=pieces, eligible=eligible, again=again)
    for batch, attempt, number, rows in pages(fetch, "read_rows", _CHUNKS, "batch", "attempt", "number", job=job):
        yield items.RowChunk(batch=batch, attempt=attempt, number=number, rows=rows)


def _read_messages(fetch: Fetch, job: int) -> Iterator[items.JobItem]:
    """Yield what stands for requests that go through the Messages API."""
    for batch, position, outcome, given_up in pages(fetch, "read_outcomes", _VALUES, "batch", "position", job=job):
        yield items.Outcome(batch=batch, position=position, outcome=outcome)
        if given_up:
            yield items.GivenUp(batch=batch, position=position)
    for batch, position, due_at, lane, most, refused in pages(fetch, "read_calls", _ROWS, "batch", "position", job=job):
        if due_at is not None:
            yield items.ToSend(batch=batch, position=position, due_at=due_at)
        if lane is not None:
            yield items.Sent(batch=batch, position=position, lane=lane, reserved=most)
        if refused:
            yield items.Refused(batch=batch, position=position, times=refused)


def _read_pool(fetch: Fetch, job_id: str) -> Iterator[items.JobItem]:
    for row in fetch("read_pool", job_id=job_id):
        yield items.Pool(**dict(zip(_POOL_FIELDS, row, strict=True)))
    for position, ask_id, size, expires_at, params in pages(fetch, "read_asks", _VALUES, "position", job_id=job_id):
        yield items.PoolAsk(number=position, ask_id=ask_id, size=size, expires_at=expires_at, params=params)


_POOL_FIELDS = (
    *("record", "key", "state", "count", "withdrawn", "size", "opened_at", "due_at", "deadline"),
    *("sealing", "sent", "failures", "next_at", "dropped", "remaining"),
)
