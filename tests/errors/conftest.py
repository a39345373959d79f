"""An application in eager mode, with a simulator in place of Anthropic and a store on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from celery import Celery

from claude_batch_tasks import testing
from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.simulator import Simulator
from tests.factories import make_params

REQUESTS = {"a": make_params("first"), "b": make_params("second")}


@dataclass
class Eager:
    app: Celery
    simulator: Simulator
    redis: redis.Redis
    redis_url: str

    def ends(self, result: Any) -> str:
        """Return the id of a job that is completed, with an answer to every request."""
        assert result.get(timeout=60)["succeeded"] == len(REQUESTS)
        return str(result.id)

    @contextmanager
    def setting(self, name: str, value: Any) -> Iterator[None]:
        """Have the app another setting for a while."""
        before = self.app.conf.get(name)
        self.app.conf[name] = value
        testing.reset()
        yield
        if before is None:
            self.app.conf.pop(name)
        else:
            self.app.conf[name] = before
        testing.reset()

    @contextmanager
    def not_eager(self, broker: str) -> Iterator[None]:
        """Have an app that sends messages to this broker for a while."""
        app = Celery("sends", broker=broker, backend=self.redis_url, set_as_current=False)
        app.loader.import_task_module("claude_batch_tasks.tasks")
        app.set_current()
        yield
        app.close()
        self.app.set_current()


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    with Simulator("healthy") as running:
        running.behave(processing_seconds=0.1)
        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def eager(redis_url: str, redis_server: RedisServer, simulator: Simulator) -> Iterator[Eager]:
    app = Celery("eager", broker="amqp://nowhere", include=["claude_batch_tasks.tasks"], set_as_current=False)
    app.loader.import_default_modules()
    app.conf.update(
        task_always_eager=True,
        claude_batch_store_url=redis_url,
        claude_batch_poll_min=0.1,
        claude_batch_poll_max=0.3,
        claude_batch_retry_min=0.1,
        claude_batch_retry_max=0.3,
        claude_batch_create_settle=0.2,
        claude_batch_listings=1,
    )
    app.set_current()
    testing.reset()
    yield Eager(app, simulator, redis_server.client(), redis_url)
    app.close()
    testing.reset()
