"""What is said before the failed requests of a job are sent again: how many they are, and what they cost at most."""

from __future__ import annotations

from collections.abc import Collection

from celery import Celery

from claude_batch_tasks.cli import job_texts, output
from claude_batch_tasks.formatting import format_count
from claude_batch_tasks.jobs.batch_job import BatchJob
from claude_batch_tasks.jobs.estimating import estimate
from claude_batch_tasks.jobs.job_status import ENDED
from claude_batch_tasks.jobs.retries.choosing import Choice
from claude_batch_tasks.jobs.retries.reading import read_requests
from claude_batch_tasks.settings import Settings, prices_of
from claude_batch_tasks.store import open_store


def confirm_retry(app: Celery, job: BatchJob, types: Collection[str] | None, *, yes: bool, quiet: bool) -> None:
    """Say what a retry would send and cost, and on a terminal ask whether that is wanted.

    Raises:
        Abort: the answer is no.
    """
    store = open_store(Settings.of(app))
    record = store.jobs.read_job(job.id)
    if record is None or record.adopted or record.state not in ENDED:
        return  # the retry itself says why it cannot be
    choice = Choice(store, types)
    choice.choose_from(job.id, record)
    if not choice.count:
        return
    found = estimate(read_requests(store, choice.chosen), prices=prices_of(app))
    if not quiet or (not yes and output.can_ask()):
        size = format_count(choice.count, "failed request")
        output.say(f"A new job gets {size} of job {job.id}. Cost: {job_texts.format_most(found)}.")
    output.confirm("Submit it?", yes)
