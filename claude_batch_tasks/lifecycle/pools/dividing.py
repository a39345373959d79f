"""The search for the asks because of which the API refuses a create, so that they alone fail.

One ask is assumed to be at fault. Half of the asks are tried by a create, and the others are parked. If it succeeds,
the ask is among the others; if it is refused, it is among those that were tried, and the others are to be sent in any
case. What is known to have it is halved again without a create, until it is alone: its create gets the API's own
message. Then all that were found to be good are created together; if that is refused, another search begins. Nothing of
a refused create is stored or billed at Anthropic, and each ask is in one pool at any moment, so none is paid twice.

A pool that is parked is sealed after a while even if nobody ends the search: that costs a create at most.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn, Protocol

import msgspec
from celery.exceptions import Ignore

from claude_batch_tasks import errors, rules
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.pool_records import PoolRecord, PoolSearch
from claude_batch_tasks.records import Unit
from claude_batch_tasks.rules import refused_creates
from claude_batch_tasks.steps import Step, credentials
from claude_batch_tasks.store import Clock, HasPools, history

log = get_logger(__name__)


class _Pools(HasPools, Clock, Protocol):
    """What it takes to divide a pool."""


class _Plan:
    """The pools by which one is replaced.

    Args:
        job_id: the id of the pool that is replaced. The ids of the others follow from it, so that a worker that repeats
            this makes the same.
        pool: its record.
        now: the time by the store's clock.
    """

    def __init__(self, job_id: str, pool: PoolRecord, now: float) -> None:
        self._job_id, self._pool, self._now = job_id, pool, now
        self.parts: dict[str, tuple[PoolRecord, Sequence[int]]] = {}

    def name_part(self, name: str) -> str:
        """Return the id of a part."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._job_id} {name}"))

    def add_due(self, name: str, positions: Sequence[int], search: PoolSearch | None) -> None:
        """Add a part that becomes a job now."""
        record = _change(self._pool, state="closed", due_at=self._now, search=search)
        self.parts[self.name_part(name)] = record, positions

    def add_parked(self, name: str, positions: Sequence[int], search: PoolSearch | None) -> None:
        """Add a part that waits until another was tried."""
        record = _change(self._pool, state="parked", due_at=self._now + refused_creates.LONGEST_SEARCH, search=search)
        self.parts[self.name_part(name)] = record, positions


# -- a create was refused


def may_be_divided(step: Step, error: errors.BatchTasksError) -> bool:
    """Return whether a refused create is about some of several asks."""
    job = step.job
    return (
        job.pool is not None
        and job.requests > 1
        and job.batches == 1
        and not step.batch.rounds
        and isinstance(error, errors.PermanentError)
        and error.error_type is not None
        and rules.concerns_request(error.status)
        and not credentials.concerns_account(error)
        and not refused_creates.concerns_all(str(error))
    )


def set_apart(step: Step, error: errors.BatchTasksError) -> None:
    """Replace the pool of a job whose create was refused by smaller ones; return only if its asks are not stored.

    Raises:
        Ignore: it was replaced, and the job is gone.
        LeaseLost: another worker has taken over.
    """
    if len(_find_positions(step.store, step.unit.job_id)) != step.job.requests:
        return
    # From here on no create of this job is sent any more, whatever happens to this worker.
    step.update_record(state="unsent", refusal=[type(error).__name__, list(error.args)])
    finish_division(step)


def is_being_divided(step: Step) -> bool:
    """Return whether the create of this batch was refused, and a worker has ended before its asks were set apart."""
    record = step.batch
    return step.job.pool is not None and record.state == "unsent" and record.refusal is not None and not record.rounds


def finish_division(step: Step) -> NoReturn:
    """Replace the pool of a job whose create was refused by smaller ones, and delete the job; it may be repeated.

    Raises:
        Ignore: always; the message of the step ends.
    """
    job_id, store = step.unit.job_id, step.store
    assert step.batch.refusal is not None
    error = errors.rebuild_error(*step.batch.refusal)
    store.pools.finish_sealing(job_id)  # who made the job may have died before
    pool = store.pools.read_pool(job_id)
    if pool is not None and pool.state == "sealed":
        parts = _divide_refused(store, job_id, pool, error, step.job.nonce)
        text = "job %s: its create was refused, and its asks are set apart in %d jobs: %s"
        log.warning(text, job_id, parts, error, extra=history.fields(Unit(job_id), "divided", job=step.job))
    store.storage.delete_job(job_id, remember=True)
    with suppress(Exception):  # a courtesy: the progress of a job that is gone
        step.task.app.AsyncResult(job_id).forget()
    step.released = True
    raise Ignore("its asks are in other jobs")


def _divide_refused(store: _Pools, job_id: str, pool: PoolRecord, error: errors.BatchTasksError, nonce: str) -> int:
    """Replace a pool whose create was refused; return by how many others."""
    search = pool.search or PoolSearch()
    positions = _find_positions(store, job_id)
    named = refused_creates.find_named(str(error), nonce, len(positions))
    # Those that a search has left out are good as far as it is known.
    if (rest := _join_parked(store, search)) is not None and (named or search.found >= refused_creates.MOST_SEARCHES):
        _release(store, rest, PoolSearch(found=search.found))
        rest = None
    plan = _Plan(job_id, pool, store.now())
    if named:
        _plan_named(plan, positions, named, search)
    elif search.found >= refused_creates.MOST_SEARCHES or getattr(error, "status", None) == 413:
        # Where many are at fault, or all together are too large, both halves are tried.
        for name, half in zip(("tried", "other"), refused_creates.halve(positions, swap=False), strict=True):
            plan.add_due(name, half, PoolSearch(rest=rest if name == "tried" else None, found=search.found))
    else:
        _plan_halves(plan, positions, PoolSearch(rest=rest, found=search.found))
    store.pools.divide(job_id, plan.parts)
    return len(plan.parts)


def _plan_named(plan: _Plan, positions: Sequence[int], named: Sequence[int], search: PoolSearch) -> None:
    """Give each ask that the API names a pool of its own, and all others one; where many are at fault, two.

    The API may name one at a time: each half is created without waiting for the other.
    """
    for number in named:
        plan.add_due(f"named {number}", [positions[number]], None)
    apart = set(named)
    others = [position for number, position in enumerate(positions) if number not in apart]
    found = search.found + len(named)
    parts = refused_creates.halve(others, swap=False) if found > refused_creates.MOST_SEARCHES else (others, [])
    for name, part in zip(("others", "more"), parts, strict=True):
        if part:
            plan.add_due(name, part, PoolSearch(found=found))


def _plan_halves(plan: _Plan, positions: Sequence[int], search: PoolSearch) -> None:
    """Have one half tried, and the other wait for that."""
    tried, other = refused_creates.halve(positions, swap=bool(int(plan.name_part("tried")[-1], 16) % 2))
    plan.add_parked("other", other, PoolSearch(found=search.found))
    plan.add_due("tried", tried, _change_search(search, other=plan.name_part("other")))


# -- a pool of a search is to become a job


def halve_known(store: _Pools, job_id: str, pool: PoolRecord) -> bool:
    """Halve a pool that has an ask which is refused, before anything is made of it; return False if there is only one.

    Args:
        pool: its record, of a pool that is closed.
    """
    search = pool.search
    if search is None or not search.known or len(positions := _find_positions(store, job_id)) < 2:
        return False
    plan = _Plan(job_id, pool, store.now())
    _plan_halves(plan, positions, PoolSearch(rest=search.rest, found=search.found))
    store.pools.divide(job_id, plan.parts)
    return True


def halve_unfit(store: _Pools, job_id: str, pool: PoolRecord) -> bool:
    """Halve a pool of which no job can be made, because of some of its asks; return False if there is only one.

    Args:
        pool: its record, of a pool that is closed.
    """
    if len(positions := _find_positions(store, job_id)) < 2:
        return False
    release_waiting(store, pool)
    plan = _Plan(job_id, pool, store.now())
    for name, half in zip(("first", "second"), refused_creates.halve(positions, swap=False), strict=True):
        plan.add_due(name, half, None)
    store.pools.divide(job_id, plan.parts)
    return True


def release_waiting(store: _Pools, pool: PoolRecord) -> None:
    """Have the pools that wait for this one become jobs, because nothing is learned from it."""
    if (search := pool.search) is not None:
        for waiting in (search.other, search.rest):
            if waiting is not None:
                _release(store, waiting, PoolSearch(found=search.found))


# -- a create of a search has ended otherwise


def finish_create(step: Step) -> None:
    """Carry on the search, if the pool is a part of one, after its batch was created or given up; forget its asks.

    The asks are needed again if a batch that was found by search is another's: the create may still be refused.
    """
    store, job_id = step.store, step.unit.job_id
    pool = store.pools.read_pool(job_id)
    if pool is not None and pool.search is not None:
        _carry_on(step, pool, pool.search)
    if not step.batch.provisional:
        store.pools.drop_asks(job_id)


def _carry_on(step: Step, pool: PoolRecord, search: PoolSearch) -> None:
    store, record = step.store, step.batch
    if record.batch_id is not None and not record.provisional:
        if search.other is not None:
            _release(store, search.other, PoolSearch(rest=search.rest, found=search.found, known=True))
        elif search.rest is not None:
            _release(store, search.rest, PoolSearch(found=search.found))
    elif step.job.requests == 1 and _was_refused(step):  # this is the one; all others are good
        if (rest := _join_parked(store, search)) is not None:
            _release(store, rest, PoolSearch(found=search.found + 1))
    else:
        release_waiting(store, pool)


def _was_refused(step: Step) -> bool:
    """Return whether the batch has failed because the API does not accept its request."""
    if step.batch.error is None:
        return False
    error = errors.rebuild_error(*step.batch.error)
    return isinstance(error, errors.PermanentError) and rules.concerns_request(error.status)


# -- the store's part


def _join_parked(store: _Pools, search: PoolSearch) -> str | None:
    """Put the asks of a search that are good together; return the pool that has them, parked; None: there are none."""
    waiting = [job_id for job_id in (search.rest, search.other) if job_id is not None and _is_parked(store, job_id)]
    if len(waiting) > 1:
        store.pools.merge(waiting[0], waiting[1:])
        # It is there still if the first was sealed meanwhile.
        _release(store, waiting[1], PoolSearch(found=search.found))
    return waiting[0] if waiting else None


def _is_parked(store: _Pools, job_id: str) -> bool:
    """Return whether a pool still waits for the end of a search: it does so for a while at most."""
    pool = store.pools.read_pool(job_id)
    return pool is not None and pool.state == "parked"


def _release(store: _Pools, job_id: str, search: PoolSearch) -> None:
    pool = store.pools.read_pool(job_id)
    if pool is not None and pool.state == "parked":
        store.pools.release(job_id, _change(pool, state="closed", due_at=store.now(), search=search))


def _find_positions(store: _Pools, job_id: str) -> list[int]:
    """Return the positions of those asks of a pool that are stored, in their order: that of the job's requests."""
    every = (ask for asks in store.pools.read_asks(job_id, params=False) for ask in asks)
    return [position for position, ask in enumerate(every) if ask is not None]


def _change(pool: PoolRecord, **changes: object) -> PoolRecord:
    return msgspec.structs.replace(pool, **changes)


def _change_search(search: PoolSearch, **changes: object) -> PoolSearch:
    return msgspec.structs.replace(search, **changes)
