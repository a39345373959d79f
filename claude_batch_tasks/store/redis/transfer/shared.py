"""What all jobs in Redis share, as far as it is copied."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from claude_batch_tasks.records import Unit
from claude_batch_tasks.store.redis.connection import Connection
from claude_batch_tasks.store.redis.keys import (
    ASK_PREFIX,
    COST_PREFIX,
    HELD,
    IDENTITY,
    PAST,
    PREFIX,
    RESTORE,
    account_key,
    ask_key,
    deleted_key,
    member,
    owner_key,
    past_key,
    unit_of,
)
from claude_batch_tasks.store.redis.transfer.exporting import left_of, texts
from claude_batch_tasks.store.transfer import items

#: Keys that are read or written in one go.
_PAGE = 500

#: Those of the keys that the search below finds, by what they begin with.
_OWNER, _DELETED, _PAST = owner_key(""), deleted_key(""), past_key("")
_ACCOUNT, _ACCOUNT_PAST = account_key("\0", PAST).split("\0")

#: What the search finds: no key of a job, of which there are most.
_SEARCHED = f"{PREFIX}:[acdop]*"

_decode_past = msgspec.json.Decoder(tuple[int, float]).decode
_encode = msgspec.json.encode


def read_shared(connection: Connection) -> Iterator[items.SharedItem]:
    """Yield all of it."""
    redis: Any = connection.client
    keys = redis.scan_iter(match=_SEARCHED, count=1000)
    while some := list(itertools.islice(keys, _PAGE)):
        yield from _read_keys(redis, {key.decode() for key in some})
    if (identity := redis.get(IDENTITY)) is not None:
        yield items.Identity(identity=identity.decode())
    for name, until in redis.zrange(HELD, 0, -1, withscores=True):
        yield items.Pause(name=name.decode(), until=until)
    for job_id, at in redis.zrange(RESTORE, 0, -1, withscores=True):
        yield items.RestoreRequest(job_id=job_id.decode(), at=at)


def _read_keys(redis: Any, found: set[str]) -> Iterator[items.SharedItem]:
    keys = [key for key in found if _read_command(key)]
    with redis.pipeline(transaction=False) as pipe:
        for key in keys:
            command, *args = _read_command(key)
            getattr(pipe, command)(key, *args)
            pipe.pttl(key)
        answers = pipe.execute()
    for key, value, left in zip(keys, answers[::2], answers[1::2], strict=True):
        if value:
            yield _item_of(key, value, left_of(left))
        elif key.startswith(_DELETED) and value is not None:
            yield items.Deleted(job_id=key.removeprefix(_DELETED), remaining=left_of(left))


def _read_command(key: str) -> tuple[Any, ...]:
    if key.startswith(ASK_PREFIX):
        return ("hgetall",)
    if key.startswith((_OWNER, _DELETED, COST_PREFIX)):
        return ("get",)
    if key.startswith(_PAST) or (key.startswith(_ACCOUNT) and key.endswith(_ACCOUNT_PAST)):
        return ("lrange", 0, -1)
    return ()


def _item_of(key: str, value: Any, left: float | None) -> items.SharedItem:
    if key.startswith(ASK_PREFIX):
        return _place_of(key.removeprefix(ASK_PREFIX), texts(value), left)
    if key.startswith(_OWNER):
        unit = unit_of(value.decode())
        batch_id = key.removeprefix(_OWNER)
        return items.Owner(batch_id=batch_id, job_id=unit.job_id, batch=unit.batch, remaining=left)
    if key.startswith(COST_PREFIX):
        return items.AskCost(budget=key.removeprefix(COST_PREFIX), amount=int(value), remaining=left)
    batches = list(map(_decode_past, value))
    if key.startswith(_PAST):
        return items.Past(kind=key.removeprefix(_PAST), batches=batches)
    return items.Past(account=key.removeprefix(_ACCOUNT).removesuffix(_ACCOUNT_PAST), batches=batches)


def _place_of(ask_id: str, fields: dict[str, str], left: float | None) -> items.AskPlace:
    return items.AskPlace(
        ask_id=ask_id,
        job_id=fields.get("job_id", ""),
        position=int(fields.get("position", 0)),
        asked_at=float(fields.get("asked_at", 0)),
        state=fields.get("state", "waiting"),
        canvas=fields.get("canvas"),
        headers=fields.get("headers"),
        reserved=int(fields.get("reserved", 0)),
        budget=fields.get("budget"),
        withdrawn=fields.get("withdrawn") == "1",
        remaining=left,
    )


def write_shared(connection: Connection, parts: Iterable[items.SharedItem]) -> None:
    """Write all of it on top of what is there."""
    parts = iter(parts)
    while some := list(itertools.islice(parts, _PAGE)):
        with connection.client.pipeline(transaction=False) as pipe:
            for part in some:
                _WRITERS[type(part)](pipe, part)
            pipe.execute()


def _write_place(pipe: Any, part: items.AskPlace) -> None:
    fields: dict[str, Any] = {
        "job_id": part.job_id,
        "position": part.position,
        "asked_at": repr(part.asked_at),
        "reserved": part.reserved,
    }
    fields |= {name: value for name in ("canvas", "headers", "budget") if (value := getattr(part, name)) is not None}
    if part.state != "waiting":
        fields["state"] = part.state
    if part.withdrawn:
        fields["withdrawn"] = 1
    key = ask_key(part.ask_id)
    pipe.unlink(key)
    pipe.hset(key, mapping=fields)
    _expire(pipe, key, part.remaining)


def _write_cost(pipe: Any, part: items.AskCost) -> None:
    pipe.set(COST_PREFIX + part.budget, part.amount)
    _expire(pipe, COST_PREFIX + part.budget, part.remaining)


def _write_owner(pipe: Any, part: items.Owner) -> None:
    key = owner_key(part.batch_id)
    pipe.set(key, member(Unit(part.job_id, part.batch)))
    _expire(pipe, key, part.remaining)


def _write_deleted(pipe: Any, part: items.Deleted) -> None:
    pipe.set(deleted_key(part.job_id), b"")
    _expire(pipe, deleted_key(part.job_id), part.remaining)


def _write_pause(pipe: Any, part: items.Pause) -> None:
    pipe.zadd(HELD, {part.name: part.until}, gt=True)


def _write_past(pipe: Any, part: items.Past) -> None:
    key = account_key(part.account, PAST) if part.account is not None else past_key(part.kind or "")
    pipe.unlink(key)
    pipe.rpush(key, *map(_encode, part.batches))
    pipe.expire(key, _PAST_TTL)


def _write_restore(pipe: Any, part: items.RestoreRequest) -> None:
    pipe.zadd(RESTORE, {part.job_id: part.at}, nx=True)


def _write_identity(pipe: Any, part: items.Identity) -> None:
    pipe.set(IDENTITY, part.identity)


def _expire(pipe: Any, key: str, remaining: float | None) -> None:
    if remaining is not None:
        pipe.pexpire(key, max(int(remaining * 1000), 1))


#: As when one is added.
_PAST_TTL = 30 * 86_400

_WRITERS: dict[type[msgspec.Struct], Callable[[Any, Any], None]] = {
    items.AskPlace: _write_place,
    items.AskCost: _write_cost,
    items.Owner: _write_owner,
    items.Deleted: _write_deleted,
    items.Pause: _write_pause,
    items.Past: _write_past,
    items.RestoreRequest: _write_restore,
    items.Identity: _write_identity,
}
