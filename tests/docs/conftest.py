"""A world for each file of tests: a Redis, the simulator, and a worker of the ready-made app where one is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from celery import Celery

from claude_batch_tasks import list_jobs, list_workers
from claude_batch_tasks.embedded import RedisServer, Worker, free_port
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.simulator import Simulator
from claude_batch_tasks.store import open_store
from tests.docs.pages import ROOT
from tests.docs.reader import Reader
from tests.support import FAST, inherited, wait_until

Read = Callable[[str], None]
StartReader = Callable[[dict[str, str]], Reader]


@pytest.fixture
def start_reader(tmp_path: Path) -> Iterator[StartReader]:
    """``start_reader({"guest": "me"})``: with nothing there but a Redis, and other names than the page has."""
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        here = {"6379": str(redis.port), **{port: str(free_port()) for port in ("8787", "8000", "5000", "5555")}}
        yield lambda names: stack.enter_context(Reader(tmp_path, inherited(), {**here, **names}))


@pytest.fixture
def read(start_reader: StartReader) -> Read:
    """``read("docs/tutorial.md")``: from zero."""
    return lambda page: start_reader({}).read(ROOT / page)


@pytest.fixture(scope="module")
def read_beside_a_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Read]:
    """``read_beside_a_worker("README.md")``: where the simulator and a worker of the ready-made app run."""
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        simulator = stack.enter_context(Simulator())
        folder = tmp_path_factory.mktemp("world")
        env = {
            **inherited(),
            **FAST,
            **simulator.env,
            "CELERY_BROKER_URL": redis.url,
            "CELERY_RESULT_BACKEND": redis.url,
        }
        app = stack.enter_context(Celery("pages", broker=redis.url, backend=redis.url, set_as_current=False))
        stack.enter_context(Worker(env, folder / "worker.log", cwd=str(folder)))
        (worker,) = (each.hostname for each in wait_until(lambda: list_workers(app=app)))

        def read(page: str) -> None:
            simulator.reset("healthy")
            here = {"6379": str(redis.port), "8787": str(simulator.port)}
            with Reader(tmp_path_factory.mktemp("page"), env, here) as reader:
                reader.read(ROOT / page)
            # What a page leaves running would find another world.
            wait_until(lambda: not list(list_jobs(states=["staged", "running"], app=app)))
            # Workers that a page started were killed with its terminals.
            for each in list_workers(app=app):
                if each.hostname != worker:
                    open_store(Settings.of(app)).presence.remove_worker(each.hostname)

        yield read
