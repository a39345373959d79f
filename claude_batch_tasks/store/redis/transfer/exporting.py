"""The parts of one job, read from Redis. A job's size does not matter: of what may be long, a little at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from claude_batch_tasks.errors import JobNotFound, KeyMissing, PayloadDamaged
from claude_batch_tasks.formatting import describe_missing_job
from claude_batch_tasks.records import BatchRecord, Unit
from claude_batch_tasks.store.record_encoding import read_record
from claude_batch_tasks.store.redis.connection import Connection
from claude_batch_tasks.store.redis.keys import (
    DUE,
    FIELDS,
    FLIGHTS,
    LEASE,
    LEASE_PREFIX,
    STAGED,
    TAKEN_PREFIX,
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
)
from claude_batch_tasks.store.redis.transfer import pools
from claude_batch_tasks.store.redis.transfer.task_bits import split_bits
from claude_batch_tasks.store.transfer import items

#: Batches that are read in one go.
_BATCHES = 50

#: Chunks of a megabyte at most that are read in one go.
_CHUNKS = 8

#: Fields of a long hash that are read in one go, about.
_FIELDS = 200

#: Downloads of a batch whose record is gone, of which something may be there.
_ATTEMPTS = 20

_JOB, _MONEY = FIELDS["JOB"], FIELDS["MONEY"]
_LEASE_FIELDS = frozenset(LEASE.values())
_SETTLED = "settled "

Fields = dict[str, str]

_decode_ids = msgspec.json.Decoder(list[str]).decode


class JobExport:
    """The parts of one job."""

    def __init__(self, connection: Connection, job_id: str) -> None:
        self._connection = connection
        self._redis = connection.client
        self._job_id = job_id

    def read(self) -> Iterator[items.JobItem]:
        """Yield the parts, first the job's record, or the pool if there is no job."""
        job_id = self._job_id
        known, remaining, money, pooled, first, last, *bits = self._ask(
            ("hgetall", job_key(job_id)),
            ("pttl", job_key(job_id)),
            ("hgetall", money_key(job_id)),
            ("exists", *pool_keys(job_id)),
            *(("lrange", key, 0, -1) for key in history_keys(job_id)),
            *(("get", key) for key in delivery_keys(job_id)),
        )
        record, unit = _split(texts(known), LEASE_PREFIX)
        stands = _JOB["nonce"] in record
        if stands:
            had_money = record.pop(_JOB["money"], None) is not None
            forgotten = int(record.pop(_JOB["forgotten"], 0))
            yield items.Job(record=record, remaining=left_of(remaining), forgotten=forgotten)
            yield from _money_of(texts(money), expected=had_money)
            for number, event in enumerate([*first, *last]):
                yield items.Event(number=number, event=event.decode())
            yield from _bits_of(bits, int(record[_JOB["requests"]]))
            yield from self._read_index(index_key(job_id))
            yield from self._read_units({Unit(job_id): unit})
            yield from self._read_batches(int(record[_JOB["batches"]]))
        if pooled:
            yield from pools.read_pool(self._connection, job_id)
        if stands and not self._redis.exists(job_key(job_id)):
            raise JobNotFound(describe_missing_job(job_id))

    def _ask(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands in one go, and return the answers."""
        with self._redis.pipeline(transaction=False) as pipe:
            for name, *args in commands:
                getattr(pipe, name)(*args)
            found: list[Any] = pipe.execute()
        return found

    def _read_index(self, key: str, batch: int | None = None, attempt: int | None = None) -> Iterator[items.IndexPart]:
        for number, entries in self._scan_hash(key):
            yield items.IndexPart(number=number, entries=entries, batch=batch, attempt=attempt)

    def _scan_hash(self, key: str) -> Iterator[tuple[int, bytes]]:
        """Yield the fields of a long hash, which are numbers; a scan may say one twice."""
        seen = set()
        for field, value in self._redis.hscan_iter(key, count=_FIELDS):
            if (number := int(field)) not in seen:
                seen.add(number)
                yield number, value

    def _read_units(self, units: Mapping[Unit, Fields]) -> Iterator[items.UnitState]:
        """Yield what is known of units, by what their leases have left."""
        members = [member(unit) for unit in units]
        due, waiting = self._ask(("zmscore", DUE, members), ("zmscore", WAITING, members))
        accounts = [_account_of(fields, self._connection.prefix) for fields in units.values()]
        listed = [
            ("hget", account_key(account, FLIGHTS), name)
            for name, account in zip(members, accounts, strict=True)
            if account
        ]
        flights = iter(self._ask(*listed) if listed else ())
        for (unit, fields), account, at, waits in zip(units.items(), accounts, due, waiting, strict=True):
            flight = next(flights) if account else None
            state = _unit_of(unit, fields, at if at is not None else waits, waits is not None, account, flight)
            if state != items.UnitState(batch=unit.batch, lane=unit.lane):
                yield state

    def _read_batches(self, count: int) -> Iterator[items.JobItem]:
        for start in range(0, count, _BATCHES):
            numbers = range(start, min(start + _BATCHES, count))
            keys = [batch_key(self._job_id, number, *name) for number in numbers for name in ((), ("lanes",))]
            found = list(map(texts, self._ask(*(("hgetall", key) for key in keys))))
            for number, fields, lanes in zip(numbers, found[::2], found[1::2], strict=True):
                yield from self._read_batch(number, fields, lanes)

    def _read_batch(self, number: int, fields: Fields, lanes: Fields) -> Iterator[items.JobItem]:
        taken = {name: fields.pop(name) for name in list(fields) if name.startswith(TAKEN_PREFIX)}
        for name, bits in taken.items():
            retry = int(name.removeprefix(TAKEN_PREFIX))
            yield items.Taken(batch=number, retry=retry, bits=bits.encode("utf-8", "surrogateescape"))
        record, unit = _split_own(fields)
        known = read_record(BatchRecord, fields)
        if known is not None:
            yield items.Batch(batch=number, record=record)
        units = {Unit(self._job_id, number): unit}
        for name, text in lanes.items():
            lane, _, field = name.partition(":")
            units.setdefault(Unit(self._job_id, number, int(lane)), {})[field] = text
        yield from self._read_units(units)
        yield from self._read_requests(number)
        yield from self._read_messages(number)
        published = {attempt for attempt, _ in known.layers} if known else set()
        for attempt in range(1, (_ATTEMPTS if known is None else known.attempt) + 1):
            yield from self._read_download(number, attempt, published=attempt in published)

    def _read_requests(self, number: int) -> Iterator[items.RequestChunk]:
        keys = [batch_key(self._job_id, number, name) for name in STAGED]
        count = max(self._ask(*(("llen", key) for key in keys)))
        for first in range(0, count, _CHUNKS):
            last = min(first + _CHUNKS, count)
            lists = [
                _padded(some, last - first) for some in self._ask(*(("lrange", key, first, last - 1) for key in keys))
            ]
            for at, (body, ids, size) in enumerate(zip(*lists, strict=True), first):
                requests = self._count_ids(number, ids) if size is None else int(size)
                yield items.RequestChunk(batch=number, number=at, body=body, ids=ids, size=requests)

    def _count_ids(self, number: int, ids: bytes | None) -> int | None:
        """Return how many custom_ids a chunk has, if that can be read without a key that we do not have."""
        with suppress(KeyMissing, PayloadDamaged):
            if ids is not None:
                return len(_decode_ids(self._connection.packer.unpack(ids, batch_key(self._job_id, number, "ids"))))
        return None

    def _read_messages(self, number: int) -> Iterator[items.JobItem]:
        """Yield what stands for requests that go through the Messages API."""
        to_send, sent, refused, given_up, announced, outcomes = (
            batch_key(self._job_id, number, name)
            for name in ("to_send", "sent", "refused", "given_up", "announced", "outcomes")
        )
        waiting, on_their_way, refusals, lost, bits, answered = self._ask(
            ("zrange", to_send, 0, -1, False, True),
            ("hgetall", sent),
            ("hgetall", refused),
            ("smembers", given_up),
            ("get", announced),
            ("exists", outcomes),
        )
        for position, at in waiting:
            yield items.ToSend(batch=number, position=int(position), due_at=at)
        for position, how in on_their_way.items():
            lane, _, reserved = how.decode().partition(" ")
            money = int(reserved) if reserved else None
            yield items.Sent(batch=number, position=int(position), lane=int(lane), reserved=money)
        for position, times in refusals.items():
            yield items.Refused(batch=number, position=int(position), times=int(times))
        for position in lost:
            yield items.GivenUp(batch=number, position=int(position))
        if bits := (bits or b"").rstrip(b"\0"):
            yield items.Bits(name="announced", batch=number, bits=bits)
        for place, outcome in self._scan_hash(outcomes) if answered else ():
            yield items.Outcome(batch=number, position=place, outcome=outcome)

    def _read_download(self, number: int, attempt: int, *, published: bool) -> Iterator[items.JobItem]:
        """Yield what a download has left. One that did not end is left out: it is made again."""
        keys = {
            name: attempt_key(self._job_id, number, name, attempt) for name in ("rows", "pieces", "eligible", "again")
        }
        count, pieces, eligible, again = self._ask(
            ("llen", keys["rows"]), *(("get", keys[name]) for name in ("pieces", "eligible", "again"))
        )
        if pieces is None and not (published and (count or eligible is not None)):
            return
        yield items.Download(batch=number, attempt=attempt, pieces=pieces, eligible=eligible, again=again)
        for first in range(0, count, _CHUNKS):
            for at, rows in enumerate(self._redis.lrange(keys["rows"], first, first + _CHUNKS - 1), first):
                yield items.RowChunk(batch=number, attempt=attempt, number=at, rows=rows)
        yield from self._read_index(attempt_key(self._job_id, number, "index", attempt), number, attempt)


def texts(fields: Mapping[bytes, bytes]) -> Fields:
    """Return the fields of a hash as texts; bytes that are none come back by ``surrogateescape``."""
    return {name.decode(): value.decode("utf-8", "surrogateescape") for name, value in fields.items()}


def _bits_of(found: list[bytes | None], requests: int) -> Iterator[items.Bits]:
    """Yield what became of the calls of ``on_result``: the values of ``delivery_keys``."""
    delivered, undelivered, parts = found
    if bits := (delivered or b"").rstrip(b"\0"):
        yield items.Bits(name="delivered", bits=bits)
    if bits := (undelivered or b"").rstrip(b"\0"):
        yield items.Bits(name="undelivered", bits=bits)
    for part, bits in enumerate(split_bits(parts or b"", requests)):
        if bits:
            yield items.Bits(name="part", part=part, bits=bits)


def _split(fields: Fields, prefix: str) -> tuple[Fields, Fields]:
    """Return the fields without those that begin with the prefix, and these without it."""
    own = {name.removeprefix(prefix): text for name, text in fields.items() if name.startswith(prefix)}
    return {name: text for name, text in fields.items() if not name.startswith(prefix)}, own


def _split_own(fields: Fields) -> tuple[Fields, Fields]:
    """Return the fields of a batch's record, and what its lease has left among them."""
    lease = {name: text for name, text in fields.items() if name in _LEASE_FIELDS}
    return {name: text for name, text in fields.items() if name not in _LEASE_FIELDS}, lease


def _money_of(money: Fields, *, expected: bool) -> Iterator[items.JobItem]:
    if expected and money.pop(_MONEY["begun"], None) is None:
        yield items.Money(spent=items.UNKNOWN_COST, fallback_spent=items.UNKNOWN_COST)
        return
    if not money:
        return
    named = {field: money.pop(field, "0") for field in ("spent", "reserved", "fallback_spent", "fallback_reserved")}
    yield items.Money(**{field: int(amount) for field, amount in named.items()})
    money.pop(_MONEY["begun"], None)
    for field, value in money.items():
        batch, _, turn = field.partition(":")
        amount = int(value.removeprefix(_SETTLED))
        yield items.Turn(batch=int(batch), turn=int(turn), amount=amount, settled=value.startswith(_SETTLED))


def _unit_of(
    unit: Unit, fields: Fields, due_at: float | None, waiting: bool, account: str | None, flight: bytes | None
) -> items.UnitState:
    failure = fields.get(LEASE["step_failure"])
    return items.UnitState(
        batch=unit.batch,
        lane=unit.lane,
        position=int(fields.get(LEASE["position"], -1)),
        step_failures=int(fields.get(LEASE["step_failures"], 0)),
        step_failure=None if failure in (None, "null") else failure,
        due_at=due_at,
        waiting=waiting,
        resent=int(fields.get(LEASE["resent"], 0)),
        resent_at=_number(fields.get(LEASE["resent_at"])),
        missed=_number(fields.get(LEASE["missed"])),
        account=account if flight is not None else None,
        flight=flight.decode() if flight is not None else None,
        record={name: text for name, text in fields.items() if name not in _LEASE_FIELDS},
    )


def _account_of(fields: Fields, prefix: str) -> str | None:
    """Return the account among whose batches in flight a unit is listed, by the key that its lease names."""
    key = fields.get(LEASE["flights"])
    before, after = account_key("\0", FLIGHTS).split("\0")
    return None if key is None else key.removeprefix(prefix).removeprefix(before).removesuffix(after)


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _padded(some: list[bytes], count: int) -> list[bytes | None]:
    return [*some, *[None] * (count - len(some))]


def left_of(milliseconds: int) -> float | None:
    """Return as seconds what PTTL returns; None: it does not expire."""
    return milliseconds / 1000 if milliseconds >= 0 else None
