"""Anthropic Message Batches from Celery: ``run_batch.delay(requests)``, and ``BatchJob`` for what comes of it."""

from __future__ import annotations

from claude_batch_tasks import errors
from claude_batch_tasks.job import BatchJob, BatchStatus, JobStatus, RequestResult
from claude_batch_tasks.tasks import run_batch

__all__ = ["BatchJob", "BatchStatus", "JobStatus", "RequestResult", "errors", "run_batch"]
__version__ = "0.1.0"
