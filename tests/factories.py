"""What tests are full of, each with what it must have and no more: params of requests, records of jobs and batches."""

from __future__ import annotations

from typing import Any

from claude_batch_tasks.records import BatchRecord, JobRecord


def make_params(text: Any = "hello", **params: Any) -> dict[str, Any]:
    """Return the params of a request; those that are given as ``...`` are left out."""
    own = {"model": "claude-haiku-4-5", "max_tokens": 16, "messages": [{"role": "user", "content": text}], **params}
    return {name: value for name, value in own.items() if value is not ...}


def make_job_record(**fields: Any) -> JobRecord:
    """Return the record of a job of one request."""
    return JobRecord(**{"nonce": "n", "requests": 1, "batches": 1, "submitted_at": 1.0, **fields})


def make_batch_record(**fields: Any) -> BatchRecord:
    """Return the record of a batch of one request."""
    return BatchRecord(**{"first": 0, "count": 1, "body_bytes": 9, **fields})
