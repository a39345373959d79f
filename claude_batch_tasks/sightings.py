"""Whether a batch exists: an unanswered create is searched for, a 404 is judged, what proved to be another's is let go.

Unknown is not absent: only complete listings of the account may say that a batch is not there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator

from claude_batch_tasks import api, errors, policy
from claude_batch_tasks.step import Step, clock
from claude_batch_tasks.store import BatchRecord, Unit

log = logging.getLogger(__name__)


def reconcile(step: Step) -> bool:
    """A create went out and no answer came back: whether the batch it made was found.

    False: it was never stored, and may be sent again.

    Raises:
        CreateUnresolved: it cannot be told yet.
    """
    record, settings = step.batch, step.settings
    assert record.intent_at is not None
    if record.ambiguous_at is None:
        step.record(ambiguous_at=time.time())
    assert record.ambiguous_at is not None
    looked_at = time.time()
    undecided = 0
    since = record.intent_at - settings.clock_skew
    # The oldest first: ours was made soon after the intent, a stranger's of the same size may come at any time.
    listed = list(_candidates(api.list_since(step.client, since, timeout=settings.timeout), record))
    for seen in reversed(listed):
        holder = step.store.claim_batch(seen.id, owner(step.unit))
        if holder == owner(step.unit):
            created(step, seen, provisional=True)
            log.warning("%s: adopted by search; its results will confirm it", step.where)
            return True
        undecided += _is_provisional(step, holder)
    step.record(create_looks=record.create_looks + 1)
    settled = looked_at - record.ambiguous_at >= settings.create_settle
    if undecided or not settled or record.create_looks < settings.listings:
        raise errors.CreateUnresolved(
            f"it is not known whether the create at {clock(record.intent_at)} was stored; "
            f"{record.create_looks} listings did not show it"
        )
    log.warning("%s: the create at %s was never stored", step.where, clock(record.intent_at))
    step.record(intent_at=None, ambiguous_at=None)
    return False


def _candidates(listed: Iterable[api.Batch], record: BatchRecord) -> Iterator[api.Batch]:
    for seen in listed:
        if seen.may_hold(record.count) and seen.id not in record.rejected_ids:
            yield seen


def _is_provisional(step: Step, holder: str) -> bool:
    """Whether the batch another job adopted may still prove to be ours."""
    other_job, _, number = holder.rpartition("/")
    other = step.store.batch(other_job, int(number))
    return other is not None and other.provisional


def created(step: Step, seen: api.Batch, *, provisional: bool = False) -> None:
    """The batch exists under this id; ``provisional``: found by search, until the results confirm it."""
    step.record(
        state="in_progress",
        # An adopted batch may prove to be a stranger's; then the search goes on from the same moment.
        intent_at=step.batch.intent_at if provisional else None,
        ambiguous_at=None,
        batch_id=seen.id,
        provisional=provisional,
        created_at=seen.created_at.timestamp(),
        expires_at=seen.expires_at.timestamp() if seen.expires_at else None,
        sighting=time.time(),
        absences=0,
        create_not_found=0,
    )


def owner(unit: Unit) -> str:
    """How the ledger names whose a batch id is."""
    return f"{unit.job_id}/{unit.batch}"


def not_found(step: Step, exc: errors.NotFoundError) -> str:
    """A 404 on retrieve or results: come back, unless the batch is lost; then what it leads to."""
    record, settings, now = step.batch, step.settings, time.time()
    assert record.created_at is not None
    assert record.batch_id is not None
    step.record(not_found=record.not_found + 1)
    sighting = record.sighting or record.created_at

    def means() -> str:
        return policy.not_found_means(
            now=now,
            created_at=record.created_at or now,
            last_sighting=sighting,
            grace=settings.not_found_grace,
            absences=record.absences,
            absences_limit=settings.listings,
        )

    meaning = means()
    if meaning == "ask_list":
        since = record.created_at - settings.clock_skew
        listed = api.list_since(step.client, since, timeout=settings.timeout)
        if any(seen.id == record.batch_id for seen in listed):
            step.record(sighting=time.time(), absences=0)
            raise errors.NotFoundError(f"{exc}, but the batch is listed", *exc.args[1:])
        step.record(absences=record.absences + 1)
        meaning = means()
    if meaning == "lost" and record.provisional:
        return give_back(step, f"{exc}; it is in no listing")
    if meaning == "lost":
        return without_batch(
            step,
            "lost",
            errors.BatchLost(
                f"{exc}; batch {record.batch_id} was last seen at {clock(sighting)} "
                f"and is missing from {record.absences} complete listings",
                *exc.args[1:],
            ),
        )
    ago = max(now - sighting, 0)
    raise errors.NotFoundError(f"{exc}; seen {ago:.0f} s ago, so taken for propagation delay", *exc.args[1:])


def without_batch(step: Step, state: str, error: errors.ApiError) -> str:
    """There is no batch to wait for: its requests fall back, or the job fails."""
    log.warning("%s: %s: %s", step.where, state, error)
    if step.settings.fallback == "off":
        return step.fail(error)
    count = step.batch.count
    outcome = {"type": "errored", "error": {"type": error.error_type or "not_found_error", "message": str(error)}}
    # Nothing in the batch has a result: every request is eligible.
    step.record(state=state, outcome=outcome, counts={"errored": count}, eligible=count)
    return f"{state}: {error}"


def give_back(step: Step, why: str) -> str:
    """The batch found by search is somebody else's: let go of it. ``fetch_results`` then begins another turn."""
    record = step.batch
    assert record.batch_id is not None
    log.warning("%s: %s; giving the batch back", step.where, why)
    foreign = record.batch_id
    step.record(
        state="creating",
        rejected_ids=[*record.rejected_ids, foreign],
        batch_id=None,
        provisional=False,
        ambiguous_at=time.time(),
        create_looks=0,
        attempt=0,
        counts={},
        turn=record.turn + 1,
    )
    step.store.release_batch(foreign)
    return f"gave {foreign} back: {why}"
