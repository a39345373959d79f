"""Workers that are killed, and messages that come twice."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from tests.adversarial.conftest import environment, make_app
from tests.adversarial.server import Answer, Manners, UnfriendlyServer
from tests.adversarial.tasks import params
from tests.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.workers, pytest.mark.timeout(400)]

NAMES = [
    "create_stored",
    "create_lost",
    "retrieve",
    "results",
    "results_twice",
    "message",
    "listing",
    *(f"job{i}" for i in range(12)),
]


class Bench:
    """A Redis, a server and workers of this test's own."""

    def __init__(self, stack: ExitStack, folder: Path, redis: RedisServer) -> None:
        self.stack, self.folder = stack, folder
        redis.client().flushall()
        self.redis = redis
        self.server = stack.enter_context(UnfriendlyServer())
        self.app: Celery = make_app(self.redis.url, NAMES)
        self.app.set_current()
        stack.callback(self.app.close)

    def worker(self, concurrency: int) -> Worker:
        log = self.folder / f"worker-{len(list(self.folder.iterdir()))}.log"
        env = environment(self.redis.url, self.server.url, NAMES)
        worker = Worker(env, log, app="tests.adversarial.forgetful", options=(f"--concurrency={concurrency}",))
        return self.stack.enter_context(worker)

    def submit(self, name: str, manners: Manners, count: int = 10, **options: Any) -> Any:
        self.server.account(name).manners = manners
        requests = {f"id {i}": params(f"{name} {i}") for i in range(count)}
        return run_batch.delay(requests, client=name, **options)

    def check(self, name: str, result: Any, count: int = 10, kept: int = 0) -> None:
        summary = result.get(timeout=180)
        assert summary["succeeded"] == count - kept, name
        rows = list(BatchJob(result.id, self.app).results())
        assert len(rows) == len({row.custom_id for row in rows}) == count, name
        assert max(self.server.account(name).paid.values(), default=0) <= 1, name


@pytest.fixture
def bench(tmp_path: Path, redis_server: RedisServer) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack, tmp_path, redis_server)


def first_expires(index: int, prompt: str) -> dict[str, Any]:
    return {"type": "expired"} if index == 0 else {"type": "succeeded"}


def test_a_worker_killed_in_the_middle_of_every_step(bench: Bench) -> None:
    """One job in each step when the whole process group is killed; every job must still end as it should."""
    gate = threading.Event()
    held = {
        "create_stored": Manners(script={"create": [Answer(200, hold=gate, acts=True)]}),
        "create_lost": Manners(script={"create": [Answer(200, hold=gate)]}),
        "retrieve": Manners(script={"retrieve": [Answer(429, hold=gate)]}),
        "results": Manners(script={"results": [Answer(200, hold=gate)]}),
        "message": Manners(result=first_expires, script={"messages": [Answer(200, hold=gate, acts=True)]}),
        "listing": Manners(script={"create": [Answer(500, acts=True)], "list": [Answer(200, hold=gate)]}),
    }
    worker = bench.worker(len(held))
    jobs = {name: bench.submit(name, manners, retries=0) for name, manners in held.items()}
    wait_until(lambda: all(bench.server.account(name).held for name in held))
    worker.stop(kill=True)
    gate.set()
    bench.worker(4)
    for name, result in jobs.items():
        # The answer to the message was lost with the worker, and may be billed: the request keeps its outcome.
        bench.check(name, result, kept=1 if name == "message" else 0)
    account = bench.server.account("create_stored")
    assert account.calls["create"] == 1
    assert bench.server.account("create_lost").calls["create"] == 2
    assert bench.server.account("message").calls["messages"] == 1


def test_workers_killed_again_and_again(bench: Bench) -> None:
    jobs = {
        f"job{i}": bench.submit(
            f"job{i}",
            Manners(looks=i % 4, result=first_expires if i % 2 else None, chunks=[301], trickle=0.01),
            max_requests_per_batch=4,
            retries=i % 3,
        )
        for i in range(12)
    }

    def total() -> int:
        return sum(sum(bench.server.account(name).calls.values()) for name in jobs)

    for calls in (5, 30, 60):
        worker = bench.worker(3)
        wait_until(lambda calls=calls: total() >= calls)
        worker.stop(kill=True)
    bench.worker(3)
    for name, result in jobs.items():
        summary = result.get(timeout=180)
        assert summary["succeeded"] + summary["expired"] == 10, name
        rows = list(BatchJob(result.id, bench.app).results())
        assert len({row.custom_id for row in rows}) == len(rows) == 10
        assert max(bench.server.account(name).paid.values()) == 1, name


def test_messages_that_come_twice(bench: Bench) -> None:
    """Whatever lies with a worker is put back on the queue once more, byte for byte, while the jobs run."""
    client = bench.redis.client()
    stop = threading.Event()
    copied: set[bytes] = set()

    def duplicate() -> None:
        while not stop.wait(0.02):
            for tag, value in client.hgetall("unacked").items():
                if tag not in copied and len(copied) < 400:
                    copied.add(tag)
                    message, _, queue = json.loads(value)
                    if message["properties"]["delivery_tag"] == tag.decode():
                        message["properties"]["delivery_tag"] += "-again"
                        copied.add(message["properties"]["delivery_tag"].encode())
                        client.lpush(queue, json.dumps(message))

    bench.worker(4)
    thread = threading.Thread(target=duplicate)
    thread.start()
    try:
        jobs = {
            f"job{i}": bench.submit(
                f"job{i}",
                Manners(looks=2, result=first_expires, script={"retrieve": [None, Answer(404)]}),
                max_requests_per_batch=5,
                retries=i % 3,
            )
            for i in range(6)
        }
        for name, result in jobs.items():
            bench.check(name, result)
    finally:
        stop.set()
        thread.join()
    assert len(copied) > 40
    calls = Counter[str]()
    for i, name in enumerate(jobs):
        account = bench.server.account(name)
        assert account.calls["create"] == 2 * (1 + i % 3), name
        assert account.calls["messages"] == 2, name
        calls += account.calls
    assert client.llen("celery") < 20
