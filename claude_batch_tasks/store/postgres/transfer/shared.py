"""What all jobs in PostgreSQL share, as far as it is copied."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from claude_batch_tasks.store.ask_encoding import PLACE_TTL
from claude_batch_tasks.store.postgres.connection import Connection
from claude_batch_tasks.store.retention import ACCOUNT_TTL, CLAIM_TTL, UNFINISHED_TTL
from claude_batch_tasks.store.transfer import items

#: Rows that are read in one go, and written in one transaction.
_PAGE = 1_000

#: Seconds for which the identity stays: as if for good.
_LONG = 1e9

Fetch = Callable[..., list[tuple[Any, ...]]]


def read_shared(fetch: Fetch) -> Iterator[items.SharedItem]:
    """Yield all of it.

    Args:
        fetch: runs a query of ``transfer.sql``.
    """
    for row in _pages(fetch, "read_places"):
        ask_id, job_id, position, asked_at, state, canvas, headers, reserved, *limit, withdrawn, remaining = row
        yield items.AskPlace(
            ask_id=ask_id,
            job_id=job_id,
            position=position,
            asked_at=asked_at,
            state=state,
            canvas=canvas,
            headers=headers,
            reserved=reserved,
            budget=None if limit[0] is None else _budget_of(*limit),
            withdrawn=withdrawn,
            remaining=remaining,
        )
    for *limit, amount, remaining in fetch("read_costs"):
        yield items.AskCost(budget=_budget_of(*limit), amount=amount, remaining=remaining)
    for batch_id, job_id, batch, remaining in _pages(fetch, "read_owners"):
        yield items.Owner(batch_id=batch_id, job_id=job_id, batch=None if batch < 0 else batch, remaining=remaining)
    for job_id, remaining in fetch("read_deleted"):
        yield items.Deleted(job_id=job_id, remaining=remaining)
    for name, requests, seconds in fetch("read_durations"):
        kind, _, own = name.partition(":")
        yield items.Past(**{kind: own}, batches=list(zip(requests, seconds, strict=True)))
    for (identity,) in fetch("read_identity"):
        yield items.Identity(identity=bytes(identity).decode())
    for name, until in fetch("read_pauses"):
        yield items.Pause(name=name, until=until)
    for job_id, at in fetch("read_restore_requests"):
        yield items.RestoreRequest(job_id=job_id, at=at)


def _pages(fetch: Fetch, query: str) -> Iterator[tuple[Any, ...]]:
    after = ""
    while rows := fetch(query, after=after, limit=_PAGE):
        yield from rows
        after = rows[-1][0]


def _budget_of(seconds: float, start: float, name: str) -> str:
    return f"{seconds:.15g}:{start:.0f}:{name}"


def _limit_of(budget: str | None) -> dict[str, Any]:
    if budget is None:
        return {"seconds": None, "start": None, "name": None}
    seconds, start, name = budget.split(":", 2)
    return {"seconds": float(seconds), "start": float(start), "name": name}


def write_shared(connection: Connection, sql: dict[str, str], parts: Iterable[items.SharedItem]) -> None:
    """Write all of it on top of what is there."""
    parts = iter(parts)
    while some := list(itertools.islice(parts, _PAGE)):
        rows: dict[str, list[dict[str, Any]]] = {}
        for part in some:
            query, params = _WRITERS[type(part)](part)
            rows.setdefault(query, []).append(params)
        with connection.transaction() as lent, lent.cursor() as cursor:
            for query, all_params in rows.items():
                cursor.executemany(sql[query], all_params)


def _write_place(part: items.AskPlace) -> tuple[str, dict[str, Any]]:
    params = msgspec.structs.asdict(part)
    budget, remaining = params.pop("budget"), params.pop("remaining")
    left = PLACE_TTL if remaining is None else remaining
    return "put_place", {**params, **_limit_of(budget), "remaining": left}


def _write_cost(part: items.AskCost) -> tuple[str, dict[str, Any]]:
    left = UNFINISHED_TTL if part.remaining is None else part.remaining
    return "put_cost", {**_limit_of(part.budget), "amount": part.amount, "remaining": left}


def _write_owner(part: items.Owner) -> tuple[str, dict[str, Any]]:
    left = CLAIM_TTL if part.remaining is None else part.remaining
    batch = -1 if part.batch is None else part.batch
    return "put_owner", {"batch_id": part.batch_id, "job_id": part.job_id, "batch": batch, "remaining": left}


def _write_deleted(part: items.Deleted) -> tuple[str, dict[str, Any]]:
    left = UNFINISHED_TTL if part.remaining is None else part.remaining
    return "put_deleted", {"name": f"deleted:{part.job_id}", "remaining": left}


def _write_pause(part: items.Pause) -> tuple[str, dict[str, Any]]:
    return "put_pause", {"name": part.name, "until": part.until}


def _write_past(part: items.Past) -> tuple[str, dict[str, Any]]:
    name = f"kind:{part.kind}" if part.account is None else f"account:{part.account}"
    requests, seconds = map(list, zip(*part.batches, strict=True))
    return "put_durations", {"name": name, "requests": requests, "seconds": seconds, "remaining": ACCOUNT_TTL}


def _write_restore(part: items.RestoreRequest) -> tuple[str, dict[str, Any]]:
    return "put_restore_request", {"job_id": part.job_id, "at": part.at}


def _write_identity(part: items.Identity) -> tuple[str, dict[str, Any]]:
    return "put_identity", {"identity": part.identity.encode(), "remaining": _LONG}


_WRITERS: dict[type[msgspec.Struct], Callable[[Any], tuple[str, dict[str, Any]]]] = {
    items.AskPlace: _write_place,
    items.AskCost: _write_cost,
    items.Owner: _write_owner,
    items.Deleted: _write_deleted,
    items.Pause: _write_pause,
    items.Past: _write_past,
    items.RestoreRequest: _write_restore,
    items.Identity: _write_identity,
}
