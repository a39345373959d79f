"""The repair of records that the store has lost: end jobs that cannot continue, report that to their callers, have
rows fetched again.

Nothing here creates a batch, or sends a request a second time; ``lost_results`` fetches rows.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Protocol

from celery import Celery

from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import BatchRecord, JobRecord, JobState, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import dispatch, message_chain
from claude_batch_tasks.store import HasJobs, HasSchedule, HasStatistics, Ledger, history, lost_records, open_store

log = get_logger(__name__)

#: Jobs, and batches of each job, that the workers' watch checks at a time.
_JOBS, _BATCHES = 20, 50

#: The most jobs that are checked for whether they run, the newest first, and the seconds by which the next round goes
#: back.
_NEWEST, _OVERLAP = 10_000, 600.0

#: Seconds between two tries to fetch the missing results of a job again, unless somebody asks for them.
_AGAIN = 600.0

#: Seconds for which a job must be absent before its absence is reported, and seconds between two such reports.
_CERTAIN, _TOLD = 10.0, 3600.0

#: The most seconds between two rounds of the watch: whoever waits for a job that is gone is told within a minute.
_LONGEST = 15.0


class _Watched(Ledger, HasSchedule, Protocol):
    """What shows which jobs run."""


class _Counted(HasJobs, HasStatistics, Protocol):
    """What shows which jobs there are."""


class _Repairable(lost_records.Replaceable, HasSchedule, Protocol):
    """What it takes to replace records and messages that are lost."""


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

    def start_repairs(self, app: Celery) -> float:
        """Start every repair that is possible; return the seconds until the next call.

        Raises:
            StoreUnavailable: the store does not answer.
            kombu.exceptions.OperationalError: the broker does not answer.
        """
        settings = Settings.of(app)
        with dispatch.no_fork:
            store = open_store(settings)
            store.jobs.rebuild_list()
        self._remember_jobs(store)
        with dispatch.no_fork:
            self._report_lost_jobs(app, store)
        for job_id in store.jobs.sample_jobs(_JOBS):
            with dispatch.no_fork:  # one job at a time: forks wait no longer than one takes
                _repair_job(store, job_id)
        with dispatch.no_fork:
            for job_id in store.records.take_restore_requests(_JOBS):
                if (
                    store.statistics.is_first(f"restore:{job_id}", _AGAIN)
                    and (job := store.jobs.read_job(job_id)) is not None
                ):
                    message_chain.make_recovery_message(app, job, job_id).apply_async()
        return min(settings.recover_every, _LONGEST)

    def _remember_jobs(self, store: _Watched) -> None:
        """Record which jobs run, and which running jobs are gone.

        After the first call only new jobs are read.
        """
        known = {**self._running, **{job_id: record for job_id, (record, _) in self._absent.items()}}
        since, self._looked_at = self._looked_at - _OVERLAP, store.now()
        for job_id, record in _new_jobs(store, since):
            known.setdefault(job_id, record)
        now = time.monotonic()
        states = self._note_sent(store, list(known))
        self._absent = {
            job_id: self._absent.get(job_id, (record, now))
            for job_id, record in known.items()
            if states[job_id] is None
        }
        self._running = {job_id: record for job_id, record in known.items() if states[job_id] in ("staged", "running")}

    def _note_sent(self, store: _Watched, known: list[str]) -> dict[str, JobState | None]:
        """Remember the jobs whose first message was sent; return the state of each job."""
        with dispatch.no_fork:
            unsent = [job_id for job_id in known if job_id not in self._sent]
            awaited = store.schedule.are_scheduled([Unit(job_id) for job_id in unsent])
            states = dict(zip(known, store.jobs.read_states(known), strict=True))
        self._sent &= states.keys()
        self._sent.update(job_id for job_id, sent in zip(unsent, awaited, strict=True) if sent)
        self._sent.update(job_id for job_id, state in states.items() if state == "running")
        return states

    def _report_lost_jobs(self, app: Celery, store: _Counted) -> None:
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
                and not dispatch.has_ended(app, job_id)
            ):
                extra = history.fields(Unit(job_id), "gone")
                log.warning("job %s: is gone from the store; its caller gets an error", job_id, extra=extra)
                message_chain.publish_chain(
                    record, job_id, message_chain.make_steps(app, job_id, record, 0, since=message_chain.DONE)
                )
            del self._absent[job_id]


def _new_jobs(store: HasJobs, since: float) -> Iterator[tuple[str, JobRecord]]:
    """Yield the jobs that were submitted since then, the newest first, up to a number."""
    newest = store.jobs.job_ids()
    for _ in range(_NEWEST):
        with dispatch.no_fork:  # one job at a time
            record = store.jobs.read_job(job_id) if (job_id := next(newest, None)) is not None else None
        if job_id is None or (record is not None and record.submitted_at < since):
            return
        if record is not None:
            yield job_id, record


def _repair_job(store: _Repairable, job_id: str) -> None:
    """Schedule the repair of a job that has lost something."""
    if (job := store.jobs.read_job(job_id)) is None:
        return
    if job.state == "running":
        _reschedule_units(store, job_id, job)
    elif job.ended_at is not None and job.batches <= _BATCHES:
        records = store.records.find_batches(job_id)
        if lost_records.batches_to_restore(store, job_id, records):
            store.records.request_restore(job_id)


def _reschedule_units(store: _Repairable, job_id: str, job: JobRecord) -> None:
    """Schedule the units of a running job that are in no schedule; ``recovery`` does the rest."""
    first = random.randrange(max(job.admitted - _BATCHES, 0) + 1)
    numbers = range(first, min(first + _BATCHES, job.admitted))
    if store.storage.missing_keys(job_id, None, [f"batch:{number}" for number in numbers]):
        lost_records.replace_lost_batches(store, job_id, job)
    units = [Unit(job_id), *(Unit(job_id, number) for number in numbers)]
    absent = [unit for unit, there in zip(units, store.schedule.are_scheduled(units), strict=True) if not there]
    if lost := [
        unit for unit in absent if unit.batch is None or _goes_on(store.records.read_batch(job_id, unit.batch))
    ]:
        extra = history.fields(Unit(job_id), "rescheduled")
        log.warning(
            "job %s: %d of its batches or senders were in no schedule, and are due again",
            job_id,
            len(lost),
            extra=extra,
        )
        store.schedule.add_units(lost, store.now())


def _goes_on(record: BatchRecord | None) -> bool:
    return record is not None and not record.done
