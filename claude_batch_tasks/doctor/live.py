"""The live test: one tiny batch from end to end through the real pipeline."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from celery import Celery

from claude_batch_tasks.checks.problems import Finding
from claude_batch_tasks.doctor import workers
from claude_batch_tasks.jobs.batch_job import BatchJob
from claude_batch_tasks.jobs.estimating import estimate
from claude_batch_tasks.jobs.job_status import JobStatus
from claude_batch_tasks.records import HistoryEvent
from claude_batch_tasks.settings import Settings

#: Seconds between two polls of the job.
_EVERY = 0.5

#: Seconds after which there is a warning that no worker has started the job.
_UNTAKEN = 15.0


def make_requests(model: str) -> list[dict[str, Any]]:
    """Return the one request of the test, in a list."""
    params = {"model": model, "max_tokens": 16, "messages": [{"role": "user", "content": "Say OK."}]}
    return [{"custom_id": "doctor", "params": params}]


def greatest_cost(app: Celery, model: str) -> float | None:
    """Return what the test costs at most, in US dollars; None if the model's price is not known."""
    return estimate(make_requests(model), prices=Settings.of(app).prices).cost


def find_obstacles(app: Celery) -> list[Finding]:
    """Return the findings because of which no worker would take the job; an empty list if there are none."""
    return [finding for finding in workers.check_workers(app) if finding.level >= logging.ERROR]


def submit_test(app: Celery, model: str, client: str) -> BatchJob:
    """Submit the job. A request that fails is not sent again, since the test is about the way to the API."""
    task: Any = app.tasks["claude_batch_tasks.run_batch"]
    result = task.delay(make_requests(model), client=client, retries=0, fallback="off")
    return BatchJob(result.id, app)


def follow_job(
    job: BatchJob, timeout: float, report: Callable[[HistoryEvent], None], warn: Callable[[str], None]
) -> JobStatus:
    """Follow the job until it has ended or the time is over, and return its last status.

    Args:
        timeout: seconds.
        report: a function that is called with each event of the job's history.
        warn: called once with a text, if no worker takes the job.
    """
    begun, reported, warned = time.monotonic(), 0, False
    while True:
        status = job.status()
        events = job.history()
        for event in events[reported:]:
            report(event)
        reported = len(events)
        passed = time.monotonic() - begun
        if status.ended_at is not None or passed >= timeout:
            return status
        if status.state == "staged" and passed >= _UNTAKEN and not warned:
            warned = True
            warn(f"no worker has started the job for {_UNTAKEN:.0f} s; they may be busy")
        time.sleep(_EVERY)
