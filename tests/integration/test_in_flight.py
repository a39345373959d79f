"""Many batches in flight: what they cost while they wait, and that every end is noticed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, rules, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.records import BatchRecord, Flight, Unit
from claude_batch_tasks.simulator import Simulator
from claude_batch_tasks.store import open_store_at
from tests.chaos.ledgers import Ledger
from tests.factories import make_job_record
from tests.integration.flights import finish, in_flight, looks, submit
from tests.integration.rig import requests
from tests.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(600)]

StartWorker = Callable[..., Worker]
MANY = 60


def test_one_look_serves_them_all_and_a_killed_worker_loses_none(
    app: Celery, start_worker: StartWorker, store_url: str
) -> None:
    every = 4.0
    with Simulator("healthy", process=True) as simulator:
        simulator.behave(processing_seconds=0.1)
        worker = start_worker(simulator.url)
        for job in submit(4):
            job.get(timeout=180)
        simulator.reset()
        simulator.behave(processing_seconds=3600)
        idle = memory(worker.pid)
        jobs = submit(MANY, poll_min=every, poll_max=every)
        wait_until(lambda: in_flight(app, jobs), 180)
        time.sleep(every)
        before, begun = len(simulator.journal(prompts=False).calls), time.monotonic()
        time.sleep(3 * every)
        calls = looks(simulator, before)
        intervals = (time.monotonic() - begun) / every
        assert {call.endpoint for call in calls} == {"list"}
        assert 2 <= len(calls) <= intervals + 1, "one for all of them"
        assert open_store_at(store_url).schedule.take_due(0)[1] is not None
        assert memory(worker.pid) - idle < 50, "tasks that come back leave nothing behind"

        worker.stop(kill=True)
        simulator.end()
        before = len(simulator.journal(prompts=False).calls)
        start_worker(simulator.url)
        wait_until(lambda: simulator.journal(prompts=False).calls_to("results"), every + 10)
        finish(simulator, jobs)
        assert len(looks(simulator, before)) <= 5, "all ends were noticed together"


def test_ends_are_noticed_within_the_interval(app: Celery, start_worker: StartWorker) -> None:
    every = 2.5
    with Simulator("healthy", process=True) as simulator:
        simulator.behave(processing_seconds=(6, 16))
        start_worker(simulator.url)
        jobs = submit(20, poll_min=every, poll_max=every)
        finish(simulator, jobs)
        journal = simulator.journal(prompts=False)
        fetched = {call.batch_id: call.at for call in journal.calls_to("results", 200)}
        late = [fetched[batch.id] - (batch.ended_at or 0) for batch in journal.batches]
        # And a moment for the messages and the fetch, on a machine that has other things to do.
        assert max(late) < every * (1 + rules.POLL_JITTER) + 5
        assert len(looks(simulator)) < 2 * len(jobs)


def test_ten_thousand_that_wait_cost_little_and_starve_nobody(
    app: Celery, start_worker: StartWorker, store_url: str, ledger: Ledger, redis_server: RedisServer
) -> None:
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=1)
        worker = start_worker(simulator.url)
        run_batch.delay(requests("before", 2)).get(timeout=180)
        idle = memory(worker.pid)
        empty = ledger.read_bytes()
        in_ten_minutes = time.time() + 600
        store = open_store_at(store_url)
        for number in range(10_000):
            wait_in(store, f"waiting-{number}", in_ten_minutes)
        assert (ledger.read_bytes() - empty) / 10_000 < 5_000
        begun = time.monotonic()
        new = run_batch.delay(requests("new", 2))
        wait_until(lambda: BatchJob(new.id, app).status().batches[0].batch_id)
        assert time.monotonic() - begun < 5
        assert new.get(timeout=180)["succeeded"] == 2
        assert memory(worker.pid) - idle < 150
        broker: Any = redis_server.client()
        wait_until(lambda: broker.llen("celery") == broker.hlen("unacked") == 0)


def wait_in(store: Any, job_id: str, due_at: float) -> None:
    """A job whose one batch is in flight."""
    record = make_job_record(started_at=1.0, state="running", admitted=1)
    batch = BatchRecord(first=0, count=1, body_bytes=9, state="in_progress", batch_id=f"msgbatch_{job_id}")
    store.jobs.create_job(job_id, record, [batch], 3600, staged=False)
    unit = Unit(job_id, 0)
    store.leases.acquire_lease(unit, 0, "me", 60)
    flight = Flight(
        batch_id=f"msgbatch_{job_id}", created_at=time.time(), expires_at=None, requests=1, poll_min=5.0,
        poll_max=120.0, deadline=None,
    )  # fmt: skip
    store.leases.park_unit(unit, "me", 1, due_at, account="somebody", flight=flight)


def memory(pid: int) -> float:
    """Resident megabytes of a worker's processes."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    texts = [Path(f"/proc/{process}/status").read_text() for process in (pid, *children)]
    return sum(int(found[1]) / 1000 for text in texts if (found := re.search(r"VmRSS:\s+(\d+) kB", text)))


def test_a_visibility_timeout_shorter_than_the_interval(
    app: Celery, start_here: Callable[..., Worker], store_url: str
) -> None:
    """The misconfiguration that everybody meets, here with a third of the interval."""
    options = {"visibility_timeout": 2, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=13)
        workers = [start_here(simulator.url, config={"broker_transport_options": options}) for _ in range(2)]
        job = run_batch.delay(requests("job", 3), poll_min=6, poll_max=6)
        assert job.get(timeout=180)["succeeded"] == 3
        journal = simulator.journal()
        assert journal.paid_twice() == []
        assert [len(journal.calls_to(endpoint)) for endpoint in ("create", "retrieve", "results")] == [1, 3, 1]
        logs = [worker.log.read_text() for worker in workers]
        assert all("visibility_timeout is 2 s" in log and "{'visibility_timeout': 2400}" in log for log in logs)
        assert sum(len(re.findall(r"next poll in|: ended, ", log)) for log in logs) == 3
        assert not any("ignored a duplicate" in log for log in logs)
