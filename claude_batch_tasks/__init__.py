"""Anthropic Message Batches from Celery: ``run_batch.delay(requests)``, and ``BatchJob`` for what comes of it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from claude_batch_tasks import errors, signals
    from claude_batch_tasks.estimating import Estimate, estimate
    from claude_batch_tasks.job import BatchJob, BatchStatus, JobStatus, adopt, list_jobs
    from claude_batch_tasks.reading import RequestResult
    from claude_batch_tasks.records import HistoryEvent
    from claude_batch_tasks.tasks.run_batch import run_batch

__all__ = [
    "BatchJob",
    "BatchStatus",
    "Estimate",
    "HistoryEvent",
    "JobStatus",
    "RequestResult",
    "adopt",
    "errors",
    "estimate",
    "list_jobs",
    "run_batch",
    "signals",
]
__version__ = "0.2.0"

# On first use: every `celery` command and every pytest run loads this package through its entry points, and must not
# pay a second for the SDK.
_HOME = {
    "BatchJob": "job",
    "BatchStatus": "job",
    "Estimate": "estimating",
    "HistoryEvent": "records",
    "JobStatus": "job",
    "RequestResult": "reading",
    "adopt": "job",
    "estimate": "estimating",
    "list_jobs": "job",
    "run_batch": "tasks",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    if name in ("errors", "signals"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
