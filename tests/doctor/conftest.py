"""Set-ups to be examined: a healthy one with a real worker, and what breaks it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import Celery
from click.testing import CliRunner

from claude_batch_tasks.api import clients
from claude_batch_tasks.cli import claude_batch
from claude_batch_tasks.doctor import workers
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.settings import configuration
from claude_batch_tasks.simulator import Simulator
from tests.support import inherited

#: What nothing printed may hold.
KEY = "sk-ant-test-key-never-to-be-seen"
PASSWORD = "a-password-never-to-be-seen"


#: Settings of workers and callers alike.
SETTINGS = {"claude_batch_poll_min": 0.2, "claude_batch_poll_max": 0.5, "claude_batch_retry_min": 0.2}


class Set(NamedTuple):
    """What the healthy set-up consists of."""

    url: str
    simulator: Simulator


@pytest.fixture(scope="module")
def healthy(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Set]:
    """A Redis, the simulator and a worker for all tests."""
    url, folder = f"{redis_server.url[:-1]}7", tmp_path_factory.mktemp("healthy")
    env = {name.upper(): str(value) for name, value in SETTINGS.items()}
    with Simulator("healthy") as simulator, working("claude_batch_tasks.app", url, folder, **env, **simulator.env):
        yield Set(url, simulator)


@pytest.fixture
def bare(redis_server: RedisServer, tmp_path: Path) -> Iterator[str]:
    """The URL of a broker whose worker does not know our tasks."""
    url = f"{redis_server.url[:-1]}8"
    with working("tests.doctor.bare", url, tmp_path, PYTHONPATH=str(Path(__file__).parents[2])):
        yield url


@contextmanager
def working(app: str, url: str, folder: Path, **env: str) -> Iterator[Worker]:
    """A worker."""
    env = {**inherited(), "CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url, **env}
    worker = Worker(env, folder / "worker.log", app, ("--pool=solo",), str(folder))
    try:
        worker.start()
        yield worker
    finally:
        worker.stop(kill=True)


@pytest.fixture
def make_app(healthy: Set, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Celery]]:
    """``make_app(broker_url=..., claude_batch_poll_max=...)``: the healthy app, and what is different in it."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", healthy.simulator.url)
    # The worker is there: it may take its time, and where there is none, nobody waits long for it.
    monkeypatch.setattr(workers, "REST", 0.3)
    clients._client.cache_clear()
    with ExitStack() as stack:

        def make(**changes: Any) -> Celery:
            broker = changes.get("broker_url", healthy.url)
            app = Celery("examined", set_as_current=False)
            app.conf.update(
                {
                    **configuration({"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": healthy.url}),
                    **SETTINGS,
                    **changes,
                }
            )
            if str(broker).startswith("redis"):
                app.conf.broker_transport = "claude_batch_tasks.transport:Transport"
            stack.callback(app.close)
            return app

        yield make
    clients._client.cache_clear()


class Said(NamedTuple):
    """What ``claude-batch doctor`` printed, and the ids of the problems it named."""

    text: str
    ids: list[str]
    exit_code: int


@pytest.fixture
def doctor_says() -> Callable[..., Said]:
    """``doctor_says(app, "--strict")``: the command's own output; ``answer``: what is typed."""

    def says(app: Celery, *options: str, answer: str | None = None) -> Said:
        command = CliRunner().invoke(claude_batch, ["doctor", *options], obj=Context(app), input=answer)
        if command.exception is not None and not isinstance(command.exception, SystemExit):
            raise command.exception
        assert KEY not in command.output
        assert PASSWORD not in command.output
        ids = re.findall(r"\[claude_batch\.(\w+)\]", command.output)
        return Said(command.output, ids, command.exit_code)

    return says


class Context(NamedTuple):
    """What Celery's own command line hands to a plugin."""

    app: Celery


@contextmanager
def answering(status: int, body: Any = None, elsewhere: Any = None, **headers: str) -> Iterator[str]:
    """A server that gives one answer to everything, or with ``elsewhere`` another one beside batches; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            other = elsewhere is not None and "batches" not in self.path
            found = elsewhere if other else body
            content = found.encode() if isinstance(found, str) else json.dumps(found or {}).encode()
            self.send_response_only(200 if other else status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
