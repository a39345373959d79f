"""How many requests of each type a retry would send again, for those who ask before they start it."""

from __future__ import annotations

from collections.abc import Mapping

from celery import Celery

from claude_batch_tasks import errors
from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.jobs.retries.choosing import Choice
from claude_batch_tasks.jobs.retries.starting import check_parent
from claude_batch_tasks.results.job_results import read_job
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import open_store


def count_retryable(job_id: str, app: Celery | None = None) -> Mapping[str, int]:
    """Return how many requests of each failure type ``retry_failed()`` would send again now. Results are read for it.

    Raises:
        BatchTasksError: none can be sent again; the text says why.
    """
    store = open_store(Settings.of(app or configured_app()))
    job = read_job(store, job_id)
    check_parent(job_id, job)
    choice = Choice(store, None)
    choice.choose_from(job_id, job)
    if not choice.count:
        raise errors.NothingToRetry(choice.explain(job_id))
    return dict(choice.chosen_types.most_common())
