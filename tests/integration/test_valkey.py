"""Valkey's own schemes, for the store, the broker and the result back end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from celery import Celery
from celery.result import AsyncResult

from claude_batch_tasks import run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Simulator
from tests.integration.rig import requests

pytestmark = [pytest.mark.redis_store("its URL"), pytest.mark.workers, pytest.mark.timeout(120)]


def test_a_job_runs_on_them(
    app: Celery, redis_url: str, simulator: Simulator, start_here: Callable[..., Worker]
) -> None:
    url = redis_url.replace("redis", "valkey", 1)
    servers = {"CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}
    start_here(simulator.url, **servers)
    job: AsyncResult[dict[str, int]] = run_batch.delay(requests("v", 3), poll_min=0.1, poll_max=0.5)
    assert job.get(timeout=60)["succeeded"] == 3
