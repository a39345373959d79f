"""No Redis at all: RabbitMQ as broker, PostgreSQL as store and as result back end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from celery import Celery, shared_task

from claude_batch_tasks import BatchJob, ask, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Outcome, Simulator
from claude_batch_tasks.store.postgres.migrations import migrate
from tests.factories import make_params
from tests.integration.rig import Source, account_for, requests, set_up
from tests.integration.test_brokers import RABBITMQ, REPORT, Rabbit, rabbit
from tests.support import FAST, REFUSE_REDIS, inherited, wait_until

__all__ = ["rabbit"]

pytestmark = [pytest.mark.workers, pytest.mark.timeout(400)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "without_redis"


@shared_task(name="tests.without_redis.called")
def called(summary: dict[str, Any]) -> None:
    """A callback; nobody runs it, its messages are counted."""


class Deployment:
    """The addresses of one deployment, the settings of its processes, and whether one of them wanted a Redis."""

    def __init__(self, rabbit: Rabbit, postgres_url: str, folder: Path) -> None:
        self.store_url = postgres_url
        self.backend_url = f"db+postgresql+psycopg{postgres_url.removeprefix('postgresql')}"
        self._wanted = folder / "wanted-redis"
        self.settings = {**rabbit.settings("classic"), "redis_refused": Source(f"exec({self.refuse!r})")}
        self.env = {
            "CELERY_BROKER_URL": RABBITMQ,
            "CELERY_RESULT_BACKEND": self.backend_url,
            "CLAUDE_BATCH_STORE_URL": self.store_url,
        }

    def name(self) -> str:
        """A name for a worker, which no other has at this broker."""
        return f"worker-{uuid.uuid4().hex[:8]}"

    @property
    def refuse(self) -> str:
        return REFUSE_REDIS.format(path=str(self._wanted))

    def check(self, *workers: Worker) -> None:
        """No process wanted a Redis, and the workers are connected to nothing but broker, database and API."""
        assert not self._wanted.exists(), self._wanted.read_text()
        for worker in workers:
            assert "Traceback" not in worker.log.read_text()

    def ports(self, *others: int) -> set[int]:
        """The ports that workers may be connected to."""
        return {urlsplit(RABBITMQ).port or 5672, urlsplit(self.store_url).port or 5432, *others}


def connected_ports(group: int) -> set[int]:
    """The remote ports of all TCP connections that the processes of a group have made."""
    members = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if group_of(pid) == group]
    inodes = set()
    for pid in members:
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        inodes |= {link[8:-1] for link in links if link.startswith("socket:[")}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and fields[3] == "01":
                found.add(int(fields[2].rpartition(":")[2], 16))
    return found


def group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


@pytest.fixture
def deployment(rabbit: Rabbit, postgres_url: str, tmp_path: Path) -> Deployment:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        migrate(connection)
    return Deployment(rabbit, postgres_url, tmp_path)


@pytest.fixture
def app(rabbit: Rabbit, deployment: Deployment) -> Iterator[Celery]:
    """The caller's app."""
    with Celery("tests", broker=RABBITMQ, backend=deployment.backend_url, set_as_current=False) as app:
        app.conf.update(claude_batch_store_url=deployment.store_url, **rabbit.settings("classic"))
        app.loader.import_task_module("claude_batch_tasks.tasks")
        app.set_current()
        yield app


def test_the_report(app: Celery, rabbit: Rabbit, deployment: Deployment, start_here: Callable[..., Worker]) -> None:
    """404s everywhere, another chance through the Messages API, progress under the caller's id, a callback."""
    with Simulator(REPORT) as simulator:
        worker = start_here(
            simulator.url,
            options=("--concurrency=2",),
            config=deployment.settings,
            name=deployment.name(),
            **deployment.env,
        )
        link = called.s().set(queue=rabbit.callbacks)
        result = run_batch.apply_async((requests("report", 20),), {"retries": 0}, link=link)
        info = wait_until(lambda: result.state == "PROGRESS" and result.info)
        assert (info["requests"], info["processing"]) == (20, 20)
        ports = connected_ports(worker.pid)
        summary = result.get(timeout=180)
        assert (summary["state"], summary["succeeded"], summary["errored"]) == ("completed", 19, 1)
        assert account_for(app, result.id, "report", 20) == {"succeeded": 19, "errored": 1}
        assert BatchJob(result.id, app).status().polls_404 > 0
        wait_until(lambda: rabbit.messages(rabbit.callbacks) == 1)
        assert simulator.journal().paid_twice() == []
    assert urlsplit(deployment.store_url).port in ports
    assert ports <= deployment.ports(simulator.port)
    deployment.check(worker)


def test_single_requests_share_a_batch(app: Celery, deployment: Deployment, start_here: Callable[..., Worker]) -> None:
    with Simulator() as simulator:
        simulator.behave(processing_seconds=0.5)
        worker = start_here(
            simulator.url,
            options=("--concurrency=2",),
            config=deployment.settings,
            name=deployment.name(),
            **deployment.env,
        )
        app.conf.claude_batch_ask_max_wait = 0.5
        results = [ask.delay(make_params(f"ask {number}")) for number in range(5)]
        assert [result.get(timeout=120).text for result in results] == [f"Echo: ask {number}" for number in range(5)]
        assert simulator.journal().paid_twice() == []
    deployment.check(worker)


def test_a_worker_that_is_killed_loses_nothing(
    app: Celery, deployment: Deployment, start_here: Callable[..., Worker]
) -> None:
    with Simulator() as simulator:
        simulator.behave(processing_seconds=2, outcomes=[Outcome("expired", count=1)])
        env = {**deployment.env, "CLAUDE_BATCH_RECOVER_AFTER": "2"}
        first = start_here(
            simulator.url, options=("--concurrency=2",), config=deployment.settings, name=deployment.name(), **env
        )
        jobs = {f"killed {number}": run_batch.delay(requests(f"killed {number}", 4)) for number in range(3)}
        wait_until(lambda: simulator.journal().totals.batches_created >= 2)
        os.killpg(first.pid, signal.SIGKILL)
        start_here(
            simulator.url, options=("--concurrency=2",), config=deployment.settings, name=deployment.name(), **env
        )
        for name, result in jobs.items():
            assert result.get(timeout=180)["succeeded"] == 4
            assert account_for(app, result.id, name, 4) == {"succeeded": 4}
        assert simulator.journal().paid_twice() == []
    deployment.check()


def test_the_example_needs_no_redis(deployment: Deployment, start_here: Callable[..., Worker], tmp_path: Path) -> None:
    """Neither its worker nor the process that submits."""
    with Simulator() as simulator:
        simulator.behave(processing_seconds=0.5)
        worker = start_here(
            simulator.url,
            options=("--concurrency=2",),
            config=deployment.settings,
            name=deployment.name(),
            **deployment.env,
        )
        submitted = subprocess.run(
            [sys.executable, str(EXAMPLE / "submit.py")],
            env={**inherited(), **FAST, **deployment.env},
            cwd=set_up(tmp_path / "caller", **deployment.settings),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
    assert submitted.stdout.splitlines() == [
        "completed",
        "Echo: Hello 0",
        "Echo: Hello 1",
        "Echo: Hello 2",
        "Echo: Hello again",
    ], submitted.stderr
    deployment.check(worker)


def test_an_app_that_forgets_the_store_is_told_what_to_set(deployment: Deployment, tmp_path: Path) -> None:
    env = {**inherited(), **deployment.env}
    del env["CLAUDE_BATCH_STORE_URL"]
    worker = Worker(env, tmp_path / "worker.log", cwd=set_up(tmp_path / "forgot", **deployment.settings))
    with pytest.raises(RuntimeError) as caught:
        worker.start()
    database = deployment.store_url.rpartition("@")[2]
    assert f"set it to 'postgresql://user:password@{database}'" in str(caught.value)
