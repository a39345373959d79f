"""Retries: a new job of the requests of an ended job that failed, and of nothing else."""

from __future__ import annotations

from claude_batch_tasks.jobs.retries.starting import count_retryable as count_retryable, retry_job as retry_job
