"""The ids of jobs as people write them: short, or only their first characters."""

from __future__ import annotations

from typing import Protocol

from celery import Celery

from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.errors import AmbiguousJobId, JobNotFound
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import HasJobs, HasJobSearch, HasPools, open_store

#: Characters of an id that people are shown where there is little room, and the fewest that find a job.
SHOWN, LEAST = 8, 4

#: Ids that an error names.
_NAMED = 5


class _Searched(HasJobs, HasJobSearch, HasPools, Protocol):
    """Where jobs are found."""


def short_id(job_id: str) -> str:
    """Return the first characters of a job's id, by which people know it; ``find_job_id`` takes them."""
    return job_id[:SHOWN]


def find_job_id(prefix: str, app: Celery | None = None) -> str:
    """Return the id of the job that has this id, or whose id alone begins with it.

    No record of a job is read, however many jobs there are.

    Args:
        prefix: an id, or its first characters, at least 4 of them.
        app: the Celery app whose settings say where the store is; default: the current one.

    Raises:
        JobNotFound: there is no such job.
        AmbiguousJobId: the ids of several jobs begin like that.
        StoreUnavailable: the store does not answer.
    """
    return find_in_store(open_store(Settings.of(app or configured_app())), prefix)


def find_in_store(store: _Searched, prefix: str) -> str:
    """Return the id of the job in this store; see ``find_job_id``."""
    if prefix and (store.jobs.read_states([prefix])[0] is not None or store.pools.read_pool(prefix) is not None):
        return prefix
    if len(prefix) < LEAST:
        text = f"no job {prefix} in the store; the first characters of an id find a job if there are at least {LEAST}"
        raise JobNotFound(text)
    found = sorted(store.job_search.find_ids(prefix, _NAMED + 1))
    if not found:
        raise JobNotFound(
            f"no job {prefix} in the store, and none whose id begins like that: it was never submitted there, or its "
            "record has expired"
        )
    if len(found) > 1:
        more = " and more" if len(found) > _NAMED else ""
        raise AmbiguousJobId(
            f"several jobs have ids that begin with {prefix}: {', '.join(found[:_NAMED])}{more}; write more of the id",
            found[:_NAMED],
        )
    return found[0]
