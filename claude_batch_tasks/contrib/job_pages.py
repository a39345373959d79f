"""The list of jobs as people page through it, in the admin and on the progress page: searched, and by phase."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, get_args

from celery import Celery

from claude_batch_tasks import rules
from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.jobs.job_status import JobStatus, Waits, read_status
from claude_batch_tasks.records import JobLabels, JobState
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import Store, open_store
from claude_batch_tasks.wire import answer_texts

#: The number of jobs on a page.
JOBS = 25

#: The number of jobs that are searched for one page, so that a search ends in a large store too.
SEARCHED = 10_000

#: Jobs of which a few fields are read in one go.
_GROUP = 100


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
    waits = Waits(app, store)
    wanted = _Wanted(text.strip(), label, phase if phase in (*rules.PHASES, *get_args(JobState)) else "")
    found: list[JobStatus] = []
    for searched, (job_id, labels) in enumerate(_read_labels(store, store.jobs.job_ids(before))):
        full = len(found) == JOBS
        over = full or searched >= SEARCHED
        job = store.jobs.read_job(job_id) if over or wanted.may_be(job_id, labels) else None
        if job is None:
            continue
        if over:  # that job is the first one of the next page
            return JobPage(found, math.nextafter(job.submitted_at, math.inf), not full)
        status = waits.explain(read_status(store, job_id, job), job)
        if wanted.phase in ("", status.phase, status.state):
            found.append(status)
    return JobPage(found, None, False)


class _Wanted(NamedTuple):
    """What jobs are searched for by."""

    text: str
    label: str
    phase: str

    def may_be(self, job_id: str, job: JobLabels) -> bool:
        """Return whether a job is wanted, as far as a few fields of its record say."""
        if self.phase and job.state not in rules.states_of(self.phase):
            return False
        own = job.label or ""
        by_text = job_id.startswith(self.text) or self.text.casefold() in own.casefold()
        return by_text and self.label in ("", own)


def _read_labels(store: Store, job_ids: Iterator[str]) -> Iterator[tuple[str, JobLabels]]:
    while some := list(islice(job_ids, _GROUP)):
        for job_id, labels in zip(some, store.job_search.read_labels(some), strict=True):
            if labels is not None:
                yield job_id, labels


def parse_moment(seconds: str | None) -> float:
    """Return the moment of epoch seconds in an address; later than all others if they are not valid."""
    try:
        moment = float(seconds or "")
    except ValueError:
        return math.inf
    return moment if moment >= 0 else math.inf


def is_live(status: JobStatus) -> bool:
    """Return whether a job may still change."""
    return status.ended_at is None or status.phase == "delivering"


def find_share(status: JobStatus) -> int:
    """Return how much of a job is done, in thousandths; of a job that runs it may be an estimate."""
    if status.progress is not None:
        return round(1000 * status.progress.fraction)
    return round(1000 * status.done / status.requests) if status.requests else 0


def is_estimated(status: JobStatus) -> bool:
    """Return whether that is an estimate."""
    return status.progress is not None and not status.progress.measured


def describe_progress(status: JobStatus) -> str:
    """Return how much of a job is done as a short text: ``30 of 200``, ``0 of 200, about 40 %``."""
    estimated = status.progress.fraction if status.progress is not None and is_estimated(status) else None
    estimate = "" if estimated is None else f", about {100 * estimated:.0f} %"
    return f"{status.done:,} of {status.requests:,}{estimate}"


def name_failures(status: JobStatus) -> str:
    """Return how many requests of a job failed, by type: ``4 invalid_request_error, 3 expired``."""
    return ", ".join(f"{failure.count:,} {failure.type}" for failure in status.failures if not failure.incomplete)


def name_incomplete(status: JobStatus) -> str:
    """Return how many answers of a job are not complete, and why: ``3 answers are incomplete (3 refusal)``."""
    return answer_texts.format_incomplete(status.incomplete)


def short_reason(status: JobStatus) -> str:
    """Return why a job failed, without its id, which stands beside it."""
    error = status.error or ""
    before, found, reason = error.partition(" failed: ")
    return reason if found and before.startswith(f"job {status.job_id}") else error
