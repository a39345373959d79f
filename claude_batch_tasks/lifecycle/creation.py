"""The create of a batch: its body, sent once, and what each answer to it means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from claude_batch_tasks import api, errors, signals
from claude_batch_tasks.api import body_limits
from claude_batch_tasks.formatting import format_count
from claude_batch_tasks.lifecycle import gateway_errors, not_found, submission
from claude_batch_tasks.records import BatchRecord, Unit
from claude_batch_tasks.steps import Decision, Done, Step, credentials
from claude_batch_tasks.store import lost_records

#: The changes in the record of a batch of which it is certain that it was not created.
_NOT_CREATED = {"state": "staged", "intent_at": None, "organization": None, "workspace": None}


def find_missing(step: Step) -> errors.BatchTasksError | None:
    """Return the error of a batch whose requests are gone before it is created; None: they are there.

    Answers whose custom_ids are gone would be useless.
    """
    job_id, batch = step.unit.job_id, step.unit.batch or 0
    if not step.store.storage.missing_keys(job_id, batch, ("body", "ids")):
        return None
    return lost_records.of_requests(step.store, job_id, step.job, batch, step.batch)


def send_create(step: Step, account: api.Account) -> Decision:
    """Record that the batch is about to be created, create it, and record what the answer says.

    Args:
        account: the account on which it is created, if the API had to be asked for it.

    Raises:
        CreateUnresolved: it is not known whether the batch was created.
        NotFoundError, TransientError: it was not created, and may be later.
        PermanentError, ResultsMissing: it was not created.
    """
    record, client = step.batch, step.client
    step.update_record(
        state="creating",
        intent_at=step.now(),
        unanswered_at=None,
        ambiguous_at=None,
        create_looks=0,
        unidentified=0,
        organization=account.organization,
        workspace=account.workspace,
    )
    try:
        body = step.while_held(whole_body(step))
        with step.rate_limits.observe_call("create"), body_limits.confirm_before_end(step.confirm_lease):
            created = api.create_batch(client, body, _size_of(record))
    except errors.AmbiguousError as exc:
        _search_later(step, exc)
    except errors.NotFoundError as exc:
        if _is_last_not_found(step, exc):
            gateway_errors.check_listing(step)
            return not_found.handle_missing_batch(step, "unsent", errors.CreateNotFound(*exc.args))
        raise
    except errors.ResultsMissing:
        step.update_record(**_NOT_CREATED)
        raise
    except (errors.TransientError, errors.PermanentError) as exc:
        step.update_record(**_NOT_CREATED)
        credentials.compare_with_job(step, api.Account(exc.organization, exc.workspace))
        if isinstance(exc, errors.TransientError) and exc.status != 401 and credentials.concerns_account(exc):
            # It does not pass while anybody waits: a spend limit comes as 429. After a 401, another token is requested.
            raise errors.PermanentError(*exc.args) from None
        raise
    created.ahead = step.measure_api_ahead(created.date)
    record_created(step, created)
    step.rate_limits.observe_answer(created.hold)
    details = {"requests": record.sending, "round": len(record.rounds)}
    step.record_event("created", f"created, {format_count(record.sending, 'request')}", **details, **created.call)
    credentials.compare_with_job(step, created.account)
    credentials.remember_credential(step, created.account)
    return Done(f"created {created.id}, {record.sending} requests")


def _search_later(step: Step, exc: errors.AmbiguousError) -> NoReturn:
    """Record that the batch may be stored on the account that this answer came from; the next run searches for it."""
    named = {"organization": exc.organization, "workspace": exc.workspace} if exc.organization else {}
    step.update_record(
        unanswered_at=step.now(), ambiguous_at=step.now(), **named, **gateway_errors.note_refusal(step, exc)
    )
    credentials.compare_with_job(step, api.Account(exc.organization, exc.workspace))
    raise errors.CreateUnresolved(f"{exc}; searching for the batch that it may have created", exc.retry_after) from None


def _is_last_not_found(step: Step, exc: errors.NotFoundError) -> bool:
    """Record a create that was answered 404; return whether there were too many of them."""
    record = step.batch
    step.update_record(**_NOT_CREATED, create_not_found=record.create_not_found + 1, not_found=record.not_found + 1)
    credentials.compare_with_job(step, api.Account(exc.organization, exc.workspace))
    step.send_signal(signals.not_found_seen, batch_id=None, endpoint="create", request_id=exc.request_id)
    return record.create_not_found >= step.settings.create_not_found_limit


def whole_body(step: Step) -> Iterator[bytes]:
    """Yield the body of a batch's create, but its last chunk only if the total length is that of the record.

    Raises:
        ResultsMissing: some requests are gone; what was sent until then is no complete body.
    """
    job_id, batch, record = step.unit.job_id, step.unit.batch or 0, step.batch
    size, last = 0, b""
    try:
        for piece in submission.read_body(step.store, job_id, step.job, batch, record):
            if last:
                yield last
            size, last = size + len(piece), piece
    except errors.ResultsMissing:
        size = -1
    if size != _size_of(record):
        raise lost_records.of_requests(step.store, job_id, step.job, batch, record)
    yield last


def _size_of(record: BatchRecord) -> int:
    return record.smaller_bytes if record.rounds else record.body_bytes


def record_created(
    step: Step, seen: api.Batch, *, provisional: bool = False, instead_of: Unit | None = None, force: bool = True
) -> bool:
    """Record that the batch exists under this id; return False if it is another's.

    Args:
        provisional: the batch was found by search, and its results have not confirmed it yet.
        instead_of: the unit that may have it on record, and holds nothing.
        force: a unit that claimed it was wrong.
    """
    claimed = step.claim_batch(
        seen.id,
        instead_of=instead_of,
        force=force,
        state="in_progress",
        # A recovered batch may prove to be a stranger's; then the search goes on from the same moment.
        intent_at=step.batch.intent_at if provisional else None,
        ambiguous_at=None,
        batch_id=seen.id,
        provisional=provisional,
        created_at=seen.created_at.timestamp(),
        expires_at=seen.expires_at.timestamp() if seen.expires_at else None,
        api_ahead=seen.ahead,
        sighting=step.now(),
        not_before=None if seen.retry_after is None else step.now() + seen.retry_after,
        refusal=None,
        refused_since=None,
        absences=0,
        unidentified=0,
        create_not_found=0,
        organization=seen.organization or step.batch.organization,
        workspace=seen.workspace or (None if seen.organization else step.batch.workspace),
    )
    if claimed:
        record = step.batch
        step.send_signal(signals.batch_created, batch_id=seen.id, requests=record.sending, round=len(record.rounds))
    return claimed
