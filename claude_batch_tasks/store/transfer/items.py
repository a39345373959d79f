"""What a store has of its jobs, in parts that every store can read and write: see ``interface.Transfer``.

Each part is small, and says by itself where it belongs, so that a job's size does not matter. The job, or the pool, is
the first; chunks of one list, events and asks follow one another by their numbers. Others may come in any order.
Records are fields with their values as JSON text: what a later release wrote stays as it is. Chunks are bytes as they
are stored, compressed and perhaps encrypted. Times are epoch seconds by the store's clock. ``remaining`` is how many
seconds something is still stored; None: it does not expire.

What changes only while something runs is not among them: owners of leases, rate limits, figures over all jobs.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

#: As if so much was spent, nano-dollars: where there is a limit, nothing more is paid for.
UNKNOWN_COST: Final = 1 << 60


class _Item(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """Base of all of them."""


class Job(_Item, frozen=True, kw_only=True):
    """The record of a job. It is the first part of a job."""

    record: dict[str, str]
    remaining: float | None = None
    forgotten: int = 0
    """Events that were removed from the middle of its history."""


class Batch(_Item, frozen=True, kw_only=True):
    """The record of a batch."""

    batch: int
    record: dict[str, str]


class UnitState(_Item, frozen=True, kw_only=True):
    """The place of a unit in its life and in the schedule."""

    batch: int | None = None
    """None: it is the job."""
    lane: int | None = None
    position: int = -1
    step_failures: int = 0
    step_failure: str | None = None
    """In JSON."""
    due_at: float | None = None
    waiting: bool = False
    """Whether its message is made when it is due."""
    resent: int = 0
    resent_at: float | None = None
    missed: float | None = None
    account: str | None = None
    """The account among whose batches in flight it is listed."""
    flight: str | None = None
    """How it is listed there, in JSON."""
    record: dict[str, str] = {}
    """The record of a sender, and the like of a job's last step; a batch has its own."""


class Event(_Item, frozen=True, kw_only=True):
    """An event of a job's history, in JSON."""

    number: int
    """From 0, over those that are left."""
    event: str


class Money(_Item, frozen=True, kw_only=True):
    """What a job has spent and reserved, nano-dollars; ``UNKNOWN_COST``: the store has lost that."""

    spent: int = 0
    reserved: int = 0
    fallback_spent: int = 0
    fallback_reserved: int = 0


class Turn(_Item, frozen=True, kw_only=True):
    """What one round of a batch reserves, or what it has cost if that is known, nano-dollars."""

    batch: int
    turn: int
    amount: int
    settled: bool = False


class Bits(_Item, frozen=True, kw_only=True):
    """A bit for each of the requests of a job, or of a batch."""

    name: Literal["delivered", "undelivered", "part", "ended", "announced"]
    """``part``: of the calls of one of the tasks of ``on_result``; ``ended``: of asks."""
    batch: int | None = None
    part: int | None = None
    """Which of the tasks, from 0."""
    bits: bytes
    """The first request is the highest bit of the first byte; without zero bytes at the end, and not empty."""


class RequestChunk(_Item, frozen=True, kw_only=True):
    """Some of the requests of a batch: what is sent, their custom_ids, and how many they are.

    None: the store has lost it.
    """

    batch: int
    number: int
    body: bytes | None = None
    ids: bytes | None = None
    size: int | None = None


class IndexPart(_Item, frozen=True, kw_only=True):
    """A part of the index of custom_ids: of the job's own, or of that of a download."""

    number: int
    entries: bytes
    batch: int | None = None
    attempt: int | None = None


class RowChunk(_Item, frozen=True, kw_only=True):
    """Some of the rows of a download."""

    batch: int
    attempt: int
    number: int
    rows: bytes


class Download(_Item, frozen=True, kw_only=True):
    """What stands beside the rows of a download; None: the store does not have it."""

    batch: int
    attempt: int
    pieces: bytes | None = None
    eligible: bytes | None = None
    again: bytes | None = None


class Taken(_Item, frozen=True, kw_only=True):
    """Which requests of a batch a retry took, by the retry's number."""

    batch: int
    retry: int
    bits: bytes


class ToSend(_Item, frozen=True, kw_only=True):
    """A request that waits to be sent through the Messages API."""

    batch: int
    position: int
    due_at: float


class Sent(_Item, frozen=True, kw_only=True):
    """A request that was sent through the Messages API, and has no outcome yet."""

    batch: int
    position: int
    lane: int
    reserved: int | None = None
    """Nano-dollars."""


class Refused(_Item, frozen=True, kw_only=True):
    """How often the Messages API refused a request."""

    batch: int
    position: int
    times: int


class GivenUp(_Item, frozen=True, kw_only=True):
    """A request whose answer counts as lost."""

    batch: int
    position: int


class Outcome(_Item, frozen=True, kw_only=True):
    """What became of a request that was sent through the Messages API."""

    batch: int
    position: int
    outcome: bytes


class Pool(_Item, frozen=True, kw_only=True):
    """A pool of asks: the first part of what is no job yet, or a part of the job that was made of it."""

    record: str
    """As it was opened, in JSON."""
    key: str
    """What its asks have in common."""
    state: str
    count: int
    withdrawn: int
    size: int
    opened_at: float
    due_at: float
    deadline: float | None = None
    sealing: int = 0
    sent: int = 0
    failures: int = 0
    next_at: float | None = None
    """When the message that seals it is due."""
    dropped: bool = False
    """Whether its asks were removed, since the batch that has them was created."""
    remaining: float | None = None


class PoolAsk(_Item, frozen=True, kw_only=True):
    """An ask in a pool. Of one that was withdrawn, or moved to another pool, there is none."""

    number: int
    ask_id: str
    size: int
    expires_at: float | None = None
    params: bytes


class AskPlace(_Item, frozen=True, kw_only=True):
    """The place of an ask, and how it ended."""

    ask_id: str
    job_id: str
    position: int
    asked_at: float
    state: str = "waiting"
    canvas: str | None = None
    headers: str | None = None
    reserved: int = 0
    budget: str | None = None
    """The cost limit of which it reserves something: ``SECONDS:START:POOL``."""
    withdrawn: bool = False
    remaining: float | None = None


class AskCost(_Item, frozen=True, kw_only=True):
    """What all asks of a pool's name have reserved and spent in a window of time, nano-dollars."""

    budget: str
    """``SECONDS:START:POOL``."""
    amount: int
    remaining: float | None = None


class Owner(_Item, frozen=True, kw_only=True):
    """The batch whose a batch at Anthropic is."""

    batch_id: str
    job_id: str
    batch: int | None
    remaining: float | None = None


class Deleted(_Item, frozen=True, kw_only=True):
    """A job that a user deleted, so that its late messages end quietly."""

    job_id: str
    remaining: float | None = None


class Pause(_Item, frozen=True, kw_only=True):
    """Until when no calls of a name are made."""

    name: str
    until: float


class Past(_Item, frozen=True, kw_only=True):
    """Requests and seconds of past batches, the last first: of an account, or of a kind."""

    account: str | None = None
    kind: str | None = None
    batches: list[tuple[int, float]]


class RestoreRequest(_Item, frozen=True, kw_only=True):
    """A job of which something is to be downloaded again, and when that was requested."""

    job_id: str
    at: float


class Identity(_Item, frozen=True, kw_only=True):
    """The name of the store, by which it knows its objects in an object store: the new store has them from now on."""

    identity: str


#: The parts of one job, or of a pool that is none yet.
JobItem: TypeAlias = (
    Job
    | Batch
    | UnitState
    | Event
    | Money
    | Turn
    | Bits
    | RequestChunk
    | IndexPart
    | RowChunk
    | Download
    | Taken
    | ToSend
    | Sent
    | Refused
    | GivenUp
    | Outcome
    | Pool
    | PoolAsk
)

#: What all jobs share.
SharedItem: TypeAlias = AskPlace | AskCost | Owner | Deleted | Pause | Past | RestoreRequest | Identity


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What says that a store is not to be used: its jobs are being copied into it, or were moved to another."""

    state: Literal["filling", "moved"]
    other: str
    """The address of the other store."""
    at: float
    replaces: bool = False
    """Whether the store has jobs that were moved from it before, and are moved back into it."""
