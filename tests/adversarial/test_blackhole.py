"""Redis behind a proxy that lets packets vanish: work goes on within 30 s after they come through again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from tests.adversarial.blackhole import Blackhole
from tests.adversarial.conftest import environment, make_app
from tests.adversarial.server import Manners, UnfriendlyServer
from tests.adversarial.tasks import params
from tests.support import wait_until

pytestmark = [pytest.mark.workers, pytest.mark.timeout(400)]

#: Seconds after healing within which work goes on, and what busy machines may add.
HEALED, BUSY = 30, 15
WHICH = ("broker", "store", "backend")


class Bench:
    """Broker, store and result back end, each behind a proxy of its own for the worker; callers reach them directly."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        servers = {name: stack.enter_context(RedisServer()) for name in WHICH}
        self.holes = {name: stack.enter_context(Blackhole(server.port)) for name, server in servers.items()}
        self.server = stack.enter_context(UnfriendlyServer())
        self.names = [f"job{i}" for i in range(8)]
        self.app: Celery = make_app(servers["backend"].url, self.names, claude_batch_store_url=servers["store"].url)
        self.app.conf.broker_url = servers["broker"].url
        self.app.set_current()
        stack.callback(self.app.close)
        urls = {name: f"redis://127.0.0.1:{hole.port}/0" for name, hole in self.holes.items()}
        env = environment(
            urls["backend"],
            self.server.url,
            self.names,
            CELERY_BROKER_URL=urls["broker"],
            CLAUDE_BATCH_STORE_URL=urls["store"],
        )
        self.worker = Worker(env, folder / "worker.log", options=("--concurrency=3",))
        self.worker.start()
        stack.callback(lambda: self.worker.stop(kill=True))

    def submit(self, name: str, looks: int) -> BatchJob:
        self.server.account(name).manners = Manners(
            looks=looks, result=lambda i, p: {"type": "expired" if i < 2 else "succeeded"}, message_seconds=0.3
        )
        requests = {f"id {i}": params(f"{name} {i}") for i in range(6)}
        return BatchJob(run_batch.delay(requests, client=name, retries=0).id, self.app)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack, tmp_path)


def vanish(bench: Bench, which: tuple[str, ...], seconds: float, *, old_ones_too: bool) -> None:
    """Jobs are in every step when packets vanish, and one is submitted meanwhile."""
    jobs = [bench.submit(f"job{n}", looks) for n, looks in enumerate((0, 2, 5, 10, 15))]
    wait_until(lambda: all(account.calls["create"] for account in bench.server.accounts.values()))
    for name in which:
        bench.holes[name].swallow()
    time.sleep(seconds)
    jobs.append(bench.submit("job7", 0))
    for name in which:
        bench.holes[name].heal(old_ones_too=old_ones_too)
    healed = time.monotonic()
    for job in jobs:
        wait_until(lambda job=job: job.status().summary, max(healed + HEALED + BUSY - time.monotonic(), 0.1))
        assert [row.type for row in job.results()] == ["succeeded"] * 6
    for account in bench.server.accounts.values():
        assert account.calls["create"] == 1
        assert max(account.paid.values()) == 1
    assert bench.worker.returncode is None


def test_packets_to_everything_vanish(bench: Bench) -> None:
    vanish(bench, WHICH, 8, old_ones_too=False)


@pytest.mark.release
@pytest.mark.parametrize("old_ones_too", [False, True], ids=["connections stay dead", "connections live again"])
@pytest.mark.parametrize("which", WHICH)
def test_packets_to_one_server_vanish_for_a_minute(bench: Bench, which: str, old_ones_too: bool) -> None:
    vanish(bench, (which,), 60, old_ones_too=old_ones_too)
