"""The search for a batch after a create with an unclear answer, or with none.

Unknown is not absent: only complete list calls of the account may prove that a batch does not exist.
"""

from __future__ import annotations

import logging
from itertools import chain, islice
from typing import Literal

from claude_batch_tasks import api, errors, metrics, rules
from claude_batch_tasks.formatting import format_time
from claude_batch_tasks.lifecycle import creation, gateway_errors, resubmission
from claude_batch_tasks.records import BatchRecord, JobRecord, Unit
from claude_batch_tasks.steps import Step, credentials
from claude_batch_tasks.wire import result_rows

#: A batch with so many rows, none of them ours, is another's.
_TELLING = 1000


def reconcile_create(step: Step) -> bool:
    """Return whether a create with an unclear answer made a batch, which was then found.

    False: the batch was never stored, and may be sent again.

    Raises:
        CreateUnresolved: it is not known yet whether a batch was stored.
        CreateUnconfirmed: the batch was not found, and must not be sent again.
        PermanentError: it was not found, and something in front of the API would refuse it again.
        BatchesUnsupported: nothing there lists batches.
        AccountChanged: it was not found, on what may be another account.
    """
    record, settings = step.batch, step.settings
    assert record.intent_at is not None
    started_at = step.now()
    begun = _begin_search(step, started_at)
    candidates = _find_candidates(step)
    # List calls on what may be another account are counted separately: they prove nothing.
    counted = "create_looks" if credentials.proves_absence(step) else "unidentified"
    last = started_at - begun >= settings.create_settle and getattr(record, counted) + 1 >= settings.listings
    found, undecided = _choose_candidate(step, candidates, last=last)
    if found:
        metrics.count("orphan_searches", found="batch")
        return True
    step.update_record(**{counted: getattr(record, counted) + 1})
    if undecided or not last or counted == "unidentified":
        metrics.count("orphan_searches", found="doubtful" if undecided else "nothing")
        raise errors.CreateUnresolved(_describe_search(step, unproven=last and counted == "unidentified"))
    metrics.count("orphan_searches", found="given_up")
    _give_up_search(step, started_at - begun)
    return False


def _begin_search(step: Step, now: float) -> float:
    """Return since when it is not known what became of the create."""
    record = step.batch
    if record.ambiguous_at is None:  # the worker that sent it died, or the job was resumed
        step.update_record(unanswered_at=record.unanswered_at or now, ambiguous_at=now)
    assert record.ambiguous_at is not None
    return record.ambiguous_at


def _find_candidates(step: Step) -> list[api.Batch]:
    try:
        return _list_candidates(step)
    except errors.ApiError as exc:
        gateway_errors.check_search(step, exc)
        raise


def _give_up_search(step: Step, searched_for: float) -> None:
    """Record that the create was never stored, unless it must not be sent again."""
    record = step.batch
    created_at = format_time(record.intent_at or 0.0)
    if step.settings.on_unresolved_create == "fail":
        raise errors.CreateUnconfirmed(
            f"the create at {created_at} was not answered, and {record.create_looks} list calls over "
            f"{searched_for:.0f} s did not show its batch; it is not sent again (on_unresolved_create)"
        )
    _check_refusal(step)
    text = f"the create at {created_at} never succeeded, and is sent again"
    step.record_event("unsent", text, level=logging.WARNING)
    # List calls were answered; the next create shows whether creates are.
    answered = {"refused_since": None} if record.refusal is None else {}
    step.update_record(intent_at=None, ambiguous_at=None, organization=None, workspace=None, **answered)


def _choose_candidate(step: Step, candidates: list[api.Batch], *, last: bool) -> tuple[bool, int]:
    """Recover the batch among these, if it is one of them; return whether it is, and how many may still be it.

    Args:
        last: no later search may find it.
    """
    undecided = 0
    for seen in candidates:
        holder = step.store.batch_ids.find_owner(seen.id)
        standing = _judge_candidate(step, seen.id, holder)
        if standing == "taken":
            continue
        proof = is_ours(step, seen)
        if proof is False:
            step.update_record(rejected_ids=[*step.batch.rejected_ids, seen.id])
        # A batch that was made at another time than the create may be ours if a clock is wrong. It is more likely that
        # of another job that is searching too, and is left to that job while there is time.
        elif proof or (standing == "free" and (last or _made_within(step, seen))):
            if _recover_batch(step, seen, sure=proof is True, instead_of=holder):
                return True, undecided
            undecided += 1
        else:
            undecided += standing == "doubtful"
    return False, undecided


def _describe_search(step: Step, *, unproven: bool) -> str:
    """Say what the search has found so far.

    Args:
        unproven: list calls did not show the batch often enough, but prove nothing.
    """
    record = step.batch
    text = (
        f"it is not known whether the create at {format_time(record.intent_at or 0.0)} succeeded; "
        f"{record.create_looks + record.unidentified} list calls did not show its batch"
    )
    if unproven:
        text += f"; {credentials.check_unproven(step, record.intent_at or 0.0, record.unidentified)}"
    return text


def _check_refusal(step: Step) -> None:
    """Raise the refusal of something in front of the API, unless it may still be temporary.

    A create whose refusal may still pass is sent again.

    Raises:
        PermanentError: the create is not sent again; nothing was created.
    """
    record = step.batch
    if record.refusal is None:
        return
    refusal = errors.rebuild_error(*record.refusal)
    assert isinstance(refusal, errors.PermanentError)
    refused_for = step.now() - (record.refused_since or 0.0)
    if rules.may_pass_by_itself(refusal.status) and refused_for < step.settings.proxy_error_grace:
        return
    text = f"{refusal}; {record.create_looks} list calls show that nothing was created"
    step.update_record(state="staged", intent_at=None, ambiguous_at=None, refusal=None)
    raise errors.PermanentError(text, *refusal.args[1:])


def search_again(step: Step) -> None:
    """Search for another batch if the one found by search still runs: it may be another's, and ours may have ended."""
    record = step.batch
    for seen in _list_candidates(step):
        if (
            seen.id == record.batch_id
            or _judge_candidate(step, seen.id, step.store.batch_ids.find_owner(seen.id)) == "taken"
        ):
            continue
        if (proof := is_ours(step, seen)) is not None:
            if proof:
                foreign = record.batch_id
                assert foreign is not None
                step.release_batch(foreign, rejected_ids=[*record.rejected_ids, foreign])
                _recover_batch(step, seen, sure=True)
                return
            step.update_record(rejected_ids=[*record.rejected_ids, seen.id])


def _list_candidates(step: Step) -> list[api.Batch]:
    """List the account's batches that may be this one, the likeliest first: the one created soonest after the intent.

    Because clocks differ, batches created before the intent follow, the latest first.
    """
    record, settings = step.batch, step.settings
    intent = record.intent_at or 0.0
    step.rate_limits.check_pause()
    with step.rate_limits.observe_call():
        since = intent - settings.clock_skew
        listed = api.list_since(step.client, since, timeout=settings.timeout, now=step.now)
        found = [seen for seen in listed if seen.may_hold(record.sending) and seen.id not in record.rejected_ids]
    late = {seen.id: seen.created_at.timestamp() - seen.ahead - intent for seen in found}
    return sorted(found, key=lambda seen: (late[seen.id] < 0, abs(late[seen.id])))


def is_ours(step: Step, seen: api.Batch) -> bool | None:
    """Return whether the first rows of an ended batch are ours; None if it has not ended, or does not show them now."""
    if seen.processing_status != "ended":
        return None
    found, record = None, step.batch
    try:
        with (
            step.rate_limits.observe_call(),
            api.open_results(step.client, seen.id, timeout=step.settings.timeout) as chunks,
        ):
            first = chain.from_iterable(map(result_rows.read_rows, result_rows.read_blocks(chunks)))
            for row, _ in islice(first, _TELLING):
                if resubmission.holds_request(step.job, record, row.custom_id):
                    return True
                found = False
    except (errors.ApiError, ValueError):
        return None
    return found


def _made_within(step: Step, seen: api.Batch) -> bool:
    """Return whether the batch was created while the create was under way, within the precision of clocks."""
    record = step.batch
    assert record.intent_at is not None
    until = record.unanswered_at or step.now()
    made_at = seen.created_at.timestamp() - seen.ahead
    return record.intent_at - rules.CLOCK_TOLERANCE <= made_at <= until + rules.CLOCK_TOLERANCE


def _recover_batch(step: Step, seen: api.Batch, *, sure: bool, instead_of: Unit | None = None) -> bool:
    """Take a found batch for ours; return False if another was faster."""
    if not creation.record_created(step, seen, provisional=not sure, instead_of=instead_of, force=sure):
        return False
    text = f"found by search{'' if sure else '; its results will confirm it'}"
    step.record_event("adopted", text, level=logging.WARNING, requests=step.batch.sending, round=len(step.batch.rounds))
    return True


def _judge_candidate(step: Step, batch_id: str, holder: Unit | None) -> Literal["free", "doubtful", "taken"]:
    """Judge whether a batch may be recovered as this job's.

    ``doubtful``: another job has it, but did not create it: its rows will show. A holder that is gone, that ended
    without knowing, or that holds another batch by now, holds nothing.
    """
    if holder is None or holder == step.unit:
        return "free"
    job, batch = (
        step.store.jobs.read_job(holder.job_id),
        step.store.records.read_batch(holder.job_id, holder.batch or 0),
    )
    if batch is not None and any(round.batch_id == batch_id for round in batch.rounds):
        return "taken"
    if job is None or batch is None or batch.batch_id != batch_id:
        return "free"
    return _standing_of_holder(job, batch)


def _standing_of_holder(job: JobRecord, batch: BatchRecord) -> Literal["free", "doubtful", "taken"]:
    """Judge whether a batch may be recovered that this job has on record as its own."""
    if job.adopted:
        return "doubtful"
    if not batch.provisional:
        return "taken"
    return "free" if job.ended_at is not None or batch.done or batch.state == "failed" else "doubtful"


def learn_adopted_batch(step: Step, seen: api.Batch) -> None:
    """Learn from a poll of a batch created elsewhere how many requests it has, and when it was created."""
    record, count = step.batch, sum(seen.request_counts.values())
    if record.created_at is None:
        step.store.jobs.persist_job(step.unit.job_id)
        if not step.claim_batch(
            seen.id, created_at=seen.created_at.timestamp(), api_ahead=step.measure_api_ahead(seen.date)
        ):
            holder = step.store.batch_ids.find_owner(seen.id)
            raise errors.BatchTasksError(f"batch {seen.id} belongs to job {holder.job_id if holder else 'another'}")
        step.update_record(expires_at=seen.expires_at.timestamp() if seen.expires_at else None)
    if count not in (0, record.count):
        step.store.jobs.update_job(step.unit.job_id, requests=count)
        step.job.requests = count
        step.update_record(count=count)
    if not record.count and not seen.running:
        error = f"retrieve: {seen.id} has ended, and is listed without its requests"
        if record.failures + 1 >= step.settings.results_limit:
            raise errors.ResultsMissing(error)
        raise errors.TransientError(error)
