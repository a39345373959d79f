"""The Redis that is broker, back end and store is restarted under a worker: the worker lives, and nothing is lost.

From Celery 5.7 on that is the doing of ``claude_batch_tasks.transport``, as its absence shows.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import celery
import kombu
import pytest
import redis
from celery import Celery
from kombu.transport import redis as kombu_redis

from claude_batch_tasks import BatchJob, run_batch, transport
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.simulator import Behaviour, Scenario, Simulator
from tests.integration.rig import account_for, requests
from tests.support import wait_until

pytestmark = [pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(400)]

#: Before, a worker gives up what it held, or ends, with or without us; its supervisor and the timeout mend that.
guarded = pytest.mark.skipif(celery.VERSION[:2] < (5, 7), reason="nothing is guarded before Celery 5.7")
#: The versions whose workers end whenever their Redis restarts.
affected = pytest.mark.skipif(celery.VERSION[:2] != (5, 7), reason="this Celery does not have the defect")

#: An app of somebody's own; it notes what ran in a file.
APP = """
import os, time
from celery import Celery

app = Celery("own", broker=os.environ["CELERY_BROKER_URL"])
app.conf.update(task_acks_late=True, broker_connection_retry_on_startup=True)

@app.task(name="note")
def note(text, seconds=0):
    time.sleep(seconds)
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(text + "\\n")
"""
GUARD = """
import claude_batch_tasks.transport
claude_batch_tasks.transport.install()
"""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis of the test's own, for it to restart."""
    with RedisServer() as server:
        yield server


def restart(server: RedisServer, *, kill: bool = False, down: float = 0.5) -> None:
    server.stop(kill=kill)
    time.sleep(down)
    server.start()


@guarded
@pytest.mark.timeout(600)
def test_jobs_outlive_restarts_of_redis(
    server: RedisServer, store_setting: dict[str, str], start_worker: Callable[..., Worker]
) -> None:
    url = server.url
    app = Celery("tests", broker=url, backend=url, set_as_current=False)
    app.conf.update(store_setting)
    app.loader.import_task_module("claude_batch_tasks.tasks")
    app.set_current()
    server.client().config_set("maxmemory-policy", "allkeys-lru")  # until its restart
    with Simulator(Scenario("slow", "Batches take 7 s.", Behaviour(processing_seconds=7.0))) as simulator:
        worker = start_worker(simulator.url, CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND=url)
        pid = worker.pid
        # Ids only: an AsyncResult would listen to the very server that goes.
        jobs = [BatchJob(run_batch.delay(requests(f"job {job}", 10)).id, app) for job in range(3)]
        time.sleep(1)
        for kill in (False, True):
            restart(server, kill=kill)
            time.sleep(2.5)
        for job in jobs:
            wait_until(lambda job=job: job.status().summary, 150)
            status = job.status()
            assert (status.state, status.succeeded) == ("completed", 10)
            assert len(list(job.results())) == 10
        journal = simulator.journal()
        assert journal.paid_twice() == journal.unpaid() == []
        assert len(journal.prompts) == 30
        assert (worker.pid, worker.returncode) == (pid, None)
        log = worker.log.read_text()
        assert log.count("Connection to broker lost") >= 2
        assert log.count("maxmemory-policy noeviction") == 1  # said at its start, see ``checks``
    app.close()


@guarded
@pytest.mark.parametrize("cancels", [False, True])
def test_a_job_that_ends_while_redis_restarts(
    cancels: bool,
    server: RedisServer,
    store_setting: dict[str, str],
    start_here: Callable[..., Worker],
    tmp_path: Path,
) -> None:
    """Its last step is under way. An app of somebody's own may have it killed, which Celery takes for a revoke."""
    app = Celery("tests", broker=server.url, backend=server.url, set_as_current=False)
    app.conf.update(store_setting)
    app.loader.import_task_module("claude_batch_tasks.tasks")
    app.set_current()
    slow = tmp_path / "slow"
    env = {
        "CELERY_BROKER_URL": server.url,
        "CELERY_RESULT_BACKEND": server.url,
        "CLAUDE_BATCH_RECOVER_AFTER": "5",
        "SLOW": str(slow),
        "CANCELS": str(cancels),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    with Simulator("healthy") as simulator:
        worker = start_here(simulator.url, app="tests.integration.slow", **env)
        job_id = run_batch.delay(requests("slow", 5)).id
        wait_until(slow.exists)
        restart(server, kill=True)
        wait_until(lambda: app.backend.get_task_meta(job_id)["status"] == "SUCCESS")
        assert BatchJob(job_id, app).status().state == "completed"
        assert account_for(app, job_id, "slow", 5) == {"succeeded": 5}
        assert simulator.journal().paid_twice() == []
        assert cancels or "a lost connection ended its step" not in worker.log.read_text()
        assert worker.returncode is None
    app.close()


class Own:
    """A worker of an app of somebody's own, which holds five countdowns and runs a sixth task."""

    def __init__(self, server: RedisServer, environment: dict[str, str], folder: Path, code: str) -> None:
        self.server, self.notes = server, folder / "notes"
        (folder / "own.py").write_text(code)
        env = {**environment, "CELERY_BROKER_URL": server.url, "PYTHONPATH": str(folder), "NOTES": str(self.notes)}
        self.worker = Worker(env, folder / "own.log", app="own")
        self.app = Celery("sender", broker=server.url, set_as_current=False)

    def __enter__(self) -> Own:
        self.worker.start()
        for number in range(5):
            self.app.send_task("note", (f"held {number}",), countdown=4)
        self.app.send_task("note", ("running", 3.0))
        wait_until(lambda: self.server.client().hlen("unacked") == 6)
        return self

    def __exit__(self, *_: object) -> None:
        self.app.close()
        self.worker.stop(kill=True)

    def ran(self) -> Counter[str]:
        return Counter(self.notes.read_text().splitlines() if self.notes.exists() else [])


@affected
def test_without_the_guard_the_worker_ends(server: RedisServer, environment: dict[str, str], tmp_path: Path) -> None:
    with Own(server, environment, tmp_path, APP) as own:
        restart(server)
        wait_until(lambda: own.worker.returncode is not None)
        assert own.worker.returncode == 1
        assert "has no attribute 'hostname'" in own.worker.log.read_text()
        assert server.client().hlen("unacked") >= 5  # unseen for an hour


@guarded
def test_with_the_guard_it_runs_what_it_held_once(
    server: RedisServer, environment: dict[str, str], tmp_path: Path
) -> None:
    with Own(server, environment, tmp_path, GUARD + APP) as own:
        restart(server, kill=True)
        expected = {f"held {number}" for number in range(5)} | {"running"}
        # The visibility timeout is an hour: what comes back has been given back.
        wait_until(lambda: set(own.ran()) == expected and server.client().hlen("unacked") == 0)
        ran = own.ran()
        # Celery lets a running task go on, and cannot acknowledge it any more: that one may run again.
        assert {text: times for text, times in ran.items() if times > 1 and text != "running"} == {}
        assert own.worker.returncode is None


@guarded
def test_a_stop_while_redis_is_down_ends_and_loses_nothing(
    server: RedisServer, environment: dict[str, str], tmp_path: Path
) -> None:
    with Own(server, environment, tmp_path, GUARD + APP) as own:
        server.stop()
        wait_until(lambda: "Cannot connect" in own.worker.log.read_text())
        os.kill(own.worker.pid, signal.SIGTERM)
        wait_until(lambda: own.worker.returncode is not None, 20)
        assert own.worker.returncode == 0
        server.start()
        assert server.client().hlen("unacked") + server.client().llen("celery") >= 5


@guarded
@pytest.mark.parametrize("prefix", ["", "mine:"])
def test_a_message_that_is_popped_but_not_noted_comes_back(
    server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[Any] = []

    def connect() -> Any:
        return kombu.Connection(
            server.url,
            transport="claude_batch_tasks.transport:Transport",
            transport_options={"global_keyprefix": prefix},
        )

    def consume(connection: Any) -> None:
        with connection.SimpleQueue("queue") as queue:
            message = queue.get(timeout=5)
            received.append(message.payload)
            message.ack()

    with connect() as connection, connection.SimpleQueue("queue") as queue:
        queue.put("only one")

    def refuse(*_: Any) -> None:
        raise redis.exceptions.ConnectionError("gone")

    with monkeypatch.context() as patch, connect() as connection:
        patch.setattr(kombu_redis.QoS, "append", refuse)
        with pytest.raises(redis.exceptions.ConnectionError):
            consume(connection)
    with server.client() as client:
        assert (client.llen(f"{prefix}queue"), client.hlen(f"{prefix}unacked")) == (0, 0)  # only in this process
    with connect() as connection:
        consume(connection)
        with pytest.raises(connection.SimpleQueue("queue").Empty):
            connection.SimpleQueue("queue").get(timeout=1.5)
    assert received == ["only one"]


@guarded
def test_every_url_of_a_redis_means_the_guarded_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kombu.transport, "TRANSPORT_ALIASES", dict(kombu.transport.TRANSPORT_ALIASES))
    monkeypatch.setattr(kombu.transport, "_transport_cache", {})
    urls = ("redis://host:6380/3", "rediss://host/0", "redis+socket:///run/redis.sock?virtual_host=2")
    before = [kombu.Connection(url).as_uri() for url in urls]
    transport.install()
    assert [kombu.Connection(url).as_uri() for url in urls] == before
    for url in urls:
        assert kombu.Connection(url).get_transport_cls() is transport.Transport
    assert kombu.Connection("rediss://host/0").ssl  # as with kombu's own
    assert kombu.Connection("redis://one;redis://two").get_transport_cls() is transport.Transport
    assert kombu.Connection("sentinel://host:26379").get_transport_cls() is transport.SentinelTransport
    assert kombu.Connection("amqp://host").get_transport_cls() is not transport.Transport


def test_older_versions_get_time_outs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kombu.transport, "TRANSPORT_ALIASES", dict(kombu.transport.TRANSPORT_ALIASES))
    monkeypatch.setattr(kombu.transport, "_transport_cache", {})
    monkeypatch.setattr(celery, "VERSION", (5, 6, 3))
    transport.install()
    used = kombu.Connection("redis://host/0").get_transport_cls()
    assert used is transport.BoundedTransport
    assert not issubclass(used.Channel.QoS, transport.QoS)
