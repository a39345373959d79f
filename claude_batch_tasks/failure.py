"""The error a job ends with: what happened, what was kept, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from claude_batch_tasks import errors, results, totals
from claude_batch_tasks.step import Step
from claude_batch_tasks.store import BatchRecord
from claude_batch_tasks.texts import clock, span

#: Batches of a failed job that its error names.
_NAMED = 5


def of(
    step: Step,
    batches: list[BatchRecord],
    summary: dict[str, Any],
    own: errors.BatchTasksError | None = None,
) -> errors.BatchTasksError | None:
    """The first failed batch's error, with what was kept and what to do.

    Args:
        own: what failed the job itself, if no batch did.
    """
    failed = [(number, record) for number, record in enumerate(batches) if record.error or totals.unaccounted(record)]
    if failed:
        number, record = failed[0]
        error = errors.rebuild(*record.error) if record.error else _short(record)
        name = f"job {step.unit.job_id}, batch {number + 1} of {len(batches)}"
        if len(failed) > 1:
            name += f" and {len(failed) - 1} more"
    elif own is not None:
        error, name = own, f"job {step.unit.job_id}"
    else:
        return None
    what = str(error)
    if isinstance(error, errors.ApiError) and error.request_id:
        what += f" (request id {error.request_id})"
    parts = [f"{name} failed: {what}."]
    answered = sum(summary[outcome] for outcome in results.OUTCOMES)
    kept = [] if step.job.adopted else [f"the requests (BatchJob({step.unit.job_id!r}).requests())"]
    kept += [f"{answered:,} outcomes (.results())"] if answered else []
    if kept:
        parts.append(f"Kept for {span(step.settings.result_ttl)}: {' and '.join(kept)}.")
    parts += _what_became_of([record for _, record in failed])
    parts.append(_advice(error, f"BatchJob({step.unit.job_id!r}).resume()", adopted=step.job.adopted))
    return type(error)(" ".join(parts), *error.args[1:])


def _short(record: BatchRecord) -> errors.ResultsMissing:
    missing = totals.unaccounted(record)
    return errors.ResultsMissing(f"{missing:,} of its {record.count:,} requests have no outcome in the store")


def _what_became_of(failed: list[BatchRecord]) -> Iterator[str]:
    there = [record.batch_id for record in failed if record.batch_id and not _is_lost(record)]
    unanswered = [record.intent_at for record in failed if record.intent_at and record.batch_id not in there]
    never = sum(record.batch_id is None and record.intent_at is None for record in failed)
    if len(there) == 1:
        yield f"{there[0]} was not canceled; it goes on at Anthropic, and its results stay there."
    elif there:
        names = ", ".join(map(str, there[:_NAMED])) + (f" and {len(there) - _NAMED:,} more" if there[_NAMED:] else "")
        yield f"{len(there):,} batches were not canceled; they go on, and their results stay, at Anthropic: {names}."
    if len(unanswered) == 1:
        yield f"A create was sent at {clock(unanswered[0])} whose answer is not known: see the Console."
    elif unanswered:
        since = clock(min(unanswered))
        yield f"{len(unanswered):,} creates were sent, from {since} on, whose answers are not known: see the Console."
    if never == len(failed) == 1:
        yield "Nothing of this batch was created or billed."
    elif never:
        yield f"{never:,} of the batches were never created or billed."


def _is_lost(record: BatchRecord) -> bool:
    return record.error is not None and issubclass(errors.named(record.error[0]), errors.BatchLost)


def _advice(error: errors.BatchTasksError, resume: str, *, adopted: bool) -> str:
    if isinstance(error, errors.PermanentError):
        if error.status in (401, 403, None):
            return f"Check the key of this client (ANTHROPIC_API_KEY or its factory), then {resume}."
        if error.status == 402:
            return f"Settle the billing of the account, then {resume}."
        return "Mend what the message names, then submit the requests again."
    if isinstance(error, errors.AccountChanged):
        return f"Give the workers the credential it was begun with, then {resume}: it goes on where it stands."
    if isinstance(error, errors.CreateUnconfirmed):
        return f"If the Console does not show the batch, submit the requests again; {resume} searches once more."
    if isinstance(error, errors.WaitExceeded):
        return f"To go on waiting: {resume}, with another max_wait if need be."
    if isinstance(error, errors.ResultsMissing):
        return f"To fetch them once more: {resume}."
    if isinstance(error, errors.StepFailed):
        return f"The worker's log has the traceback. When its cause is gone, {resume}: it goes on where it stands."
    if isinstance(error, errors.BatchArchived):
        return "Its results cannot be had any more." if adopted else "Submit the requests again."
    if isinstance(error, errors.BatchLost) and adopted:
        return (
            f"Check its id, and that the client is one of the account and workspace it is in; to look again: {resume}."
        )
    if isinstance(error, errors.BatchLost):
        return f"Submit the requests again, or, if the Console shows the batch, {resume}."
    return f"To try again: {resume}; or allow the Messages API (fallback='messages')."
