"""RabbitMQ as broker, Redis as store, Redis or PostgreSQL as result back end."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from amqp.exceptions import NotFound
from celery import Celery, shared_task
from kombu import Connection, Queue

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Behaviour, Fault, Outcome, Scenario, Simulator
from tests.adversarial.blackhole import Blackhole
from tests.integration.rig import Proxy, Source, account_for, requests
from tests.support import wait_until

pytestmark = [pytest.mark.workers, pytest.mark.timeout(400)]

RABBITMQ = os.environ.get("TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
POSTGRES = os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/test")

#: What RabbitMQ's native delayed delivery declares, under names that Celery does not let one choose.
DELAYS = [f"celery_delayed_{level}" for level in range(28)]

#: The three cases of the report and what may become of single requests, in ten seconds.
REPORT = Scenario(
    behaviour=Behaviour(
        processing_seconds=2.0,
        outcomes=(
            Outcome("expired", count=3),
            Outcome("errored", error="overloaded_error", count=3),
            Outcome("errored", error="invalid_request_error", count=1),
        ),
    ),
    faults=(
        Fault("create", "status", status=404, calls=(1, 2)),
        Fault("retrieve", "status", status=404, calls=(1, 2)),
        Fault("results", "status", status=404, calls=(1, 2)),
    ),
)


@dataclass
class Rabbit:
    """Names of one test's own on a RabbitMQ, and the settings that make Celery use them."""

    name: str
    callbacks: str

    def settings(self, kind: str) -> dict[str, Any]:
        """``classic``; ``native``: quorum, waits in the broker; ``direct``: quorum, waits in the worker."""
        settings: dict[str, Any] = {f"task_default_{what}": self.name for what in ("queue", "exchange", "routing_key")}
        if kind != "classic":
            settings["task_default_queue_type"] = "quorum"
            settings["task_default_exchange_type"] = "topic" if kind == "native" else "direct"
        return settings

    def messages(self, name: str = "") -> int:
        """How many wait in a queue, by default that of the tasks."""
        with Connection(RABBITMQ) as connection:
            return int(connection.default_channel.queue_declare(name or self.name, passive=True).message_count)


@pytest.fixture
def rabbit() -> Iterator[Rabbit]:
    try:
        with Connection(RABBITMQ, connect_timeout=3) as connection:
            connection.connect()
            delays_were_there = exists(connection, DELAYS[0])
    except OSError as exc:
        pytest.skip(f"no RabbitMQ at {RABBITMQ} ({exc}); set TEST_RABBITMQ_URL")
    name = f"claude-batch-test-{uuid.uuid4().hex[:8]}"
    rabbit = Rabbit(name, f"{name}-callbacks")
    yield rabbit
    with Connection(RABBITMQ) as connection:
        for queue in (rabbit.name, rabbit.callbacks):
            connection.default_channel.queue_delete(queue)
            connection.default_channel.exchange_delete(queue)
        if not delays_were_there:
            for delay in DELAYS:
                connection.default_channel.queue_delete(delay)
                connection.default_channel.exchange_delete(delay)
            connection.default_channel.exchange_delete("celery_delayed_delivery")


def exists(connection: Connection, queue: str) -> bool:
    with connection.channel() as channel, suppress(NotFound):
        channel.queue_declare(queue, passive=True)
        return True
    return False


@pytest.fixture
def postgres() -> Iterator[Callable[[], str]]:
    """``postgres()``: the URL of a result back end in a schema of its own, which goes when the test ends."""
    psycopg = pytest.importorskip("psycopg")
    pytest.importorskip("sqlalchemy")
    schema = f"claude_batch_test_{uuid.uuid4().hex[:8]}"

    def execute(statement: str) -> None:
        with psycopg.connect(POSTGRES, autocommit=True, connect_timeout=3) as connection:
            connection.execute(statement)

    made = []

    def make() -> str:
        try:
            execute(f"CREATE SCHEMA {schema}")
        except psycopg.OperationalError as exc:
            pytest.skip(f"no PostgreSQL at {POSTGRES} ({exc}); set TEST_POSTGRES_URL")
        made.append(schema)
        return f"db+postgresql+psycopg{POSTGRES.removeprefix('postgresql')}?options=-csearch_path%3D{schema}"

    yield make
    for name in made:
        execute(f"DROP SCHEMA {name} CASCADE")


MakeApp = Callable[..., Celery]


@pytest.fixture
def make_app(store_url: str) -> Iterator[MakeApp]:
    """``make_app(backend, **settings)``: the caller's app."""
    apps = []

    def make(backend: str, **settings: Any) -> Celery:
        app = Celery("tests", broker=RABBITMQ, backend=backend, set_as_current=False)
        app.conf.update(claude_batch_store_url=store_url, broker_connection_retry_on_startup=True, **settings)
        app.loader.import_task_module("claude_batch_tasks.tasks")
        app.set_current()
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()


@shared_task(name="tests.brokers.called")
def called(summary: dict[str, Any]) -> None:
    """A callback; nobody runs it, its messages are counted."""


def test_the_steps_follow_the_queue_of_the_job(
    rabbit: Rabbit, redis_url: str, make_app: MakeApp, start_worker: Callable[..., Worker]
) -> None:
    app = make_app(redis_url)
    with Simulator("results-404") as simulator:
        worker = start_worker(
            simulator.url, CELERY_BROKER_URL=RABBITMQ, options=("--concurrency=2", f"--queues={rabbit.name}")
        )
        result = run_batch.apply_async((requests("queued", 20),), queue=rabbit.name)
        summary = result.get(timeout=180)
        assert (summary["state"], summary["succeeded"], summary["fallback"]) == ("completed", 20, 0)
        assert BatchJob(result.id, app).status().polls_404 > 0
        assert simulator.journal().paid_twice() == []
        assert "Traceback" not in worker.log.read_text()


@pytest.mark.parametrize(("kind", "backend"), [("classic", "redis"), ("native", "postgresql")])
def test_the_report(
    kind: str,
    backend: str,
    rabbit: Rabbit,
    redis_url: str,
    store_url: str,
    make_app: MakeApp,
    start_here: Callable[..., Worker],
    postgres: Callable[[], str],
    record_property: Callable[..., None],
) -> None:
    """404s everywhere, another chance through the Messages API, progress under the caller's id, a callback."""
    url = postgres() if backend == "postgresql" else redis_url
    settings = rabbit.settings(kind)
    app = make_app(url, **settings)
    env = {"CELERY_BROKER_URL": RABBITMQ, "CELERY_RESULT_BACKEND": url, "CLAUDE_BATCH_STORE_URL": store_url}
    with Simulator(REPORT) as simulator:
        worker = start_here(simulator.url, options=("--concurrency=2",), config=settings, **env)
        begun = time.monotonic()
        result = run_batch.apply_async(
            (requests("report", 20),), {"retries": 0}, link=called.s().set(queue=rabbit.callbacks)
        )
        info = wait_until(lambda: result.state == "PROGRESS" and result.info)
        assert (info["requests"], info["processing"]) == (20, 20)
        summary = result.get(timeout=180)
        record_property("seconds", round(time.monotonic() - begun, 1))
        assert (summary["state"], summary["succeeded"], summary["errored"]) == ("completed", 19, 1)
        assert summary["fallback"] == 6
        assert app.AsyncResult(result.id).state == "SUCCESS"
        assert account_for(app, result.id, "report", 20) == {"succeeded": 19, "errored": 1}
        assert BatchJob(result.id, app).status().polls_404 == 6
        assert wait_until(lambda: rabbit.messages(rabbit.callbacks)) == 1
        wait_until(lambda: rabbit.messages() == 0)
        journal = simulator.journal()
        assert [call.status for call in journal.calls_to("create")] == [404, 404, 200]
        assert len(journal.calls_to("messages")) == 6
        assert journal.paid_twice() == []
        assert "Traceback" not in worker.log.read_text()
        with Connection(RABBITMQ) as connection:
            assert exists(connection, DELAYS[0]) or kind != "native"


@pytest.mark.parametrize("kind", ["native", "direct"])
def test_jobs_that_wait_do_not_keep_a_new_one_waiting(
    kind: str,
    rabbit: Rabbit,
    redis_url: str,
    make_app: MakeApp,
    start_here: Callable[..., Worker],
    record_property: Callable[..., None],
) -> None:
    """Twice as many batches between two looks as the worker has processes, and prefetches messages.

    A message with a countdown would be held by the worker (with a direct exchange, also of a quorum queue) and count as
    prefetched; what waits in the store does not.
    """
    settings = rabbit.settings(kind)
    app = make_app(redis_url, **settings)
    waiting = {"poll_min": 20, "poll_max": 20}
    with Simulator() as simulator:
        simulator.behave(processing_seconds=600)
        env = {"CELERY_BROKER_URL": RABBITMQ}
        start_here(simulator.url, options=("--concurrency=2",), config=settings, **env)
        jobs = [run_batch.delay(requests(f"waiting {i}", 2), **waiting) for i in range(4)]
        polls = [job.id for job in jobs]
        wait_until(lambda: all(BatchJob(i, app).status().batches[0].batch_id for i in polls))
        begun = time.monotonic()
        new = run_batch.delay(requests("new", 2), **waiting)
        wait_until(lambda: BatchJob(new.id, app).status().batches[0].batch_id)
        took = time.monotonic() - begun
        record_property("seconds until the new job was created", round(took, 1))
        assert took < 2
        assert simulator.state().totals.calls == len(simulator.journal().calls_to("create")) == 5


def test_a_message_that_was_delivered_too_often_is_sent_again(
    rabbit: Rabbit, redis_url: str, make_app: MakeApp, start_here: Callable[..., Worker]
) -> None:
    """RabbitMQ drops a message whose workers died too often; the ledger knows that it is missing."""
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 2}
    app = make_app(
        redis_url, task_default_queue=rabbit.name, task_queues=[Queue(rabbit.name, queue_arguments=arguments)]
    )
    if "claude_batch_tasks.recover_jobs" not in app.tasks:
        pytest.skip("nothing sends lost messages again")
    queues = Source(f"[Queue({rabbit.name!r}, queue_arguments={arguments!r})]")
    config = {"task_default_queue": rabbit.name, "task_queues": queues}
    env = {"CELERY_BROKER_URL": RABBITMQ, "CLAUDE_BATCH_RECOVER_EVERY": "1", "CLAUDE_BATCH_RECOVER_AFTER": "1"}
    with Simulator() as simulator:
        simulator.behave(processing_seconds=1)
        result = run_batch.delay(requests("dropped", 5))
        deaths = 0
        # The broker takes back what the dead held as soon as it notices the closed connection.
        with suppress(AssertionError):
            while deaths < 10:
                wait_until(lambda: rabbit.messages() == 1, seconds=3)
                with Connection(RABBITMQ) as dying, dying.channel() as channel:
                    assert channel.basic_get(rabbit.name)
                deaths += 1
        assert 3 <= deaths < 10
        start_here(simulator.url, options=("--concurrency=1",), config=config, **env)
        assert result.get(timeout=180)["succeeded"] == 5
        assert len(simulator.journal().calls_to("create")) == 1
        assert simulator.journal().paid_twice() == []


def test_a_connection_that_is_cut_while_jobs_run(
    rabbit: Rabbit, redis_url: str, make_app: MakeApp, start_here: Callable[..., Worker]
) -> None:
    """Celery ends what runs, RabbitMQ hands out again what was held: nothing is lost and nothing is paid twice."""
    settings = rabbit.settings("classic")
    app = make_app(redis_url, **settings)
    broker = urlsplit(RABBITMQ)
    with (
        Proxy(broker.hostname or "127.0.0.1", broker.port or 5672) as line,
        Simulator() as simulator,
        Proxy(simulator.host, simulator.port) as api,
    ):
        credentials, at, _ = broker.netloc.rpartition("@")
        through = broker._replace(netloc=f"{credentials}{at}127.0.0.1:{line.port}").geturl()
        simulator.behave(processing_seconds=1, outcomes=[Outcome("expired", count=1)])
        api.hold("POST /v1/messages/batches$", times=1)
        worker = start_here(api.url, config=settings, CELERY_BROKER_URL=through)
        jobs = {f"cut {i}": run_batch.delay(requests(f"cut {i}", 4), retries=0) for i in range(4)}
        wait_until(lambda: api.held == 1)
        for _ in range(2):
            accepted = line.accepted
            assert line.drop()
            wait_until(lambda accepted=accepted: line.accepted > accepted)
            time.sleep(0.3)
        api.release()
        for result in jobs.values():
            result.get(timeout=180)
        for name, result in jobs.items():
            # A Messages call that was cut off may have been billed, and is not made again.
            assert account_for(app, result.id, name, 4) in ({"succeeded": 4}, {"succeeded": 3, "expired": 1})
        journal = simulator.journal()
        assert journal.paid_twice() == []
        # A create that was cut off before its whole body had arrived is a call (of status 0), and stores nothing.
        assert journal.totals.batches_created == len(jobs)
        assert worker.returncode is None
        # On a busy machine the worker is reconnecting when the line drops again, and says it once more.
        assert worker.log.read_text().count("Connection to broker lost") >= 2


@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.slow)])
def test_packets_to_the_broker_vanish(
    seconds: float, rabbit: Rabbit, redis_url: str, make_app: MakeApp, start_here: Callable[..., Worker]
) -> None:
    """Old connections stay dead for ever, and the broker keeps what belongs to them until it notices."""
    settings = rabbit.settings("classic")
    app = make_app(redis_url, **settings)
    broker = urlsplit(RABBITMQ)
    credentials, at, _ = broker.netloc.rpartition("@")
    with Blackhole(broker.port or 5672) as hole, Simulator() as simulator:
        through = broker._replace(netloc=f"{credentials}{at}127.0.0.1:{hole.port}").geturl()
        simulator.behave(processing_seconds=2, outcomes=[Outcome("expired", count=1)])
        env = {"CELERY_BROKER_URL": through, "CLAUDE_BATCH_RECOVER_AFTER": "5"}
        worker = start_here(simulator.url, config=settings, name=rabbit.name, **env)
        jobs = {f"dark {i}": run_batch.delay(requests(f"dark {i}", 4), retries=0) for i in range(4)}
        wait_until(lambda: simulator.journal().totals.batches_created >= 2)
        hole.swallow()
        time.sleep(seconds)
        jobs["late"] = run_batch.delay(requests("late", 4), retries=0)
        hole.heal()
        healed = time.monotonic()
        for name, result in jobs.items():
            # Half a minute, and what a busy machine adds.
            wait_until(lambda result=result: BatchJob(result.id, app).status().summary, healed + 60 - time.monotonic())
            assert account_for(app, result.id, name, 4) in ({"succeeded": 4}, {"succeeded": 3, "expired": 1})
        assert simulator.journal().paid_twice() == []
        assert worker.returncode is None
