"""What tests are full of, each with what it must have and no more: params of requests, records of jobs and batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from claude_batch_tasks.checks import servers
from claude_batch_tasks.checks.problems import Finding
from claude_batch_tasks.records import BatchRecord, JobRecord, ServerReport
from claude_batch_tasks.settings import redis_reports
from claude_batch_tasks.store.redis.parts.inspection import judge_version


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


def find_in_info(info: Mapping[str, Any], *roles: str) -> list[Finding]:
    """What is found of a Redis that answers ``INFO`` so, by default of the store's."""
    reported = [*redis_reports.judge_info(info), *judge_version(info)]
    server = servers.Server(dict.fromkeys(roles or ("store",), "redis://host:6379/0"))
    return list(servers.findings_of(server, ServerReport(problems=tuple(reported))))
