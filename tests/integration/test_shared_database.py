"""Two projects with one database, each with Celery's ``global_keyprefix``: each job is done by its own workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.simulator import Simulator
from tests.integration.rig import requests

pytestmark = [pytest.mark.redis_store("the names of its keys"), pytest.mark.workers, pytest.mark.timeout(120)]


def options(prefix: str) -> dict[str, Any]:
    transport = {"global_keyprefix": prefix}
    return {"broker_transport_options": transport, "result_backend_transport_options": transport}


def test_each_job_is_done_by_its_own_workers(
    redis_server: RedisServer, redis_url: str, start_here: Callable[..., Worker]
) -> None:
    redis_server.client().flushall()
    with Simulator("healthy") as one, Simulator("healthy") as two:
        done = []
        for simulator, prefix in ((one, "one:"), (two, "two:")):
            start_here(simulator.url, config=options(prefix), options=("--pool=solo",))
        for simulator, prefix in ((one, "one:"), (two, "two:")):
            app = Celery("tests", broker=redis_url, backend=redis_url, set_as_current=False)
            app.conf.update(options(prefix))
            app.loader.import_task_module("claude_batch_tasks.tasks")
            app.set_current()
            done.append(
                (
                    app,
                    simulator,
                    [run_batch.delay(requests(f"{prefix}{n}", 3), poll_max=0.5, poll_min=0.1) for n in range(3)],
                )
            )
        for app, simulator, jobs in done:
            app.set_current()
            for job in jobs:
                assert app.AsyncResult(job.id).get(timeout=60)["succeeded"] == 3
            assert len(simulator.journal().batches) == 3
            app.close()
        keys = [key.decode() for key in redis_server.client().scan_iter()]
        ours = [key for key in keys if "claude_batch" in key]
        assert ours
        assert all(key.startswith(("one:", "two:")) for key in ours), ours
