"""What the store lists: jobs, with filters, the workers that run, and what waits in pools of asks."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import NamedTuple, get_args

from celery import Celery

from claude_batch_tasks import rules
from claude_batch_tasks.checks import pools
from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.jobs.job_status import JobStatus, Waits, read_status
from claude_batch_tasks.records import JobLabels, JobState, Phase, PoolSummary, WorkerPresence
from claude_batch_tasks.results.job_results import check_choice
from claude_batch_tasks.settings import MetadataValue, Settings, check_label, check_metadata, has_labels
from claude_batch_tasks.store import HasJobSearch, Store, open_store

#: Jobs of which a few fields are read in one go.
_PAGE = 100


def list_jobs(
    *,
    states: Collection[JobState | Phase] | None = None,
    before: datetime | None = None,
    limit: int | None = None,
    label: str | None = None,
    metadata: Mapping[str, MetadataValue] | None = None,
    app: Celery | None = None,
) -> Iterator[JobStatus]:
    """Return the jobs in the store, the newest first; one at a time is read.

    Args:
        states: only those with one of these words as their ``phase`` or as their ``state``, such as ``queued`` (or
            ``staged``: sent, and not begun), ``running``, ``saving results``, ``failed``.
        before: only those that were submitted before that moment, which has a time zone.
        limit: so many at most.
        label: only those that were submitted with this label.
        metadata: only those whose metadata have all of these pairs.
        app: the Celery app whose settings say where the store is; default: the current one.

    Raises:
        ValueError: there is no such state, or the moment has no time zone.
        InvalidSettings: no job can have such a label, or such metadata.
        StoreUnavailable: the store does not answer.
    """
    for state in states or ():
        check_choice("states", state, (*get_args(JobState), *rules.PHASES))
    if before is not None and before.tzinfo is None:
        raise ValueError(f"before must have a time zone, not {before!r}")
    wanted = _Filter(states, check_label(label), check_metadata(metadata))
    app = app or configured_app()
    store = open_store(Settings.of(app))
    ids = store.jobs.job_ids(math.inf if before is None else before.timestamp())
    found = _read_each(store, Waits(app, store), _select_ids(store, ids, wanted) if any(wanted) else ids)
    return islice(filter(wanted.fits, found), limit)


class _Filter(NamedTuple):
    """The jobs that are listed."""

    words: Collection[str] | None
    """One of them is the state or the phase; None: any."""
    label: str | None
    metadata: Mapping[str, str]

    def may_fit(self, job: JobLabels) -> bool:
        """Return whether a job fits as far as a few fields of its record say."""
        return self._may_have_state(job) and has_labels(
            job.label, job.metadata, wanted_label=self.label, wanted=self.metadata
        )

    def _may_have_state(self, job: JobLabels) -> bool:
        return self.words is None or any(job.state in rules.states_of(word) for word in self.words)

    def fits(self, job: JobStatus) -> bool:
        """Return whether a job that may fit is in one of the states or phases."""
        return self.words is None or not {job.state, job.phase}.isdisjoint(self.words)


def _select_ids(store: HasJobSearch, ids: Iterator[str], wanted: _Filter) -> Iterator[str]:
    """Yield the jobs that may fit; of the others no more than a few fields is read."""
    while page := list(islice(ids, _PAGE)):
        for job_id, found in zip(page, store.job_search.read_labels(page), strict=True):
            if found is not None and wanted.may_fit(found):
                yield job_id


def _read_each(store: Store, waits: Waits, ids: Iterator[str]) -> Iterator[JobStatus]:
    for job_id in ids:
        job = store.jobs.read_job(job_id)
        if job is not None:
            yield waits.explain(read_status(store, job_id, job), job)


def list_workers(app: Celery | None = None) -> list[WorkerPresence]:
    """Return the workers that run, as they reported to the store in the last minute; none of them is asked.

    Workers before 0.3 do not report.

    Args:
        app: the Celery app whose settings say where the store is; default: the current one.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    return open_store(Settings.of(app or configured_app())).presence.list_workers()


def list_pools(*, jobs: bool = True, app: Celery | None = None) -> list[PoolSummary]:
    """Return what waits in pools of asks and in the jobs that were made of them, by queue and name of the pool.

    Args:
        jobs: whether jobs are counted too: a few fields of each job in the store are read for it.
        app: the Celery app whose settings say where the store is; default: the current one.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    app = app or configured_app()
    return pools.summarize_pools(app, open_store(Settings.of(app)), jobs=jobs)
