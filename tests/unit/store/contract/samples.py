"""What the tests of a store share: jobs to put into it, and callers that come at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

import msgspec

from claude_batch_tasks.pool_records import Ask, AskPlace, PoolLimits, PoolRecord
from claude_batch_tasks.records import (
    BatchRecord,
    Flight,
    HistoryEvent,
    JobRecord,
    Need,
    Taken,
    Unit,
    WorkerPresence,
)
from claude_batch_tasks.store import Store
from claude_batch_tasks.wire.batch_requests import Piece

OpenStore = Callable[[], Store]
PassTime = Callable[[float], None]
Contents = Callable[[], set[str]]

JOB = "job-1"
NONCE = "abc"
BATCH, OTHER_BATCH = Unit(JOB, 0), Unit(JOB, 1)
SENDER, OTHER_SENDER = Unit(JOB, 0, 0), Unit(JOB, 0, 1)
ACCOUNT = "a1b2"
PACE = f"{ACCOUNT}:messages:claude-x"
#: Seconds that no test takes.
LONG = 600.0

#: What a download that has seen nothing leaves beside its rows.
NO_ROWS: dict[str, Any] = {"pieces": b"", "eligible_places": b""}

#: Callers at the same moment, each with connections of its own.
CALLERS = 8

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


def job_record(**own: Any) -> JobRecord:
    return JobRecord(**{"nonce": NONCE, "requests": 4, "batches": 2, "submitted_at": 1.5, **own})


def batch_record(**own: Any) -> BatchRecord:
    return BatchRecord(**{"first": 0, "count": 2, "body_bytes": 100, **own})


def body_of(*texts: str) -> bytes:
    return b",".join(b'{"custom_id":"%s","params":%s}' % (t.encode(), msgspec.json.encode({"t": t})) for t in texts)


def make_chunk(batch: int, *custom_ids: str) -> Piece:
    return Piece(batch, list(custom_ids), body_of(*custom_ids))


def create_job(
    store: Store, record: JobRecord, batches: Sequence[BatchRecord], *chunks: Piece, job_id: str = JOB
) -> bool:
    """Stage these chunks, or one for each batch, and create the job of them."""
    store.payloads.stage_requests(
        job_id, record.nonce, chunks or [make_chunk(number, "a") for number in range(len(batches))]
    )
    store.payloads.stage_index(job_id, record.nonce, [(7, b"index")])
    return store.jobs.create_job(job_id, record, batches, LONG)


def create_staged_job(store: Store) -> str:
    """Create a job of two batches of two requests, of what was staged."""
    chunks = [make_chunk(number, f"a{number}", f"b{number}") for number in range(2)]
    assert create_job(store, job_record(), [batch_record(), batch_record(first=2)], *chunks)
    return JOB


def create_bare_job(store: Store, job_id: str, **own: Any) -> str:
    """Create a job of one batch, of which nothing was staged."""
    record = job_record(**{"nonce": "n", "requests": 1, "batches": 1, "state": "running", **own})
    batches = [batch_record(first=number, count=1) for number in range(record.batches)]
    assert store.jobs.create_job(job_id, record, batches, LONG, staged=False)
    return job_id


def read_job(store: Store, job_id: str = JOB) -> JobRecord:
    record = store.jobs.read_job(job_id)
    assert record is not None
    return record


def read_batch(store: Store, unit: Unit = BATCH) -> BatchRecord:
    assert unit.batch is not None
    record = store.records.read_batch(unit.job_id, unit.batch)
    assert record is not None
    return record


def make_event(number: int = 0) -> HistoryEvent:
    at = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=number)
    return HistoryEvent(at=at, event="retry", batch=1, text=f"entry {number}", details={"countdown": 1.5})


def make_presence(hostname: str = "celery@a", **own: Any) -> WorkerPresence:
    at = datetime(2026, 1, 1, tzinfo=timezone.utc)
    known: dict[str, Any] = {"queues": ("celery",), "version": "9.9", "started_at": at, "last_seen": at, **own}
    return WorkerPresence(hostname=hostname, **known)


def make_flight(number: int = 0, **own: Any) -> Flight:
    known: dict[str, Any] = {"created_at": 100.0, "expires_at": None, "requests": 7, "deadline": None}
    return Flight(batch_id=f"msgbatch_{number}", poll_min=5.0, poll_max=120.0, **{**known, **own})


def park_batch(store: Store, number: int, due_at: float, *, in_flight: bool = False, **own: Any) -> Unit:
    """Return the batch of a job of its own, which waits until then at position 6."""
    unit = Unit(create_bare_job(store, f"job:{number}"), 0)
    store.leases.acquire_lease(unit, 5, "me", LONG)
    listed: dict[str, Any] = {"account": ACCOUNT, "flight": make_flight(number, **own)} if in_flight else {}
    assert store.leases.park_unit(unit, "me", 6, due_at, failures=2, **listed)
    return unit


def take_request(
    store: Store,
    position: int = 0,
    sender: Unit = SENDER,
    *,
    pace: str = PACE,
    tokens: int = 10,
    least: int | None = 1,
    most: int | None = 2,
    ttl: float = LONG,
    cap: int = 64,
    limit: int | None = None,
    total: int | None = None,
    owner: str = "me",
) -> Taken:
    return store.message_queue.take_request(
        sender, owner, position, pace, Need(tokens, least, most), ttl, cap=cap, limit=limit, total=total
    )


def answer_call(store: Store, position: int, taken: Taken, sender: Unit = SENDER, **own: Any) -> None:
    """Record an answer to a call, which says nothing in particular."""
    known: dict[str, Any] = {"limits": {}, "refused": False, "hold": None, "cap": 64}
    pace = own.pop("pace", PACE)
    store.message_queue.record_answer(sender, position, pace, taken.mark, **{**known, **own})


def live(store: Store, *, attempts: int = 1) -> None:
    """Write everything that a job of two batches may have; the last download is published."""
    store.leases.acquire_lease(Unit(JOB), 0, "me", LONG)
    store.jobs.update_job(JOB, state="running")
    for batch in range(2):
        unit, sender = Unit(JOB, batch), Unit(JOB, batch, 1)
        store.leases.acquire_lease(unit, 0, "me", LONG)
        store.leases.acquire_lease(sender, 0, "me", LONG)
        store.budget.reserve_quota(JOB, batch, 1, 10)
        store.budget.reserve_cost(unit, 0, 1, 2, 100)
        store.message_queue.add_requests(JOB, batch, range(4))
        for position in range(3):
            assert take_request(store, position, sender, limit=100, total=100).state == "taken"
        store.message_queue.save_outcome(sender, 0, b"x")
        store.message_queue.put_back(sender, 1, 0.0, 9)
        store.results.mark_announced(JOB, batch, [0])
        for attempt in range(1, attempts + 1):
            store.leases.write_record(unit, "me", attempt=attempt)
            store.results.write_rows(JOB, batch, attempt, [b"row"])
        store.results.publish_rows(unit, "me", attempts, **NO_ROWS)
    for number in range(201):
        store.history.append_event(JOB, make_event(number))


LIMITS = PoolLimits(max_requests=1000, max_bytes=1_000_000, max_wait=60.0)


def add_ask(
    store: Store,
    ask_id: str,
    *,
    key: str = "key",
    pool: PoolRecord | None = None,
    new_id: str = "",
    size: int = 100,
    limits: PoolLimits = LIMITS,
    params: bytes = b'{"max_tokens":1}',
    **own: Any,
) -> AskPlace:
    """Ask something; the pool that it may open has the name of the ask."""
    ask = Ask(id=ask_id, params=params, **own)
    return store.pools.add_ask(key, pool or PoolRecord(), new_id or f"pool-of-{ask_id}", ask, size, limits)


def call_at_once(
    open_store: OpenStore, act: Callable[[Store, _Item], _Answer], items: Iterable[_Item]
) -> list[_Answer]:
    """Return what ``act`` returns for each item, of callers that begin together, each with a store that it opened."""
    shares: list[list[tuple[int, _Item]]] = [[] for _ in range(CALLERS)]
    for number, item in enumerate(items):
        shares[number % CALLERS].append((number, item))
    stores = [open_store() for _ in shares]
    for store in stores:
        store.check_schema()
    ready = threading.Barrier(CALLERS)

    def work(store: Store, share: list[tuple[int, _Item]]) -> list[tuple[int, _Answer]]:
        ready.wait()
        return [(number, act(store, item)) for number, item in share]

    with ThreadPoolExecutor(CALLERS) as pool:
        answers = dict(answer for some in pool.map(work, stores, shares) for answer in some)
    return [answers[number] for number in sorted(answers)]
