"""An ``on_result`` that fails, in real workers: it is seen, and what it was called with is handed over again."""

from __future__ import annotations

import gc
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord, group, signature
from celery.result import AsyncResult

from claude_batch_tasks import BatchJob, JobStatus, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.simulator import Simulator
from claude_batch_tasks.store import open_store_at
from tests.integration.delivering import (
    MODE,
    RUNS,
    SAVED,
    note,
    parse,
    save,
    save_again,
    save_in_time,
    save_late,
    save_slowly,
    save_slowly_once,
    save_when_told,
    write,
)
from tests.integration.rig import name_servers, requests
from tests.postgres_server import PostgresServer
from tests.support import FAST, STORE, LendStore, inherited, wait_until

pytestmark = [pytest.mark.latest, pytest.mark.workers]

COUNT = 20


class World:
    """A worker, and a caller's app."""

    def __init__(self, app: Celery, worker: Worker, redis: RedisServer, simulator: Simulator) -> None:
        self.app, self.worker, self.redis, self.simulator = app, worker, redis, simulator

    def behave(self, mode: str) -> None:
        """Say how tasks of the application end from now on."""
        self.redis.client().set(MODE, mode)

    def saved(self) -> Counter[str]:
        """Return how many times each custom_id was written down."""
        entries = self.redis.client().lrange(SAVED, 0, -1)
        return Counter(str(custom_id) for entry in entries for custom_id in json.loads(entry))

    def runs(self) -> int:
        return int(self.redis.client().get(RUNS) or 0)

    def run(self, on_result: Any, count: int = COUNT, **options: Any) -> BatchJob:
        """Return a job that is completed, whatever becomes of its answers."""
        result = run_batch.delay(requests("job", count), on_result=on_result, **options)
        assert result.get(timeout=180)["state"] == "completed"
        return BatchJob(result.id, self.app)


def make_env(redis: RedisServer, store_url: str, simulator: Simulator, **more: str) -> dict[str, str]:
    return {**inherited(), **FAST, **simulator.env, **name_servers(redis.url, store_url), **more}


def make_app(redis: RedisServer, store_url: str) -> Celery:
    app = Celery("delivery", broker=redis.url, backend=redis.url, set_as_current=False)
    app.conf.claude_batch_store_url = store_url
    app.loader.import_task_module("claude_batch_tasks.tasks")
    return app


def stop_waiting(app: Celery) -> None:
    """Let go of results of chords and groups, of which Celery waits for some for ever, while their Redis is there."""
    gc.collect()
    for found in gc.get_objects():
        # Not isinstance: that asks lazy objects, such as Django's settings, what they are.
        if issubclass(type(found), AsyncResult) and found.app is app:
            app.backend.remove_pending_result(found)
    gc.collect()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, lend_store: LendStore) -> Iterator[World]:
    with RedisServer() as redis, lend_store(redis.url) as store_url, Simulator("healthy") as simulator:
        log = tmp_path_factory.mktemp("delivery") / "worker.log"
        options = ("--concurrency=2", "--include=tests.integration.delivering")
        with Worker(make_env(redis, store_url, simulator), log, options=options) as worker:
            app = make_app(redis, store_url)
            yield World(app, worker, redis, simulator)
            stop_waiting(app)
            app.close()


@pytest.fixture
def world(shared: World) -> World:
    shared.app.set_current()
    shared.redis.client().delete(MODE, SAVED, RUNS)
    shared.simulator.reset("healthy")
    shared.simulator.behave(processing_seconds=0.2)
    return shared


def until(job: BatchJob, **figures: Any) -> JobStatus:
    """Return the status of a job as soon as it has these figures."""

    def look() -> JobStatus | None:
        status = job.status()
        return status if all(getattr(status, name) == value for name, value in figures.items()) else None

    try:
        found: JobStatus = wait_until(look, 30)
    except AssertionError:
        raise AssertionError(f"no {figures}: {job.status()}") from None
    return found


class TestATaskThatRaises:
    def test_is_seen_and_called_again_when_it_is_repaired(self, world: World) -> None:
        world.behave("raise")
        job = world.run(save.s(), 2200, max_requests_per_batch=1500)
        status = until(job, delivery_failures=2200, on_result_error="delivering.save: ValueError")
        assert (status.state, status.announced, status.delivered, status.unconfirmed) == ("completed", 2200, 0, 0)
        told = [event for event in job.history() if event.event == "delivery_failed"]
        assert len(told) == 1
        assert told[0].details == {"task": "delivering.save", "error": "ValueError"}
        assert "SECRET" not in told[0].text
        lines = [line for line in world.worker.log.read_text().splitlines() if "delivery failed" in line]
        assert len([line for line in lines if job.id in line and "ERROR" in line]) == 1
        world.behave("")
        assert job.redeliver() == 2200
        until(job, delivered=2200, delivery_failures=0, on_result_error=None)
        assert set(world.saved().values()) == {1}
        assert [event.event for event in job.history()][-2:] in (
            ["redelivered", "delivered"],
            ["delivered", "redelivered"],
        )
        assert job.redeliver() == 0

    def test_is_retried_by_its_own_policy(self, world: World) -> None:
        job = world.run(save_again.s(2))
        until(job, delivered=COUNT)
        assert set(world.saved().values()) == {1}

    def test_fails_when_its_retries_are_used_up(self, world: World) -> None:
        job = world.run(save_again.s(99))
        until(job, delivery_failures=COUNT, on_result_error="delivering.save_again: ConnectionError")

    def test_may_be_one_that_no_worker_knows(self, world: World) -> None:
        job = world.run(signature("delivering.nobody", app=world.app))
        until(job, delivery_failures=COUNT, on_result_error="delivering.nobody: NotRegistered")

    def test_may_expire_before_it_runs(self, world: World) -> None:
        world.behave("raise")
        job = world.run(save.s().set(countdown=3, expires=1))
        until(job, delivery_failures=COUNT, on_result_error="delivering.save: expired")

    def test_may_take_too_long(self, world: World) -> None:
        world.behave("hang")
        job = world.run(save_in_time.s())
        until(job, delivery_failures=COUNT, on_result_error="delivering.save_in_time: TimeLimitExceeded")


class TestCanvases:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: chain(parse.s(), write.s()),
            lambda: group(note.s(), save.s(), note.s()),
            lambda: chain(parse.s(), group(write.s(), write.si(["other"]))),
            lambda: chord([note.s(), note.s()], write.si(["after"])),
            lambda: chain(group(note.s(), note.s()), write.si(["after"])),
            lambda: chain(parse.s(), chain(write.si(["first"]), write.si(["second"]))),
        ],
    )
    def test_are_delivered_when_their_last_tasks_have_ended(self, world: World, make: Any) -> None:
        job = world.run(make())
        until(job, delivered=COUNT, delivery_failures=0)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: chain(parse.s(), write.s()),
            lambda: group(note.s(), save.s(), note.s()),
            lambda: chord([note.s(), note.s()], write.si(["after"])),
            lambda: chord([note.s(), save.s()], note.si("job", [])),
        ],
    )
    def test_fail_with_any_of_their_tasks(self, world: World, make: Any) -> None:
        world.behave("raise")
        job = world.run(make())
        until(job, delivered=0, delivery_failures=COUNT)
        world.behave("")
        assert job.redeliver() == COUNT
        until(job, delivered=COUNT, delivery_failures=0)


class TestAWorkerThatDies:
    def test_in_one_of_its_processes_is_a_failure(self, world: World) -> None:
        world.behave("die")
        job = world.run(save.s())
        until(job, delivery_failures=COUNT, on_result_error="delivering.save: WorkerLostError")
        world.behave("")
        assert job.redeliver() == COUNT
        until(job, delivered=COUNT, delivery_failures=0)

    def test_has_its_task_run_again_where_the_task_says_so(self, world: World) -> None:
        world.behave("die")
        job = world.run(save_late.s())
        wait_until(lambda: world.runs() >= 2)
        world.behave("")
        until(job, delivered=COUNT, delivery_failures=0)


def test_a_worker_without_this_package_confirms_nothing(world: World, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(
        "from celery import Celery\n"
        f"app = Celery('plain', broker={world.redis.url!r}, backend={world.redis.url!r})\n"
        "@app.task(name='plain.save')\n"
        "def save(job_id, custom_ids):\n"
        f"    app.backend.client.set({RUNS!r}, len(custom_ids))\n"
    )
    with Worker(inherited(), tmp_path / "plain.log", app="plain", options=("-Qplain", "-c1"), cwd=str(tmp_path)):
        job = world.run(signature("plain.save", app=world.app).set(queue="plain"))
        wait_until(lambda: world.runs() == COUNT)
        status = job.status()
        assert (status.announced, status.delivered, status.delivery_failures) == (COUNT, 0, 0)
        assert (status.unconfirmed, status.on_result_error) == (COUNT, None)


@pytest.mark.slow
class TestWorkersAndServersThatGoAway:
    """Each answer is handed over once at least, and none counts twice."""

    MANY = 8_000

    @pytest.fixture
    def apart(self, tmp_path: Path) -> Iterator[tuple[World, RedisServer | PostgresServer]]:
        """A worker whose store is not on its broker's server."""
        stored = RedisServer() if STORE == "redis" else PostgresServer()
        with RedisServer() as redis, stored, Simulator("healthy") as simulator:
            store_url = stored.url if isinstance(stored, RedisServer) else stored.make_database()
            open_store_at(store_url).schema.migrate()
            env = make_env(redis, store_url, simulator, DELIVERING_VISIBILITY="3")
            options = ("--concurrency=2", "--include=tests.integration.delivering")
            with Worker(env, tmp_path / "worker.log", options=options) as worker:
                app = make_app(redis, store_url)
                app.set_current()
                simulator.behave(processing_seconds=0.2)
                yield World(app, worker, redis, simulator), stored
                stop_waiting(app)
                app.close()

    @pytest.mark.parametrize("task", [save_slowly, save_slowly_once])
    def test_workers_killed_in_the_middle_and_a_broker_restarted(
        self, apart: tuple[World, RedisServer | PostgresServer], task: Any
    ) -> None:
        world, _ = apart
        result = run_batch.delay(requests("job", self.MANY), on_result=task.s())
        job = BatchJob(result.id, world.app)
        for number in range(3):
            wait_until(lambda more=1000 * number: sum(world.saved().values()) > more)
            world.worker.stop(kill=True)
            if number == 1:
                world.redis.stop()
                world.redis.start()
            world.worker.start()
        assert result.get(timeout=120)["state"] == "completed"
        self.settle(job)
        before, missing = job.status(), self.MANY - job.delivered
        assert before.announced == self.MANY
        assert job.redeliver() == missing
        until(job, delivered=self.MANY, unconfirmed=0, delivery_failures=0)
        assert len(world.saved()) == self.MANY
        if task is save_slowly_once:
            assert missing >= 1000, "messages that were lost with their workers"
        assert [event.event for event in job.history()].count("delivered") == 1

    def test_a_store_that_is_restarted_in_the_middle(self, apart: tuple[World, RedisServer | PostgresServer]) -> None:
        """What ended meanwhile is recorded later."""
        world, stored = apart
        result = run_batch.delay(requests("job", self.MANY), on_result=save_when_told.s())
        job = BatchJob(result.id, world.app)
        until(job, announced=self.MANY)
        stored.stop()
        world.behave("go")
        wait_until(lambda: len(world.saved()) == self.MANY)
        stored.start()
        until(job, delivered=self.MANY, state="completed")
        assert set(world.saved().values()) == {1}

    def settle(self, job: BatchJob) -> None:
        """Wait until calls that are still under way, or come again, have ended."""
        seen, since = job.delivered, time.monotonic()
        while time.monotonic() < since + 8:
            time.sleep(0.5)
            if (now := job.delivered) != seen:
                seen, since = now, time.monotonic()
