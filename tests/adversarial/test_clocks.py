"""Clocks that are wrong, or are set while jobs run: nothing is paid twice, and nothing waits for the difference."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.records import Unit
from claude_batch_tasks.store import open_store_at
from tests.adversarial.conftest import environment, make_app
from tests.adversarial.server import DROP, LOST, NOT_FOUND, Manners, UnfriendlyServer, refusal
from tests.adversarial.tasks import params
from tests.support import wait_until

pytestmark = [pytest.mark.workers, pytest.mark.timeout(400)]

HOUR = 3600.0
COUNT = 4
LIMITED = refusal(429, "rate_limit_error", "slow down", retry_after="2")


def expires(index: int, prompt: str) -> dict[str, Any]:
    return {"type": "expired"} if index == 0 else {"type": "succeeded"}


#: What a job meets, and the creates that it takes.
CASES = {
    "nothing": (Manners(), 1),
    "create_lost": (Manners(script={"create": [LOST]}), 1),
    "create_never_stored": (Manners(script={"create": [DROP]}), 2),
    "shown_late": (Manners(script={"create": [LOST]}, shows_after=(1.0, 1.0)), 1),
    "not_found": (Manners(script={"retrieve": [NOT_FOUND] * 3, "results": [NOT_FOUND]}), 1),
    "limited": (Manners(script={"create": [LIMITED], "retrieve": [LIMITED]}), 2),
    "messages": (Manners(result=expires, script={"messages": [LIMITED]}), 1),
    "api_ahead": (Manners(script={"create": [LOST]}, ahead=HOUR), 1),
    "api_behind": (Manners(script={"create": [LOST]}, ahead=-HOUR), 1),
}


class Bench:
    """A Redis, a server, and workers on machines whose clocks are wrong."""

    def __init__(self, stack: ExitStack, folder: Path, redis: RedisServer) -> None:
        redis.client().flushall()
        self.stack, self.folder, self.redis = stack, folder, redis
        self.server = stack.enter_context(UnfriendlyServer())
        self.app = make_app(redis.url, CASES)
        self.app.set_current()
        stack.callback(self.app.close)
        stack.callback(gc.collect)
        self.store = open_store_at(redis.url)

    def worker(self, name: str, shift: float) -> Worker:
        """One whose clock is ahead by so many seconds."""
        self.set_clock(name, shift)
        clock = str(self.folder / f"{name}.clock")
        env = environment(self.redis.url, self.server.url, CASES, CLOCK=clock)
        options = ("--concurrency=4", f"--hostname={name}@tests")
        worker = Worker(env, self.folder / f"{name}.log", app="tests.integration.shifted", options=options)
        worker.start()
        self.stack.callback(worker.stop, kill=True)
        return worker

    def set_clock(self, name: str, shift: float) -> None:
        new = self.folder / "new.clock"
        new.write_text(str(shift))
        os.replace(new, self.folder / f"{name}.clock")

    def submit(self, name: str, **options: Any) -> Any:
        self.server.account(name).manners = CASES[name][0]
        return run_batch.delay({f"{name} {i}": params(f"{name} {i}") for i in range(COUNT)}, client=name, **options)

    def check(self, name: str, result: Any, seconds: float) -> None:
        """It ends in time, and all of it was paid once."""
        result.get(timeout=seconds)
        account, creates = self.server.account(name), CASES[name][1]
        assert account.calls["create"] == creates, name
        assert max(account.paid.values()) == 1, name
        rows = list(BatchJob(result.id, self.app).results())
        assert [row.type for row in rows] == ["succeeded"] * COUNT, name
        moments = [event.at.timestamp() for event in BatchJob(result.id, self.app).history()]
        assert all(abs(moment - time.time()) < 120 for moment in moments), f"{name}: by the store's clock"


@pytest.fixture
def bench(tmp_path: Path, redis_server: RedisServer) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack, tmp_path, redis_server)


@pytest.mark.parametrize(
    "shifts",
    [
        pytest.param((HOUR,), id="ahead", marks=pytest.mark.release),
        pytest.param((-HOUR,), id="behind", marks=pytest.mark.release),
        pytest.param((HOUR, -HOUR), id="both"),
    ],
)
def test_a_wrong_clock_changes_nothing(shifts: tuple[float, ...], bench: Bench) -> None:
    for shift in shifts:
        bench.worker("ahead" if shift > 0 else "behind", shift)
    jobs = {name: bench.submit(name, retries=0, max_wait=60) for name in CASES}
    deadline = time.monotonic() + 40
    for name, result in jobs.items():
        bench.check(name, result, max(deadline - time.monotonic(), 1))


def test_a_clock_that_is_set_in_the_middle_changes_nothing(bench: Bench) -> None:
    """It goes an hour forward and two hours back, while batches run and a create is searched for."""
    bench.worker("set", 0)
    for name in CASES:
        CASES[name][0].seconds = (6.0, 6.0)
    try:
        jobs = {name: bench.submit(name, retries=0, max_wait=60) for name in CASES}
        wait_until(lambda: all(bench.server.account(name).calls["create"] for name in CASES))
        for shift in (HOUR, -HOUR):
            bench.set_clock("set", shift)
            time.sleep(2.5)
            due = [bench.store.records.read_batch(result.id, 0).due_at for result in jobs.values()]  # type: ignore[union-attr]
            assert all(abs(at - time.time()) < 60 for at in due if at is not None)
        deadline = time.monotonic() + 40
        for name, result in jobs.items():
            bench.check(name, result, max(deadline - time.monotonic(), 1))
    finally:
        for name in CASES:
            CASES[name][0].seconds = None


def test_a_caller_with_a_wrong_clock_changes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.worker("right", 0)
    right = time.time
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: right() + HOUR)
        result = bench.submit("nothing", max_wait=30)
        submitted = bench.store.jobs.read_job(result.id).submitted_at  # type: ignore[union-attr]
    assert abs(submitted - time.time()) < 20
    assert not bench.store.schedule.list_overdue(time.time() - 30, 10)
    bench.check("nothing", result, 30)
    assert bench.store.records.read_position(Unit(result.id)) >= 0
