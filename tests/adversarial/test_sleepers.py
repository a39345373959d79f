"""Processes that sleep in the middle of what is paid for, and wake when another has taken over: it is paid once."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from tests.adversarial.conftest import environment, make_app
from tests.adversarial.server import Manners, UnfriendlyServer
from tests.adversarial.tasks import params
from tests.integration.sleeping import CALLS, CREATES
from tests.support import wait_until

pytestmark = [pytest.mark.workers, pytest.mark.timeout(400)]

COUNT = 3

PLACES = (*CREATES, *CALLS)


def expires(index: int, prompt: str) -> dict[str, Any]:
    return {"type": "expired"} if index == 0 else {"type": "succeeded"}


class Bench:
    """A Redis, a server, and a worker whose processes fall asleep."""

    def __init__(self, stack: ExitStack, folder: Path, redis: RedisServer) -> None:
        redis.client().flushall()
        self.stack, self.folder, self.redis = stack, folder, redis
        self.sleeps = folder / "sleeps"
        self.sleeps.mkdir()
        self.server = stack.enter_context(UnfriendlyServer())
        self.app = make_app(redis.url, PLACES)
        self.app.set_current()
        stack.callback(self.app.close)
        stack.callback(gc.collect)

    def worker(self, app: str, concurrency: int, **env: str) -> Worker:
        whole = environment(self.redis.url, self.server.url, PLACES, SLEEPS=str(self.sleeps), **env)
        log = self.folder / f"{app}.log"
        worker = Worker(whole, log, app=app, options=(f"--concurrency={concurrency}", f"--hostname={app}@tests"))
        worker.start()
        self.stack.callback(worker.stop, kill=True)
        return worker

    def submit(self, name: str, manners: Manners, **options: Any) -> Any:
        self.server.account(name).manners = manners
        texts = [f"{name} {i}" for i in range(COUNT)]
        requests = {text: params(text) | ({"max_tokens": 30_000} if "stream" in name else {}) for text in texts}
        return run_batch.delay(requests, client=name, retries=0, **options)

    def asleep(self) -> set[str]:
        return {file.name for file in self.sleeps.iterdir()}


@pytest.fixture
def bench(tmp_path: Path, redis_server: RedisServer) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack, tmp_path, redis_server)


def test_whoever_slept_in_what_is_paid_for_does_not_pay_again(bench: Bench) -> None:
    """One job at each place at which a process may fall asleep; others take over; then all wake up."""
    worker = bench.worker("tests.integration.sleeping", len(PLACES) + 2)
    jobs = {name: bench.submit(name, Manners(result=expires if name in CALLS else None)) for name in PLACES}
    wait_until(lambda: bench.asleep() == {*PLACES}, 180)
    for result in jobs.values():
        result.get(timeout=180)
    before = {name: dict(bench.server.account(name).calls) for name in PLACES}
    for name in PLACES:
        os.kill(int((bench.sleeps / name).read_text()), signal.SIGCONT)
    wait_until(lambda: worker.log.read_text().count("another worker has taken over") >= len(PLACES) - 1, 180)
    for name, result in jobs.items():
        account = bench.server.account(name)
        assert before[name] == dict(account.calls), f"{name}: whoever slept has sent nothing to its end"
        # A call that was taken may have been sent.
        check(bench, name, result, kept=int(name in CALLS))


def check(bench: Bench, name: str, result: Any, *, kept: int = 0) -> None:
    """Every request was paid once at most, and has one outcome."""
    account = bench.server.account(name)
    assert max(account.paid.values()) == 1, name
    assert len([batch for batch in account.batches if not batch.foreign]) == 1, name
    rows = list(BatchJob(result.id, bench.app).results())
    assert len({row.custom_id for row in rows}) == len(rows) == COUNT
    assert sum(row.type == "succeeded" for row in rows) == COUNT - kept, name
