"""The error a job ends with: what happened, what was kept, and what to do next."""

from __future__ import annotations

from typing import Any

from claude_batch_tasks import errors, results
from claude_batch_tasks.step import Step, clock
from claude_batch_tasks.store import BatchRecord


def of(step: Step, batches: list[BatchRecord], summary: dict[str, Any]) -> errors.BatchTasksError | None:
    """The first failed batch's error, with what was kept and what to do."""
    failed = [(number, record) for number, record in enumerate(batches) if record.error]
    if not failed:
        return None
    number, record = failed[0]
    assert record.error is not None
    error = errors.rebuild(*record.error)
    what = str(error)
    if isinstance(error, errors.ApiError) and error.request_id:
        what += f" (request id {error.request_id})"
    name = f"job {step.unit.job_id}, batch {number + 1} of {len(batches)}"
    if len(failed) > 1:
        name += f" and {len(failed) - 1} more"
    parts = [f"{name} failed: {what}."]
    days = step.settings.result_ttl / 86_400
    kept = f"Kept for {days:g} days: the requests (BatchJob({step.unit.job_id!r}).requests())"
    answered = sum(summary[outcome] for outcome in results.OUTCOMES)
    parts.append(f"{kept} and {answered:,} outcomes (.results())." if answered else f"{kept}.")
    if record.batch_id:
        parts.append(f"{record.batch_id} was not canceled; it goes on at Anthropic, and its results stay there.")
    elif record.intent_at is not None:
        parts.append(f"A create was sent at {clock(record.intent_at)} whose answer is not known: see the Console.")
    else:
        parts.append("Nothing of this batch was created or billed.")
    parts.append(_advice(error))
    return type(error)(" ".join(parts), *error.args[1:])


def _advice(error: errors.BatchTasksError) -> str:
    if isinstance(error, errors.PermanentError):
        if error.status in (401, 403, None):
            return "Check the key of this client (ANTHROPIC_API_KEY or its factory), then submit the requests again."
        if error.status == 402:
            return "Settle the billing of the account, then submit the requests again."
        return "Mend what the message names, then submit the requests again."
    if isinstance(error, errors.AccountChanged):
        return "Give the workers the credential it was begun with; only then can it be told what the batch came to."
    if isinstance(error, errors.CreateUnconfirmed):
        return "If the Console does not show the batch, submit the requests again."
    if isinstance(error, (errors.WaitExceeded, errors.ResultsMissing)):
        return "Read its results in the Console, or submit the requests again with more patience."
    if isinstance(error, errors.StepFailed):
        return "See the worker's log for the traceback; it is a defect, please report it."
    return "Submit the requests again later, or allow the Messages API (fallback='messages')."
