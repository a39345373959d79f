"""Anthropic Message Batches from Celery: ``run_batch.delay(requests)``, and ``BatchJob`` for the state and results."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from claude_batch_tasks._version import __version__ as __version__

if TYPE_CHECKING:
    from claude_batch_tasks import errors, signals
    from claude_batch_tasks.jobs.adopting import adopt
    from claude_batch_tasks.jobs.batch_job import BatchJob
    from claude_batch_tasks.jobs.estimating import Estimate, estimate
    from claude_batch_tasks.jobs.job_status import BatchStatus, FailureCount, JobStatus
    from claude_batch_tasks.jobs.listing import list_jobs, list_workers
    from claude_batch_tasks.records import Attempt, HistoryEvent, Progress, Summary, WorkerPresence
    from claude_batch_tasks.results.reader import RequestResult
    from claude_batch_tasks.settings.job_options import JobOptions
    from claude_batch_tasks.tasks.run_batch import run_batch

__all__ = [
    "Attempt",
    "BatchJob",
    "BatchStatus",
    "Estimate",
    "FailureCount",
    "HistoryEvent",
    "JobOptions",
    "JobStatus",
    "Progress",
    "RequestResult",
    "Summary",
    "WorkerPresence",
    "adopt",
    "errors",
    "estimate",
    "list_jobs",
    "list_workers",
    "run_batch",
    "signals",
]

# Imported on first use: every `celery` command and every pytest run loads this package through its entry points, and
# must not spend a second on importing the SDK.
_HOME = {
    "Attempt": "records",
    "BatchJob": "jobs.batch_job",
    "BatchStatus": "jobs.job_status",
    "Estimate": "jobs.estimating",
    "FailureCount": "results.failures",
    "HistoryEvent": "records",
    "JobOptions": "settings.job_options",
    "JobStatus": "jobs.job_status",
    "Progress": "records",
    "RequestResult": "results.reader",
    "Summary": "records",
    "WorkerPresence": "records",
    "adopt": "jobs.adopting",
    "estimate": "jobs.estimating",
    "list_jobs": "jobs.listing",
    "list_workers": "jobs.listing",
    "run_batch": "tasks",
}


if not TYPE_CHECKING:  # else a name that is misspelled would be one of any type

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        if name in ("errors", "signals"):
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
