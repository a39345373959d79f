"""Pools and their asks, as parts of a job that was made of them, or will be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from claude_batch_tasks.store.redis.connection import Connection
from claude_batch_tasks.store.redis.keys import FIELDS, POOLS_DUE, pool_keys
from claude_batch_tasks.store.transfer import items

_POOL = FIELDS["POOL"]

#: Asks that are read in one go, and bytes of them, about.
_PAGE, _PAGE_BYTES = 500, 4_000_000

_encode = msgspec.json.encode
_decode_head = msgspec.json.Decoder(list[Any]).decode


def read_pool(connection: Connection, job_id: str) -> Iterator[items.JobItem]:
    """Yield a pool, its asks, and which of them have ended; nothing: the job was made of none."""
    redis: Any = connection.client
    pool, asks, ended = pool_keys(job_id)
    with redis.pipeline(transaction=False) as pipe:
        pipe.hgetall(pool)
        pipe.pttl(pool)
        pipe.zscore(POOLS_DUE, job_id)
        pipe.llen(asks)
        pipe.get(ended)
        fields, remaining, next_at, count, bits = pipe.execute()
    fields = {name: fields[stored.encode()].decode() for name, stored in _POOL.items() if stored.encode() in fields}
    if "record" in fields and "state" in fields:
        yield items.Pool(
            record=fields["record"],
            key=fields.get("key", ""),
            state=fields["state"],
            count=_integer(fields, "count"),
            withdrawn=_integer(fields, "withdrawn"),
            size=_integer(fields, "size"),
            opened_at=float(fields.get("opened_at") or 0),
            due_at=float(fields.get("due_at") or 0),
            sealing=_integer(fields, "sealing"),
            sent=_integer(fields, "sent"),
            failures=_integer(fields, "failures"),
            deadline=float(fields["deadline"]) if fields.get("deadline") else None,
            next_at=next_at,
            dropped=not count and _integer(fields, "count") > 0,
            remaining=remaining / 1000 if remaining >= 0 else None,
        )
    page = max(min(_PAGE_BYTES // max(int(fields.get("size", 0)) // max(count, 1), 1), _PAGE), 1)
    for first in range(0, count, page):
        for number, packed in enumerate(redis.lrange(asks, first, first + page - 1), first):
            if packed:
                yield _read_ask(number, packed)
    if bits := (bits or b"").rstrip(b"\0"):
        yield items.Bits(name="ended", bits=bits)


def _integer(fields: Mapping[str, str], name: str) -> int:
    return int(fields.get(name) or 0)


def pool_fields(pool: items.Pool) -> Mapping[str, str | int]:
    """Return the fields of a pool's hash."""
    known: dict[str, str | int] = {
        name: getattr(pool, name) for name in ("record", "key", "state", "count", "withdrawn", "size")
    }
    known |= {name: repr(getattr(pool, name)) for name in ("opened_at", "due_at")}
    known |= {name: number for name in ("sealing", "sent", "failures") if (number := getattr(pool, name))}
    known["deadline"] = "" if pool.deadline is None else repr(pool.deadline)
    return {_POOL[name]: value for name, value in known.items()}


def _read_ask(number: int, packed: bytes) -> items.PoolAsk:
    head, params = packed.split(b"\n", 1)
    ask_id, size, expires_at, *_ = _decode_head(head)
    return items.PoolAsk(number=number, ask_id=ask_id, size=size, expires_at=expires_at, params=params)


def packed_ask(ask: items.PoolAsk) -> bytes:
    """Return an ask as the list of its pool has it."""
    return b"\n".join((_encode((ask.ask_id, ask.size, ask.expires_at)), ask.params))
