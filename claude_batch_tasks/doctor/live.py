"""One tiny batch from end to end through the real pipeline."""

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

#: Seconds between two looks at the job.
_EVERY = 0.5

#: Seconds after which a job that no worker has taken is remarked upon.
_UNTAKEN = 15.0


def requests(model: str) -> list[dict[str, Any]]:
    """The one request."""
    params = {"model": model, "max_tokens": 16, "messages": [{"role": "user", "content": "Say OK."}]}
    return [{"custom_id": "doctor", "params": params}]


def cost(app: Celery, model: str) -> float | None:
    """US dollars at most; None: the model's price is not known."""
    return estimate(requests(model), prices=Settings.of(app).prices).cost


def obstacles(app: Celery) -> list[Finding]:
    """Why no worker would take it, if so."""
    return [finding for finding in workers.check(app) if finding.level >= logging.ERROR]


def submit(app: Celery, model: str, client: str) -> BatchJob:
    """Send it. What fails is not sent again: the way there is what is tried."""
    task: Any = app.tasks["claude_batch_tasks.run_batch"]
    result = task.delay(requests(model), client=client, retries=0, fallback="off")
    return BatchJob(result.id, app)


def follow(
    job: BatchJob, timeout: float, tell: Callable[[HistoryEvent], None], warn: Callable[[str], None]
) -> JobStatus:
    """Watch the job until it has ended or the time is over; the last that was seen of it.

    Args:
        timeout: seconds.
        tell: called with each event of its history.
        warn: called with a text once, if no worker takes it.
    """
    begun, told, warned = time.monotonic(), 0, False
    while True:
        status = job.status()
        events = job.history()
        for event in events[told:]:
            tell(event)
        told = len(events)
        passed = time.monotonic() - begun
        if status.ended_at is not None or passed >= timeout:
            return status
        if status.state == "staged" and passed >= _UNTAKEN and not warned:
            warned = True
            warn(f"no worker has taken the job for {_UNTAKEN:.0f} s; they may be busy")
        time.sleep(_EVERY)
