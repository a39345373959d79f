"""Results that the store has lost, and that are downloaded again, which is not billed."""

from __future__ import annotations

import uuid
from typing import Protocol, cast

from celery import Celery

from claude_batch_tasks import api, errors
from claude_batch_tasks.formatting import format_count
from claude_batch_tasks.lifecycle import resubmission
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import BatchRecord, JobRecord, Summary, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import RateLimits, Step, credentials
from claude_batch_tasks.store import HasHistory, ReadableStore, history, lost_records, open_store

log = get_logger(__name__)


class _Fetchable(ReadableStore, HasHistory, Protocol):
    """What it takes to download the results of a batch again."""


def refetch_batch(
    store: _Fetchable, settings: Settings, client: api.Caller, job_id: str, job: JobRecord, number: int
) -> int:
    """Download again those rows of a batch that the store has lost; return how many rows came.

    Raises:
        ResultsMissing: the downloaded file does not have all rows.
        ApiError: the API answers the download with an error.
    """
    settings.check_key(job.sealed_by)
    record, fetched = store.records.read_batch(job_id, number), 0
    if record is None:
        return 0
    for attempt, round_ in reversed(record.layers):  # the positions of a round follow from the round before
        names = lost_records.names_fetched(record, attempt, round_)
        names += [f"index:{attempt}"] if job.adopted else []
        expected = lost_records.rows_expected(record, attempt, round_)
        if expected == 0 or not (gone := store.storage.missing_keys(job_id, number, names)):
            continue
        unit = Unit(job_id, number)
        extra = history.fields(unit, "restored", job=job)
        log.warning("job %s: fetched again, because gone from the store: %s", unit.name, ", ".join(gone), extra=extra)
        fetched += _refetch_attempt(store, settings, client, job_id, job, number, record, attempt, round_, expected)
    if fetched:
        text = f"{format_count(fetched, 'result')} fetched again that the store had lost"
        history.note(store, Unit(job_id, number), "fetched", text, job=job, batch_id=record.batch_id)
    return fetched


def _refetch_attempt(
    store: _Fetchable,
    settings: Settings,
    client: api.Caller,
    job_id: str,
    job: JobRecord,
    number: int,
    record: BatchRecord,
    attempt: int,
    round_: int,
    expected: int | None,
) -> int:
    """Download the rows of one earlier download (``attempt``) again, and write them in its place; return how many."""
    batch_id = record.rounds[round_].batch_id if round_ < len(record.rounds) else record.batch_id
    if batch_id is None:
        return 0
    seen = resubmission.expect_rows_again(store, job_id, job, number, record, settings, round_)
    copy = f":{uuid.uuid4().hex[:12]}"
    with api.open_results(client, batch_id, timeout=settings.timeout) as chunks:
        store.results.write_rows(job_id, number, attempt, seen.keep_rows(chunks), copy=copy)
    if not seen.distinct or seen.distinct < (seen.expected if expected is None else expected):
        store.results.discard_rows(job_id, number, attempt, copy=copy)
        raise errors.ResultsMissing(
            f"the result file of {batch_id} has {seen.distinct:,} of {seen.expected:,} results", seen.expected
        )
    judged = seen.judged
    resubmission.complete_choice(store, job_id, number, record, seen)
    store.results.restore_rows(
        job_id,
        number,
        attempt,
        copy,
        pieces=seen.pieces.tobytes(),
        eligible_places=judged.eligible.tobytes(),
        again_places=None if judged.sent_again is None else judged.again_places,
        index=resubmission.stored_index(seen),
    )
    return seen.distinct


def refetch_rows(step: Step) -> None:
    """Download again the rows of the step's batch that the store has lost.

    Raises:
        TransientError: they could not be fetched yet.
        ResultsMissing: they cannot be fetched at all.
    """
    record, limit = step.batch, step.settings.results_limit
    if not record.layers or not step.store.storage.missing_keys(
        step.unit.job_id, step.unit.batch, lost_records.all_names_fetched(record)
    ):
        return
    step.rate_limits.check_pause()
    try:
        with step.rate_limits.observe_call():
            refetch_batch(step.store, step.settings, step.client, step.unit.job_id, step.job, step.unit.batch or 0)
    except (errors.NotFoundError, errors.ResultsMissing) as exc:
        if record.failures + 1 >= limit:
            raise errors.ResultsMissing(
                f"rows are gone from the store, and could not be fetched again: {exc}"
            ) from None
        raise errors.TransientError(f"rows are gone from the store: {exc}") from None


def refetch_job(app: Celery, job_id: str) -> Summary | None:
    """Download again what the store has lost of a finished job's results; return the job's summary.

    Raises:
        JobNotFound: there is no such job.
        ResultsMissing, ApiError: as for ``refetch_batch``.
    """
    settings = Settings.of(app)
    store = open_store(settings)
    if (job := store.jobs.read_job(job_id)) is None:
        raise errors.JobNotFound(f"job {job_id} is gone from the store")
    settings = settings.of_job(job)
    client = credentials.make_caller(settings, job, lambda _: None)  # the ids in the rows prove whose they are
    pace = RateLimits(store, credentials.name_account(client, settings, job))
    failure: errors.BatchTasksError | None = None
    for number in lost_records.batches_to_restore(store, job_id, store.records.find_batches(job_id)):
        pace.check_pause()
        try:
            with pace.observe_call():
                refetch_batch(store, settings, client, job_id, job, number)
        except errors.ApiError as exc:
            failure = exc  # of one batch; the others are fetched all the same
        except errors.ResultsMissing as exc:
            failure = failure or exc
    if failure is not None:
        raise failure
    return cast("Summary | None", job.summary)
