"""The store behind Redis Sentinels: a failover during a job loses neither the job nor what was paid for."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult

from claude_batch_tasks import run_batch
from claude_batch_tasks.doctor import servers
from claude_batch_tasks.embedded import RedisServer, Worker, free_port, redis_binary
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.simulator import Simulator
from claude_batch_tasks.store import open_store
from tests.integration.rig import requests
from tests.support import wait_until

pytestmark = [pytest.mark.redis_store("its Sentinels"), pytest.mark.workers, pytest.mark.timeout(180)]

PASSWORD = "of-the-sentinels"


class Group(NamedTuple):
    """A primary, its replica, and the Sentinels' URL."""

    primary: RedisServer
    replica: RedisServer
    url: str


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    """Two servers with two Sentinels, which take a second to notice that the primary is gone."""
    with ExitStack() as stack:
        primary, replica = (stack.enter_context(RedisServer()) for _ in range(2))
        replica.client().replicaof("127.0.0.1", primary.port)
        wait_until(lambda: replica.client().info()["master_link_status"] == "up", 20)
        ports = [free_port(), free_port()]
        for port in ports:
            conf = tmp_path / f"sentinel-{port}.conf"
            conf.write_text(
                f"port {port}\nbind 127.0.0.1\nrequirepass {PASSWORD}\nsentinel sentinel-pass {PASSWORD}\n"
                f"sentinel monitor ours 127.0.0.1 {primary.port} 2\nsentinel down-after-milliseconds ours 1000\n"
                "sentinel failover-timeout ours 3000\n"
            )
            process = subprocess.Popen(
                [str(redis_binary()), str(conf), "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait, 20)
            stack.callback(process.kill)
        wait_until(lambda: all(knows_all(port) for port in ports), 30)
        yield Group(primary, replica, ";".join(f"sentinel://127.0.0.1:{port}" for port in ports) + "/2")


def knows_all(port: int) -> bool:
    try:
        told = redis.Redis(port=port, password=PASSWORD).sentinel_master("ours")
    except redis.RedisError:
        return False
    return bool(told["num-other-sentinels"] == 1 and told["num-slaves"] == 1)


@pytest.mark.parametrize("how", ["killed", "told"])
def test_a_job_outlives_a_failover(
    how: str, group: Group, app: Celery, simulator: Simulator, start_here: Callable[..., Worker]
) -> None:
    settings = {
        "claude_batch_store_url": group.url,
        "result_backend_transport_options": {"master_name": "ours", "sentinel_kwargs": {"password": PASSWORD}},
    }
    app.conf.update(settings)
    simulator.behave(processing_seconds=8)
    start_here(simulator.url, config={**settings, "claude_batch_retry_min": 0.2, "claude_batch_retry_max": 1.0})
    job: AsyncResult[dict[str, int]] = run_batch.delay(requests("s", 5), poll_min=0.2, poll_max=0.5)
    wait_until(lambda: simulator.journal().batches, 30)
    assert any(b"claude_batch" in key for key in group.primary.client(2).scan_iter())
    wait_until(lambda: group.replica.client(2).dbsize() == group.primary.client(2).dbsize(), 10)
    found = [str(one) for one in servers.check_servers(app) if "ours by the Sentinels" in one.text]
    assert len(found) == 1, found
    assert "answers: Valkey" in found[0]
    if how == "killed":
        group.primary.stop(kill=True)
    else:  # it lives on, and becomes a replica
        port = int(group.url.split("/")[2].split(";")[0].split(":")[1])
        redis.Redis(port=port, password=PASSWORD).execute_command("SENTINEL", "FAILOVER", "ours")
    assert job.get(timeout=100)["succeeded"] == 5
    assert group.replica.client().info()["role"] == "master"
    assert len(simulator.journal().batches) == 1, "nothing was paid for twice"
    assert open_store(Settings.of(app)).jobs.read_job(job.id).state == "completed"  # type: ignore[union-attr]
