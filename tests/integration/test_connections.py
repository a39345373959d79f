"""How many connections to Redis a worker opens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.simulator import Simulator
from tests.integration.rig import requests
from tests.support import wait_until

pytestmark = [
    pytest.mark.redis_store("its connections"),
    pytest.mark.latest,
    pytest.mark.workers,
    pytest.mark.timeout(120),
]


@pytest.mark.parametrize("scenario", ["healthy", "create-404-always"])
def test_a_worker_of_four_processes_fits_a_redis_of_twenty(scenario: str, start_here: Callable[..., Worker]) -> None:
    most = 0
    with RedisServer() as server, Simulator(scenario, process=True) as simulator:
        app = Celery("tests", broker=server.url, backend=server.url, set_as_current=False)
        app.loader.import_task_module("claude_batch_tasks.tasks")
        app.set_current()
        settings = {"poll_min": 0.1, "poll_max": 0.5, "create_not_found_limit": 2}
        jobs = [run_batch.delay(requests(f"c{n}", 20), **settings).id for n in range(8)]
        app.close()
        client: Any = server.client()
        for other in client.client_list():
            if other["id"] != str(client.client_id()):
                client.client_kill_filter(_id=other["id"])
        client.config_set("maxclients", 20)
        urls = {"CELERY_BROKER_URL": server.url, "CELERY_RESULT_BACKEND": server.url}
        start_here(simulator.url, options=("-c", "4"), config={"claude_batch_retry_min": 0.2}, **urls)

        def ended() -> bool:
            nonlocal most
            most = max(most, len(client.client_list()) - 1)
            found = [client.hget(f"claude_batch:{{{job}}}:job", "state") for job in jobs]
            return found == [b'"completed"'] * len(jobs)

        wait_until(ended, 60)
        assert most <= 18
        assert client.info("stats")["rejected_connections"] == 0
