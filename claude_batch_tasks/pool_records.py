"""Plain structs of pools and of the asks in them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec


class PoolSearch(msgspec.Struct, kw_only=True):
    """The search for the one ask for which the API refuses a create. The pool that has it is the one that is tried."""

    other: str | None = None
    """The parked pool that has the ask if the create of this one succeeds; None: this one is all that is left."""
    rest: str | None = None
    """The parked pool with asks that are none of those searched; it is sealed when the search ends."""
    found: int = 0
    """How many refused asks of the pool that all of these were in have been found so far."""
    known: bool = False
    """Whether it is known that one of its asks is refused: it is halved before it is sent."""


class PoolRecord(msgspec.Struct, kw_only=True):
    """A pool of asks: an open one takes more, a closed one becomes a job of the same id. Times are epoch seconds."""

    name: str = "default"
    client: str = "default"
    queue: str | None = None
    route: str | None = None
    """Where its messages are sent, as ``routing`` encodes it; None: to ``queue``."""
    options: dict[str, Any] = {}
    """The options of the job, as ``run_batch`` takes them; types are import paths."""
    mode: Literal["batch", "messages"] = "batch"
    """``messages``: its requests go through the Messages API, and no batch is created."""
    deadline: float | None = None
    """The first moment by which an answer of it is wanted."""
    opened_at: float = 0.0
    starts_at: float = 0.0
    """Before when it becomes no job, also if it is full."""
    due_at: float = 0.0
    """When it is closed if it is not full before."""
    count: int = 0
    """Number of asks in it, also of those that were withdrawn."""
    withdrawn: int = 0
    size: int = 0
    """Bytes of its requests in a create."""
    state: Literal["open", "closed", "parked", "sealed", "divided"] = "open"
    """``closed``: it is to become a job. ``parked``: another pool has to be tried first. ``sealed``: it is a job.
    ``divided``: its create was refused, and its asks are in other pools."""
    search: PoolSearch | None = None
    """The search for an ask that the API refuses, if it is a part of a pool whose create was refused."""


class Ask(msgspec.Struct, kw_only=True):
    """One request that is asked by itself."""

    id: str
    """The id of its Celery task, and its custom_id in the job."""
    params: bytes
    """Its params, as JSON."""
    expires_at: float | None = None
    """When it is too late for it to be sent, epoch seconds."""
    canvas: str = "{}"
    """As ``AskPlace`` has it, and the two after it. These are not among what a pool stores."""
    headers: str | None = None
    reserved: int = 0


class AskPlace(msgspec.Struct, kw_only=True):
    """Where an ask is, and how it ended."""

    job_id: str
    position: int
    """Its position in the pool, from 0."""
    asked_at: float
    state: Literal["waiting", "succeeded", "failed", "revoked"] = "waiting"
    canvas: str = "{}"
    """What follows it in the caller's Celery canvas, as ``message_chain.encode_canvas`` encodes it."""
    headers: str | None = None
    """The message headers that it was sent with beside Celery's own, as ``message_headers`` encodes them."""
    reserved: int = 0
    """Nano-dollars that it reserves of the cost limit of its pool's name."""


class AskEnd(NamedTuple):
    """How an ask ended."""

    ask_id: str
    state: Literal["succeeded", "failed", "revoked"]


class PoolLimits(NamedTuple):
    """What closes a pool, and what an ask may reserve of the pool's cost limit."""

    max_requests: int
    max_bytes: int
    max_wait: float
    """Seconds."""
    max_cost: int | None = None
    """Nano-dollars of all asks of the pool's name in one window; None: no limit."""
    window: float = 86_400.0
    """Seconds."""
