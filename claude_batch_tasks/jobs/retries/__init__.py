"""Retries: a new job of the requests of an ended job that failed, and of nothing else."""

from __future__ import annotations

from claude_batch_tasks.jobs.retries.counting import count_retryable as count_retryable
from claude_batch_tasks.jobs.retries.starting import retry_job as retry_job
