"""The list of jobs as people page through it, in the admin and on the progress page: searched, and by phase."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from celery import Celery

from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.jobs.job_status import JobStatus, Waits, read_status
from claude_batch_tasks.records import JobRecord
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import Store, open_store

#: The number of jobs on a page.
JOBS = 25

#: The number of jobs that are searched for one page, so that a search ends in a large store too.
SEARCHED = 2_000

#: What a job may be filtered by, in the order in which it happens.
PHASES = (
    "queued",
    "running",
    "saving results",
    "canceling",
    "delivering",
    "completed",
    "canceled",
    "failed",
    "revoked",
)

#: The states of a record that a job in a phase may be in; a phase that is not here is a state itself.
_STATES = {
    "queued": ("staged",),
    "saving results": ("running",),
    "canceling": ("staged", "running"),
    "delivering": ("running", "completed", "canceled", "failed"),
}


class JobPage(NamedTuple):
    """One page of the list of jobs, the newest first."""

    jobs: list[JobStatus]
    older: float | None
    """The ``before`` of the next page; None: there is none."""
    unfinished: bool
    """Whether the page ends because so many jobs were searched, and not because it is full."""


def read_job_page(
    *, text: str = "", phase: str = "", label: str = "", before: float = math.inf, app: Celery | None = None
) -> JobPage:
    """Return the jobs of a page.

    Args:
        text: the beginning of a job's id, or a part of its label.
        phase: only jobs in this phase (or state).
        label: only jobs with this label.
        before: only jobs that were submitted before this moment, in epoch seconds.
    """
    app = app or configured_app()
    store = open_store(Settings.of(app))
    waits, text = Waits(app, store), text.strip()
    found: list[JobStatus] = []
    for searched, (job_id, job) in enumerate(_read_records(store, before)):
        if len(found) == JOBS or searched == SEARCHED:
            # That job is the first one of the next page.
            return JobPage(found, math.nextafter(job.submitted_at, math.inf), len(found) < JOBS)
        if _may_fit(job_id, job, text, phase, label):
            status = waits.explain(read_status(store, job_id, job), job)
            if not phase or phase in (phase_of(status), status.state):
                found.append(status)
    return JobPage(found, None, False)


def parse_moment(seconds: str | None) -> float:
    """Return the moment of epoch seconds in an address; later than all others if they are not valid."""
    try:
        moment = float(seconds or "")
    except ValueError:
        return math.inf
    return moment if moment >= 0 else math.inf


def phase_of(status: JobStatus) -> str:
    """Return the phase of a job, as people see it."""
    return str(getattr(status, "phase", status.state))


def name_failures(status: JobStatus) -> str:
    """Return how many requests of a job failed, by type: ``4 invalid_request_error, 3 expired``."""
    return ", ".join(f"{failure.count:,} {failure.type}" for failure in status.failures)


def short_reason(status: JobStatus) -> str:
    """Return why a job failed, without its id, which stands beside it."""
    error = status.error or ""
    before, found, reason = error.partition(" failed: ")
    return reason if found and before.startswith(f"job {status.job_id}") else error


def _read_records(store: Store, before: float) -> Iterator[tuple[str, JobRecord]]:
    for job_id in store.jobs.job_ids(before):
        job = store.jobs.read_job(job_id)
        if job is not None:
            yield job_id, job


def _may_fit(job_id: str, job: JobRecord, text: str, phase: str, label: str) -> bool:
    """Return whether the job is one that is searched for, as far as its own record says."""
    if phase and job.state not in _STATES.get(phase, (phase,)):
        return False
    own = job.label or ""
    return (not label or own == label) and (job_id.startswith(text) or text.casefold() in own.casefold())
