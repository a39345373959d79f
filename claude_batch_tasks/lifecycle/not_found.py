"""How a 404 for a batch is judged, and what becomes of a batch that is lost, is not ours, or is not to be created."""

from __future__ import annotations

import logging
from typing import Literal

from claude_batch_tasks import api, errors, rules, signals
from claude_batch_tasks.formatting import format_time
from claude_batch_tasks.steps import Done, Fail, Step, credentials
from claude_batch_tasks.wire import result_rows

#: What the API says at the results of a batch that exists and has none to show; a batch that is gone gets other words.
_NO_RESULTS = "has no available results"

#: The error type of a request for which there was no batch, if the Messages API did not get it either.
NOT_SENT = "not_sent"

_LATE = "another batch would probably not end before the deadline"


def handle_not_found(step: Step, exc: errors.NotFoundError, endpoint: rules.Endpoint) -> Done | Fail:
    """Handle a 404 on retrieve or results: raise it to poll again, or return what follows if the batch is lost."""
    step.send_signal(signals.not_found_seen, batch_id=step.batch.batch_id, endpoint=endpoint, request_id=exc.request_id)
    record, now = step.batch, step.now()
    exists = endpoint == "results" and _NO_RESULTS in str(exc)
    seen = {"sighting": now, "absences": 0, "unidentified": 0} if exists else {}
    step.update_record(not_found=record.not_found + 1, **seen)
    # A batch that was created elsewhere, and not seen yet, may be of any age, and may not exist at all.
    known, sighting = record.created_at is not None, record.sighting or _created_at(step, now)
    if exc.error_type is None:
        raise errors.NotFoundError(f"{exc}; this says nothing about the batch", *exc.args[1:])
    meaning = _judge_absence(step, sighting, now)
    if meaning == "ask_list":
        _ask_list(step, exc, now)
        meaning = _judge_absence(step, sighting, now)
    # A batch that was created elsewhere, and never seen, is not sent again whatever its absence means.
    if known and meaning != "propagation" and not credentials.proves_absence(step):
        why = credentials.check_unproven(step, sighting, record.unidentified)
        raise errors.NotFoundError(f"{exc}; {record.unidentified} list calls do not show it, but {why}", *exc.args[1:])
    if meaning == "lost":
        return _give_up_lost(step, exc, f"last seen at {format_time(sighting)}" if known else "never seen")
    ago = f"seen {max(now - sighting, 0):.0f} s ago" if known else "adopted just now"
    raise errors.NotFoundError(f"{exc}; {ago}, taken as propagation delay", *exc.args[1:])


def _give_up_lost(step: Step, exc: errors.NotFoundError, seen: str) -> Done | Fail:
    """Release a batch that is lost if it was found by search; otherwise it does not exist.

    Args:
        seen: when there was last a sign of it, in words.
    """
    record = step.batch
    if record.provisional:
        return release_batch(step, f"{exc}; no list call shows it")
    text = f"{exc}; batch {record.batch_id} was {seen} and is missing from {record.absences} complete list calls"
    return handle_missing_batch(step, "lost", errors.BatchLost(text, *exc.args[1:]))


def _created_at(step: Step, now: float) -> float:
    """Return when the batch was created, by the store's clock; if that is not known, when its job was started."""
    record = step.batch
    return record.created_at - record.api_ahead if record.created_at is not None else step.job.started_at or now


def _judge_absence(step: Step, sighting: float, now: float) -> str:
    """Return what a 404 means now."""
    record, settings = step.batch, step.settings
    # Nothing proves yet that a batch found by search is ours: only the list call can.
    grace = settings.create_settle if record.created_at is None else settings.not_found_grace
    return rules.judge_not_found(
        now=now,
        created_at=_created_at(step, now),
        last_sighting=sighting,
        grace=0.0 if record.provisional else grace,
        absences=record.absences,
        absences_limit=settings.listings,
    )


def _ask_list(step: Step, exc: errors.NotFoundError, now: float) -> None:
    """List the account's batches, and count a list that does not show the batch.

    Raises:
        NotFoundError: the batch is listed.
    """
    record, settings = step.batch, step.settings
    since = now - rules.RETENTION if record.created_at is None else record.created_at - settings.clock_skew
    step.rate_limits.check_pause()
    with step.rate_limits.observe_call():
        listed = api.list_since(step.client, since, timeout=settings.timeout)
        shown = any(seen.id == record.batch_id for seen in listed)
    if shown:
        step.update_record(sighting=step.now(), absences=0, unidentified=0)
        raise errors.NotFoundError(f"{exc}, but the batch is listed", *exc.args[1:])
    counted = "absences" if credentials.proves_absence(step) else "unidentified"
    step.update_record(**{counted: getattr(record, counted) + 1})


def handle_missing_batch(step: Step, state: Literal["unsent", "lost"], error: errors.ApiError) -> Done | Fail:
    """Handle a batch that does not exist: its requests fall back, or the job fails."""
    if step.batch.rounds:  # the requests of this batch have the outcomes of the round before
        what = "another batch was not created" if state == "unsent" else "its next batch was lost"
        step.update_record(state=state, not_sent_again=f"{what}: {error}")
        step.record_event(state, f"{state}: {error}", level=logging.WARNING)
        return Done(f"{state}: {error}")
    if step.settings.fallback == "off":
        return Fail(error)
    count = step.batch.count
    outcome = result_rows.errored_row(error.error_type or "not_found_error", str(error), error.request_id)
    # Nothing in the batch has a result: every request is eligible.
    step.update_record(state=state, outcome=outcome, counts={"errored": count}, eligible=count, open={"errored": count})
    step.record_event(state, f"{state}: {error}", level=logging.WARNING)
    return Done(f"{state}: {error}")


def skip_batch(step: Step) -> Done | None:
    """Leave the batch uncreated, and have its requests sent through the Messages API, if that is how they are answered.

    So it is in a job that goes through the Messages API, and if the batch would be canceled at once because of the
    job's ``answer_by``. Return None if the batch is to be created, or if it is not certain that it was not.
    """
    record, job = step.batch, step.job
    if record.intent_at is not None:
        return None
    if job.direct:
        why = "its pool goes through the Messages API"
    elif step.cut_at is not None and step.now() >= step.cut_at:
        why = "it could not end by the deadline, so its requests go through the Messages API"
    else:
        return None
    if record.rounds:  # the requests have the outcomes of the round before
        step.update_record(state="unsent", not_sent_again=_LATE)
    else:
        outcome, count = result_rows.errored_row(NOT_SENT, f"not sent: {why}", None), record.count
        step.update_record(
            state="unsent", outcome=outcome, counts={"errored": count}, eligible=count, open={"errored": count}
        )
    step.record_event("unsent", f"no batch is created: {why}")
    return Done(f"not created: {why}")


def release_batch(step: Step, why: str) -> Done:
    """Release a batch found by search that is somebody else's; ``fetch_results`` then begins another generation."""
    record = step.batch
    foreign = record.batch_id
    assert foreign is not None
    step.record_event("given_back", f"released, because {why}", level=logging.WARNING)
    step.release_batch(
        foreign,
        state="creating",
        rejected_ids=[*record.rejected_ids, foreign],
        batch_id=None,
        provisional=False,
        ambiguous_at=step.now(),
        create_looks=0,
        unidentified=0,
        told={},
        turn=record.turn + 1,
        **({} if record.rounds else {"attempt": 0, "counts": {}}),
    )
    return Done(f"released {foreign}: {why}")
