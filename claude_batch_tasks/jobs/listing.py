"""The list of all jobs in a store."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from datetime import datetime
from itertools import islice
from typing import get_args

from celery import Celery

from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.jobs.job_status import JobStatus, read_status
from claude_batch_tasks.records import JobState
from claude_batch_tasks.results.job_results import check_choice
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import Store, open_store


def list_jobs(
    *,
    states: Collection[JobState] | None = None,
    before: datetime | None = None,
    limit: int | None = None,
    app: Celery | None = None,
) -> Iterator[JobStatus]:
    """Return the jobs in the store, the newest first; one at a time is read.

    Args:
        states: only those that are ``staged`` (sent, and not begun), ``running``, ``completed``, ``canceled``,
            ``failed`` or ``revoked``.
        before: only those that were submitted before that moment, which has a time zone.
        limit: so many at most.
        app: the Celery app whose settings say where the store is; default: the current one.

    Raises:
        ValueError: there is no such state, or the moment has no time zone.
        StoreUnavailable: the store does not answer.
    """
    known = get_args(JobState)
    for state in states or ():
        check_choice("states", state, known)
    if before is not None and before.tzinfo is None:
        raise ValueError(f"before must have a time zone, not {before!r}")
    store = open_store(Settings.of(app or configured_app()))
    ids = store.jobs.job_ids(math.inf if before is None else before.timestamp())
    return islice(_read_each(store, ids, known if states is None else states), limit)


def _read_each(store: Store, ids: Iterator[str], states: Collection[JobState]) -> Iterator[JobStatus]:
    for job_id in ids:
        job = store.jobs.read_job(job_id)
        if job is not None and job.state in states:
            yield read_status(store, job_id, job)
