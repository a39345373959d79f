"""A Redis that refuses writes for a while: it is full, a replica, or has none. Nothing is lost or paid twice."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError

from claude_batch_tasks import BatchJob, embedded, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.errors import StoreUnavailable
from tests.adversarial.conftest import environment, make_app
from tests.adversarial.server import Account, Manners, UnfriendlyServer
from tests.adversarial.tasks import params
from tests.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.workers, pytest.mark.timeout(400)]

COUNT = 12
SECRET = "prompt-never-to-be-seen"


def fill(server: redis.Redis, on: bool) -> None:
    server.config_set("maxmemory", 1 if on else 0)


def make_replica(server: redis.Redis, on: bool) -> None:
    server.execute_command("REPLICAOF", *(("127.0.0.1", 1) if on else ("NO", "ONE")))


def miss_replicas(server: redis.Redis, on: bool) -> None:
    server.config_set("min-replicas-to-write", 1 if on else 0)


def let_grow(server: redis.Redis, on: bool) -> None:
    """Whether its files may grow."""
    most = resource.RLIM_INFINITY if on else 1
    resource.prlimit(server.info("server")["process_id"], resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def fail_to_save(server: redis.Redis, on: bool) -> None:
    """MISCONF: its last snapshot could not be written."""
    server.config_set("save", "3600 1000000")
    let_grow(server, not on)
    server.bgsave()
    wait_until(lambda: server.info("persistence")["rdb_bgsave_in_progress"] == 0)
    let_grow(server, True)
    assert (server.info("persistence")["rdb_last_bgsave_status"] == "ok") is not on


def fill_disk(server: redis.Redis, on: bool) -> None:
    """MISCONF: its append-only file may not grow any more."""
    let_grow(server, not on)

    def full() -> bool:
        with contextlib.suppress(redis.RedisError):  # it refuses from the next write on
            server.set("anything", 1)
        return bool(server.info("persistence")["aof_last_write_status"] == "err")

    if on:
        wait_until(full)


REFUSALS = {
    "OOM": fill,
    "READONLY": make_replica,
    "NOREPLICAS": miss_replicas,
    "MISCONF": fail_to_save,
    "disk full": fill_disk,
}


class Bench:
    """A store and a broker, a server whose answers take a while, and workers."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self.store, self.broker = (stack.enter_context(RedisServer()) for _ in range(2))
        self.server = stack.enter_context(UnfriendlyServer())
        self.names = [f"job{i}" for i in range(4)]
        self.app: Celery = make_app(self.store.url, self.names)
        self.app.conf.broker_url = self.broker.url
        self.app.set_current()
        stack.callback(self.app.close)

    def worker(self, **env: str) -> Worker:
        log = self.folder / f"worker-{len(list(self.folder.glob('*.log')))}.log"
        whole = environment(self.store.url, self.server.url, self.names, CELERY_BROKER_URL=self.broker.url, **env)
        worker = Worker(whole, log, options=("--concurrency=3",))
        worker.start()
        self.stack.callback(lambda: worker.stop(kill=True))
        return worker

    def submit(self, name: str, **manners: Any) -> tuple[BatchJob, Account]:
        account = self.server.account(name)
        account.manners = Manners(looks=0, result=lambda i, p: {"type": "expired"}, **manners)
        requests = {f"id {i}": params(f"{SECRET} {name} {i}") for i in range(COUNT)}
        # By its id: an AsyncResult would listen to the Redis that is made to refuse.
        return BatchJob(run_batch.delay(requests, client=name, retries=0).id, self.app), account

    def check(self, job: BatchJob, account: Account) -> None:
        wait_until(lambda: job.status().summary, 180)
        assert [row.type for row in job.results()] == ["succeeded"] * COUNT
        assert sorted(account.paid.values()) == [1] * COUNT


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    # A file that may not grow is an error to the server, as a full disk is, and not its end.
    server = tmp_path / "redis-server"
    server.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec {embedded.redis_binary()} \"$@\"\n")
    server.chmod(0o755)
    monkeypatch.setattr(embedded, "redis_binary", lambda: str(server))
    with ExitStack() as stack:
        yield Bench(stack, tmp_path)


@pytest.mark.parametrize("refuse", REFUSALS.values(), ids=REFUSALS.keys())
def test_store_and_broker_refuse_writes_in_every_step(
    bench: Bench, refuse: Callable[[redis.Redis, bool], None]
) -> None:
    worker = bench.worker()
    pid = worker.pid
    fallback, paying = bench.submit("job0", message_seconds=1.0)
    wait_until(lambda: paying.calls["messages"])
    others = [bench.submit(f"job{n}", message_seconds=0.1) for n in (1, 2)]
    for server in (bench.store, bench.broker):
        refuse(server.client(), True)
    with pytest.raises(StoreUnavailable):
        bench.submit("job3")
    time.sleep(5)
    for server in (bench.store, bench.broker):
        refuse(server.client(), False)
    for job, account in [(fallback, paying), *others]:
        bench.check(job, account)
        assert account.calls["create"] == 1
    assert worker.returncode is None
    assert worker.pid == pid
    log = worker.log.read_text()
    assert "Unrecoverable" not in log
    assert "is in memory until the store accepts it" in log


def test_a_broker_that_refuses_leaves_nothing_of_a_submission_behind(bench: Bench) -> None:
    fill(bench.broker.client(), True)
    with pytest.raises(OperationalError, match="maxmemory"):
        bench.submit("job0")
    assert not bench.store.client().keys("claude_batch:{*")


def test_answers_outlive_their_worker_on_disk(bench: Bench, tmp_path: Path) -> None:
    key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    spool = tmp_path / "spool"
    env = {"CLAUDE_BATCH_SPOOL_DIR": str(spool), "CLAUDE_BATCH_ENCRYPTION_KEY": key}
    bench.app.conf.claude_batch_encryption_key = key
    worker = bench.worker(**env)
    job, account = bench.submit("job0", message_seconds=0.5)
    wait_until(lambda: account.calls["messages"])
    fill(bench.store.client(), True)
    wait_until(lambda: len(list(spool.glob("*.answer"))) == unanswered(bench, job, account) > 0)
    worker.stop(kill=True)
    for path in spool.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert SECRET.encode() not in path.read_bytes()
        assert path.read_bytes().startswith(b"sealed:1")
    fill(bench.store.client(), False)
    bench.worker(**env)
    job.get(timeout=180)
    # What was about to be sent when the worker died may have been sent, and is not sent again.
    types = [row.type for row in job.results()]
    assert len(types) == COUNT
    assert types.count("succeeded") == sum(account.paid.values()) > 0
    assert max(account.paid.values()) == 1
    assert list(spool.iterdir()) == []


def unanswered(bench: Bench, job: BatchJob, account: Any) -> int:
    """How many calls were made whose answers are not in the store."""
    stored = int(bench.store.client().hlen(f"claude_batch:{{{job.job_id}}}:batch:0:outcomes"))
    return int(account.calls["messages"]) - stored
