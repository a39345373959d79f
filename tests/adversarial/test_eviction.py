"""A Redis that evicts while jobs are submitted, downloaded or sent through the Messages API, by every policy.

What it takes may be anything, at any moment. Nothing is paid for twice, every caller that waits hears of an end, and
what is read is whole or says that it is not.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from tests.adversarial.conftest import environment, make_app
from tests.adversarial.server import Manners, UnfriendlyServer
from tests.adversarial.tasks import params
from tests.support import wait_until

pytestmark = [pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(600)]

COUNT, JOBS = 12, 6
KINDS = ("lru", "lfu", "random")
POLICIES = ["noeviction", *(f"allkeys-{kind}" for kind in KINDS), *(f"volatile-{kind}" for kind in (*KINDS, "ttl"))]


class Bench:
    """A store of its own, which evicts; broker and result back end are in another Redis."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        store, self.broker = (stack.enter_context(RedisServer()) for _ in range(2))
        self.store: Any = store.client()
        self.server = stack.enter_context(UnfriendlyServer())
        self.names = [f"job{i}" for i in range(JOBS)]
        self.jobs: dict[str, BatchJob] = {}
        self.app: Celery = make_app(self.broker.url, self.names, claude_batch_store_url=store.url)
        self.app.set_current()
        stack.callback(self.app.close)
        stack.callback(self.let_go)
        env = environment(self.broker.url, self.server.url, self.names, CLAUDE_BATCH_STORE_URL=store.url)
        self.worker = Worker(env, folder / "worker.log", options=("--concurrency=3",))
        self.worker.start()
        stack.callback(lambda: self.worker.stop(kill=True))
        # Something that has ended, whose keys expire.
        ended = self.submit(self.names[0], looks=0)
        assert ended is not None
        wait_until(lambda: ended.status().summary)

    def let_go(self) -> None:
        """Drop results while the Redis that they listen to is still there."""
        self.jobs.clear()
        gc.collect()

    def submit(self, name: str, looks: int) -> BatchJob | None:
        """A job half of whose requests expire; None: it was refused at once."""
        self.server.account(name).manners = Manners(
            looks=looks, result=lambda i, p: {"type": "expired" if i % 2 else "succeeded"}, message_seconds=0.5
        )
        requests = {f"id {i}": params(f"{name} {i}") for i in range(COUNT)}
        try:
            self.jobs[name] = BatchJob(run_batch.delay(requests, client=name, retries=0).id, self.app)
        except (errors.StoreUnavailable, errors.ResultsMissing, errors.JobNotFound):
            return None
        return self.jobs[name]

    @contextlib.contextmanager
    def squeezed(self, policy: str) -> Iterator[None]:
        """While the Redis is full."""
        self.store.config_set("maxmemory-policy", policy)
        self.store.config_set("maxmemory", self.store.info("memory")["used_memory"] + 50_000)
        with contextlib.suppress(Exception):  # some policies refuse what they find nothing for
            for number in range(60):
                self.store.set(f"filler:{number}", b"x" * 2000, ex=10_000_000)
        yield
        self.store.config_set("maxmemory", 0)
        self.store.config_set("maxmemory-policy", "noeviction")
        if fillers := self.store.keys("filler:*"):
            self.store.delete(*fillers)

    def taken(self) -> int:
        """How many keys it has evicted."""
        return int(self.store.info("stats")["evicted_keys"])

    def end(self, job: BatchJob) -> str:
        """How a job ends, for a caller that waits for it and reads it."""
        with contextlib.suppress(errors.JobNotFound):
            try:
                job.get(timeout=180)
            except errors.JobNotFound:
                raise
            except errors.BatchTasksError:
                return f"its waiter heard that it failed, and it is {job.status().state}"
            try:
                rows = list(job.results())
            except errors.ResultsMissing as exc:
                return "said to miss some" if exc.missing or exc.keys else f"missing what: {exc}"
            assert len(rows) == COUNT
            assert len({row.custom_id for row in rows}) == COUNT
            return "whole"
        return "gone"

    def check(self) -> Counter[str]:
        """Each job has ended, and no request was paid for twice."""
        ends = {name: self.end(job) for name, job in self.jobs.items()}
        for name, end in ends.items():
            if end not in ("gone", "whole"):
                with contextlib.suppress(errors.BatchTasksError):
                    self.jobs[name].resume().get(timeout=180)
        for account in self.server.accounts.values():
            assert account.calls["create"] <= 1
            assert max(account.paid.values(), default=0) <= 1
        assert self.worker.returncode is None
        known = {"gone", "whole", "said to miss some", "its waiter heard that it failed, and it is failed"}
        assert set(ends.values()) <= known
        return Counter(ends.values())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack, tmp_path)


@pytest.mark.release
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("when", ["submit", "download", "fallback"])
def test_nothing_is_lost_silently_or_paid_twice(bench: Bench, when: str, policy: str) -> None:
    several = bench.names[1:]
    if when == "submit":
        with bench.squeezed(policy):
            accepted = [bench.submit(name, looks=0) for name in several]
            time.sleep(2)
        assert policy != "noeviction" or not any(accepted)
    else:
        for name in several:
            assert bench.submit(name, looks=0 if when == "fallback" else 3)
        accounts = [bench.server.account(name) for name in several]
        what = "messages" if when == "fallback" else "create"
        wait_until(lambda: all(account.calls[what] for account in accounts))
        with bench.squeezed(policy):
            time.sleep(4)
    ends = bench.check()
    if policy == "noeviction":
        assert bench.taken() == 0
        assert set(ends) == {"whole"}
    elif policy.startswith("allkeys"):
        assert bench.taken() > 0
