"""The repair of records that the store has lost: fetch rows again, end what cannot go on, tell those who wait.

Fetching is not billed. Nothing here creates a batch, or sends a request a second time.
"""

from __future__ import annotations

import random
import time
import uuid
from typing import TYPE_CHECKING, Protocol, cast

from celery import Celery
from celery.states import READY_STATES

from claude_batch_tasks import api, errors
from claude_batch_tasks.formatting import format_count
from claude_batch_tasks.lifecycle import resubmission
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import BatchRecord, JobRecord, Summary, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import credentials, dispatch, message_chain
from claude_batch_tasks.steps.rate_limit import Pace
from claude_batch_tasks.store import history, lost_records, open_store
from claude_batch_tasks.store.interface import (
    HasJobs,
    HasRecords,
    HasResults,
    HasSchedule,
    HasStatistics,
    Journal,
    Ledger,
)
from claude_batch_tasks.wire import batch_requests, completeness

if TYPE_CHECKING:
    from claude_batch_tasks.steps.step import Step

log = get_logger(__name__)

#: Jobs, and batches of each job, that the workers' watch checks at a time.
_JOBS, _BATCHES = 20, 50

#: The most jobs that are checked for whether they run, the newest first, and the seconds by which the next round goes
#: back.
_NEWEST, _OVERLAP = 10_000, 600.0

#: Seconds between two tries to fetch the missing results of a job again, unless somebody asks for them.
_AGAIN = 600.0

#: Seconds for which a job must be absent before those who wait for it are told, and seconds between two such reports.
_CERTAIN, _TOLD = 10.0, 3600.0

#: The most seconds between two rounds of the watch: whoever waits for a job that is gone is told within a minute.
_LONGEST = 15.0


class _Fetchable(Journal, HasRecords, HasResults, Protocol):
    """What it takes to download the results of a batch again."""


class _Watched(Ledger, HasSchedule, Protocol):
    """What shows which jobs run."""


class _Counted(HasJobs, HasStatistics, Protocol):
    """What shows which jobs there are."""


class _Repairable(lost_records.Replaceable, HasSchedule, Protocol):
    """What it takes to replace records and messages that are lost."""


def fetch_again(
    store: _Fetchable, settings: Settings, client: api.Caller, job_id: str, job: JobRecord, number: int
) -> int:
    """Download the rows of a batch again that are gone from the store; return how many.

    Raises:
        ResultsMissing: the rows are not complete any more.
        ApiError: the API does not give them.
    """
    settings.check_key(job.sealed_by)
    record, fetched = store.records.read_batch(job_id, number), 0
    if record is None:
        return 0
    for attempt, round_ in reversed(record.layers):  # the positions of a round follow from the round before
        names = [f"{name}:{attempt}" for name in ("rows", "pieces", "eligible")]
        names += [f"index:{attempt}"] if job.adopted else []
        expected = lost_records.rows_expected(record, attempt, round_)
        if expected == 0 or not (gone := store.records.missing_keys(job_id, number, names)):
            continue
        unit, text = Unit(job_id, number), "%s: gone from the store, fetched again: %s"
        log.warning(text, unit, ", ".join(gone), extra=history.fields(unit, "restored"))
        fetched += _fetch(store, settings, client, job_id, job, number, record, attempt, round_, expected)
    if fetched:
        text = f"{format_count(fetched, 'result')} that the store had lost fetched again"
        history.note(store, Unit(job_id, number), "fetched", text, batch_id=record.batch_id)
    return fetched


def _fetch(
    store: HasResults,
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
    past = record.rounds[:round_]
    batch_id = record.rounds[round_].batch_id if round_ < len(record.rounds) else record.batch_id
    if batch_id is None:
        return 0
    then = BatchRecord(first=record.first, count=record.count, body_bytes=0, rounds=past)
    checked = completeness.AdoptedCompleteness if job.adopted else completeness.Completeness
    seen = checked(
        batch_requests.round_nonce(job.nonce, round_),
        record.first,
        record.count,
        places=resubmission.positions_in_batch(store, job_id, number, then) if past else None,
    )
    copy = f":{uuid.uuid4().hex[:12]}"
    with api.results(client, batch_id, timeout=settings.timeout) as chunks:
        store.results.write_rows(job_id, number, attempt, seen.keep(chunks), copy=copy)
    if not seen.distinct or seen.distinct < (seen.expected if expected is None else expected):
        store.results.discard_rows(job_id, number, attempt, copy=copy)
        raise errors.ResultsMissing(
            f"the result file of {batch_id} has {seen.distinct:,} of {seen.expected:,} results", seen.expected
        )
    parts = seen.index.parts() if isinstance(seen, completeness.AdoptedCompleteness) else ()
    store.results.restore_rows(
        job_id,
        number,
        attempt,
        copy,
        pieces=seen.pieces.tobytes(),
        eligible_places=seen.eligible.tobytes(),
        index=parts,
    )
    return seen.distinct


def repair_records(step: Step) -> None:
    """Fetch the batch's earlier results again if the step needs them and they are gone.

    Raises:
        TransientError: they could not be fetched yet.
        ResultsMissing: they cannot be fetched at all.
    """
    record, limit = step.batch, step.settings.results_limit
    if not record.layers or not step.store.records.missing_keys(
        step.unit.job_id, step.unit.batch, lost_records.layer_names(record, "rows", "pieces", "eligible")
    ):
        return
    step.pace.check()
    try:
        with step.pace.observing():
            fetch_again(step.store, step.settings, step.client, step.unit.job_id, step.job, step.unit.batch or 0)
    except (errors.NotFoundError, errors.ResultsMissing) as exc:
        if record.failures + 1 >= limit:
            raise errors.ResultsMissing(
                f"rows are gone from the store, and could not be fetched again: {exc}"
            ) from None
        raise errors.TransientError(f"rows are gone from the store: {exc}") from None


def restore_records(app: Celery, job_id: str) -> Summary | None:
    """Fetch what is missing of a finished job again; return the job's summary.

    Raises:
        JobNotFound: there is no such job.
        ResultsMissing, ApiError: as for ``fetch_again``.
    """
    settings = Settings.of(app)
    store = open_store(settings)
    if (job := store.jobs.read_job(job_id)) is None:
        raise errors.JobNotFound(f"job {job_id} is gone from the store")
    settings = settings.override(job.options)
    client = credentials.make_caller(settings, job, lambda _: None)  # the ids in the rows prove whose they are
    pace = Pace(store, credentials.name_account(client, settings, job))
    failure: errors.BatchTasksError | None = None
    for number in lost_records.batches_to_restore(store, job_id, store.records.find_batches(job_id)):
        pace.check()
        try:
            with pace.observing():
                fetch_again(store, settings, client, job_id, job, number)
        except errors.ApiError as exc:
            failure = exc  # of one batch; the others are fetched all the same
        except errors.ResultsMissing as exc:
            failure = failure or exc
    if failure is not None:
        raise failure
    return cast("Summary | None", job.summary)


class Watch:
    """The watch in a worker's main process: it knows the running jobs, and checks other jobs now and then."""

    def __init__(self) -> None:
        self._running: dict[str, JobRecord] = {}
        #: Jobs that ran and are gone from the store: their records, and since when they are absent.
        self._absent: dict[str, tuple[JobRecord, float]] = {}
        #: The jobs of both kinds whose first message was sent. After a rollback it never is, and what is in the store
        #: expires.
        self._sent: set[str] = set()
        self._looked_at = 0.0

    def look(self, app: Celery) -> float:
        """Start every repair that is possible; return the seconds until the next call.

        Raises:
            StoreUnavailable: the store does not answer.
            kombu.exceptions.OperationalError: the broker does not answer.
        """
        settings = Settings.of(app)
        with dispatch.no_fork:
            store = open_store(settings)
            store.jobs.rebuild_list()
        self._remember(store)
        with dispatch.no_fork:
            self._tell_of_lost_jobs(app, store)
        for job_id in store.jobs.sample_jobs(_JOBS):
            with dispatch.no_fork:  # one job at a time: forks wait no longer than one takes
                _look_through(store, job_id)
        with dispatch.no_fork:
            for job_id in store.records.take_restore_requests(_JOBS):
                if (
                    store.statistics.is_first(f"restore:{job_id}", _AGAIN)
                    and (job := store.jobs.read_job(job_id)) is not None
                ):
                    message_chain.make_recovery_message(app, job, job_id).apply_async()
        return min(settings.recover_every, _LONGEST)

    def _remember(self, store: _Watched) -> None:
        """Record which jobs run, and which running jobs are gone.

        After the first call only new jobs are read.
        """
        known = {**self._running, **{job_id: record for job_id, (record, _) in self._absent.items()}}
        since, self._looked_at = self._looked_at - _OVERLAP, store.now()
        newest = store.jobs.job_ids()
        for _ in range(_NEWEST):
            with dispatch.no_fork:  # one job at a time
                record = store.jobs.read_job(job_id) if (job_id := next(newest, None)) is not None else None
                if job_id is None or (record is not None and record.submitted_at < since):
                    break
            if record is not None:
                known.setdefault(job_id, record)
        now, absent = time.monotonic(), {}
        with dispatch.no_fork:
            unsent = [job_id for job_id in known if job_id not in self._sent]
            awaited = store.schedule.are_scheduled([Unit(job_id) for job_id in unsent])
            states = store.jobs.read_states(list(known))
        self._sent &= known.keys()
        self._sent.update(job_id for job_id, sent in zip(unsent, awaited, strict=True) if sent)
        self._sent.update(job_id for job_id, state in zip(known, states, strict=True) if state == "running")
        for (job_id, record), state in zip(list(known.items()), states, strict=True):
            if state is None:
                absent[job_id] = self._absent.get(job_id, (record, now))
            if state not in ("staged", "running"):
                del known[job_id]
        self._running, self._absent = known, absent

    def _tell_of_lost_jobs(self, app: Celery, store: _Counted) -> None:
        """Send the last task of a job that has disappeared: it ends the job, with everything that Celery does then."""
        now = time.monotonic()
        for job_id, (record, since) in list(self._absent.items()):
            if now - since < _CERTAIN:
                continue
            lost = job_id in self._sent
            if (
                lost
                and not store.jobs.was_deleted(job_id)
                and store.statistics.is_first(f"told:{job_id}", _TOLD)
                and not _has_ended(app, job_id)
            ):
                extra = history.fields(Unit(job_id), "gone")
                log.warning("job %s is gone from the store; whoever waits for it is told", job_id, extra=extra)
                message_chain.publish_chain(
                    record, job_id, message_chain.make_steps(app, job_id, record, 0, since=message_chain.DONE)
                )
            del self._absent[job_id]


def _look_through(store: _Repairable, job_id: str) -> None:
    """Schedule the repair of a job that has lost something."""
    if (job := store.jobs.read_job(job_id)) is None:
        return
    if job.state == "running":
        _reschedule(store, job_id, job)
    elif job.ended_at is not None and job.batches <= _BATCHES:
        records = store.records.find_batches(job_id)
        if lost_records.batches_to_restore(store, job_id, records):
            store.records.request_restore(job_id)


def _reschedule(store: _Repairable, job_id: str, job: JobRecord) -> None:
    """Schedule the units of a running job that are in no schedule; ``recovery`` does the rest."""
    first = random.randrange(max(job.admitted - _BATCHES, 0) + 1)
    numbers = range(first, min(first + _BATCHES, job.admitted))
    if store.records.missing_keys(job_id, None, [f"batch:{number}" for number in numbers]):
        lost_records.replace_lost_batches(store, job_id, job)
    units = [Unit(job_id), *(Unit(job_id, number) for number in numbers)]
    absent = [unit for unit, there in zip(units, store.schedule.are_scheduled(units), strict=True) if not there]
    if lost := [
        unit for unit in absent if unit.batch is None or _goes_on(store.records.read_batch(job_id, unit.batch))
    ]:
        extra = history.fields(Unit(job_id), "rescheduled")
        log.warning("job %s: %d of its units were in no schedule; they are due again", job_id, len(lost), extra=extra)
        store.schedule.add_units(lost, store.now())


def _goes_on(record: BatchRecord | None) -> bool:
    return record is not None and not record.done


def _has_ended(app: Celery, job_id: str) -> bool:
    try:
        return str(app.AsyncResult(job_id).state) in READY_STATES
    except Exception:  # noqa: BLE001 - there is no result back end, or it does not answer
        return False
