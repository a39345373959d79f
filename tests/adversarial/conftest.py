"""One Redis, one unfriendly server and one prefork worker for the whole folder; cases run side by side on them."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from tests.adversarial.server import Account, Manners, UnfriendlyServer
from tests.adversarial.tasks import params
from tests.support import FAST, inherited

KEY = "sk-ant-unfriendly-key-never-to-be-seen"
SECRET = "prompt-never-to-be-seen"

#: Seconds from its submission within which every job is over, on however busy a machine.
PATIENCE = 400


@dataclass
class Given:
    """One job that was submitted, and the account it runs on."""

    name: str
    account: Account
    result: Any
    app: Celery
    prompts: dict[str, str]
    since: float = field(default_factory=time.monotonic)

    def get(self, *, propagate: bool = True) -> Any:
        """The job's summary, or its error: all cases share one worker, so the first to ask waits for most of them."""
        return self.result.get(timeout=max(self.since + PATIENCE - time.monotonic(), 5), propagate=propagate)

    @property
    def job(self) -> BatchJob:
        return BatchJob(self.result.id, self.app)


@dataclass
class World:
    """What all cases share."""

    server: UnfriendlyServer
    redis: RedisServer
    app: Celery
    names: frozenset[str]
    env: dict[str, str]
    log: Path

    def submit(
        self, name: str, manners: Manners, count: int = 12, *, account: Account | None = None, **options: Any
    ) -> Given:
        self.app.set_current()
        found = self.server.account(name)
        found.manners = manners
        prompts = {f"id {i} é": f"{SECRET} {name} {i}" for i in range(count)}
        requests = ({"custom_id": i, "params": params(text)} for i, text in prompts.items())
        result = run_batch.delay(requests, client=name, **options)
        return Given(name, found, result, self.app, prompts)


def aliases(names: Any) -> dict[str, str]:
    return {name: f"tests.adversarial.clients.{name}" for name in names}


def make_app(url: str, names: Any, **conf: Any) -> Celery:
    app = Celery("unfriendly", broker=url, backend=url, set_as_current=False)
    # Results that are still held when their Redis has ended must not look for it for twenty seconds each.
    patience = {"retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}}
    app.conf.result_backend_transport_options = patience
    app.conf.update(claude_batch_client_factories=aliases(names), result_expires=3600, **conf)
    app.loader.import_task_module("claude_batch_tasks.tasks")
    return app


def environment(url: str, api: str, names: Any, **more: str) -> dict[str, str]:
    return {
        **inherited(),
        **FAST,
        "CLAUDE_BATCH_MAX_FALLBACK_COST": "none",  # nobody knows what claude-x costs
        "CELERY_BROKER_URL": url,
        "CELERY_RESULT_BACKEND": url,
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": api,
        "CLAUDE_BATCH_CLIENT_FACTORIES": json.dumps(aliases(names)),
        **more,
    }


#: Accounts for jobs that tests submit themselves.
SPARE = [f"spare{i}" for i in range(120)]


@pytest.fixture(scope="module", autouse=True)
def _let_go(redis_server: RedisServer) -> Iterator[None]:
    """Results unsubscribe when they are collected, for which their Redis must still be there."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The shared worker, with every case of ``cases.CASES`` already submitted when the first test runs."""
    from tests.adversarial.cases import CASES

    names = [*CASES, *SPARE]
    log = tmp_path_factory.mktemp("unfriendly") / "worker.log"
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        server = stack.enter_context(UnfriendlyServer())
        env = environment(redis.url, server.url, names)
        stack.enter_context(Worker(env, log, options=("--concurrency=4", "--include=tests.adversarial.tasks")))
        app = make_app(redis.url, names)
        yield World(server, redis, app, frozenset(names), env, log)
        gc.collect()
        app.close()


@pytest.fixture(scope="session")
def submitted(world: World) -> dict[str, Given]:
    from tests.adversarial.cases import CASES

    jobs = {}
    for name, case in CASES.items():
        if case.prepare is not None:
            case.prepare(world.server.account(name))
        jobs[name] = world.submit(name, case.manners, case.count, **case.options)
        if case.after_submit is not None:
            case.after_submit(jobs[name])
    return jobs


@pytest.fixture
def spare(world: World) -> Callable[[], str]:
    """``spare()``: the name of an account no test has used."""

    def take() -> str:
        with world.server.lock:
            name = next(name for name in SPARE if name not in world.server.accounts)
            world.server.account(name)
            return name

    return take
