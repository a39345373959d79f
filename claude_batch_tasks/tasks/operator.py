"""The tasks that operators send: cancel a batch now, send lost messages again."""

from __future__ import annotations

from typing import Any

from claude_batch_tasks import api, errors
from claude_batch_tasks.lifecycle import lost_results, recovery
from claude_batch_tasks.records import Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import NAME, BatchTask, RateLimits, credentials, job_task
from claude_batch_tasks.store import history


@job_task(base=BatchTask, name=NAME + "cancel_batch")
def cancel_batch(self: BatchTask, job_id: str, batch: int) -> str:
    """Request the cancellation of a batch from Anthropic now; ``poll_batch`` would request it at its next poll."""
    store, settings, record = self.open_job(job_id)
    found = store.records.read_batch(job_id, batch)
    if record is None or found is None or found.batch_id is None or found.state not in ("in_progress", "canceling"):
        return "nothing to cancel yet"
    if found.provisional:
        return "it is not yet certain that the batch is this job's"

    def answered(seen: api.Account) -> None:
        if (differs := credentials.find_difference(credentials.known_account(record, found), seen)) is not None:
            raise errors.AccountChanged(f"client {record.client!r} is on another account: {differs}")

    client = credentials.make_caller(settings, record, answered)
    pace = RateLimits(store, credentials.name_account(client, settings, record))
    pace.check_pause()
    try:
        with pace.observe_call():
            seen = api.cancel_batch(client, found.batch_id, timeout=settings.timeout)
    except (errors.PermanentError, errors.AccountChanged) as exc:
        return f"refused: {exc}"
    text = f"cancel sent to Anthropic: {seen.processing_status}"
    history.note(store, Unit(job_id, batch), "cancel", text, job=record, batch_id=found.batch_id)
    return seen.processing_status


@job_task(base=BatchTask, name=NAME + "recover_jobs", ignore_result=False)
def recover_jobs(self: BatchTask, after: float = 0, job_id: str | None = None) -> Any:
    """Send again the messages of running jobs that the broker has lost.

    This is safe at any time, and from several places at once. Workers do it themselves every ``recover_every`` seconds;
    the task is there for a schedule or a caller of your own.

    With ``job_id`` the task does something else: it downloads again, free of charge, those results of this job that the
    store has lost, and returns the job's summary. The job must have ended.

    Args:
        after: a message counts as lost when it is overdue by so many seconds. With 0 a second message is sent for
            everything that waits; of two messages that say the same, only one acts.
        job_id: the job whose lost results are downloaded again.

    Raises:
        ResultsMissing: what was lost cannot be downloaded again.
    """
    if job_id is None:
        return f"{recovery.recover_messages(self.app, after)} lost messages were sent again"
    try:
        return lost_results.refetch_job(self.app, job_id)
    except (errors.NotFoundError, errors.ResultsMissing) as exc:
        if self.request.retries + 1 >= Settings.of(self.app).results_limit:
            text = f"job {job_id}: lost results could not be fetched again: {exc}"
            raise errors.ResultsMissing(text) from None
        self.retry(exc=exc)
