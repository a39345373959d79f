"""Anthropic Message Batches from Celery: ``run_batch.delay(requests)``, and ``BatchJob`` for the state and results."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from claude_batch_tasks._version import __version__ as __version__

if TYPE_CHECKING:
    from claude_batch_tasks import errors, signals
    from claude_batch_tasks.jobs import Estimate, adopt, estimate, list_jobs, list_pools, list_workers
    from claude_batch_tasks.jobs.batch_job import BatchJob
    from claude_batch_tasks.jobs.job_status import BatchStatus, FailureCount, JobStatus
    from claude_batch_tasks.records import Attempt, HistoryEvent, PoolSummary, Progress, Summary, WorkerPresence
    from claude_batch_tasks.results import Answer, AskResult, RequestResult
    from claude_batch_tasks.settings.job_options import AskOptions, JobOptions
    from claude_batch_tasks.tasks.asks import ask
    from claude_batch_tasks.tasks.run_batch import run_batch

__all__ = [
    "Answer",
    "AskOptions",
    "AskResult",
    "Attempt",
    "BatchJob",
    "BatchStatus",
    "Estimate",
    "FailureCount",
    "HistoryEvent",
    "JobOptions",
    "JobStatus",
    "PoolSummary",
    "Progress",
    "RequestResult",
    "Summary",
    "WorkerPresence",
    "adopt",
    "ask",
    "errors",
    "estimate",
    "list_jobs",
    "list_pools",
    "list_workers",
    "run_batch",
    "signals",
]

# Imported on first use: every `celery` command and every pytest run loads this package through its entry points, and
# must not spend a second on importing the SDK.
_HOME = {
    "Answer": "results.answers_by_reference",
    "AskOptions": "settings.job_options",
    "AskResult": "results.ask_result",
    "Attempt": "records",
    "BatchJob": "jobs.batch_job",
    "BatchStatus": "jobs.job_status",
    "Estimate": "jobs.estimating",
    "FailureCount": "results.failures",
    "HistoryEvent": "records",
    "JobOptions": "settings.job_options",
    "JobStatus": "jobs.job_status",
    "PoolSummary": "records",
    "Progress": "records",
    "RequestResult": "results.reader",
    "Summary": "records",
    "WorkerPresence": "records",
    "adopt": "jobs.adopting",
    "ask": "tasks",
    "estimate": "jobs.estimating",
    "list_jobs": "jobs.listing",
    "list_pools": "jobs.listing",
    "list_workers": "jobs.listing",
    "run_batch": "tasks",
}


if not TYPE_CHECKING:  # else a name that is misspelled would be one of any type

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            importlib.import_module(f"{__name__}.results.answers_by_reference")
            return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        if name in ("errors", "signals"):
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if "kombu" in sys.modules:  # else it is loaded with the first of the above
    # A process that decodes messages and results must know references to answers, whatever else of this it uses.
    importlib.import_module(f"{__name__}.results.answers_by_reference")
