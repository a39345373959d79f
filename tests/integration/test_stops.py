"""Workers that are told to stop: whatever their steps were doing is lost by no stop, and done twice by none."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, shared_task

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.simulator import Outcome, Simulator
from tests.integration.rig import Proxy, account_for, requests, signal_worker
from tests.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(400)]

#: Seconds; the visibility timeout is 40 minutes, the lease is 60 s: nothing here ends by waiting for either.
SOON = 60

#: Seconds, as a supervisor's; Celery's warm shutdown takes thirty where it meets a task just handed to the pool.
GRACE = 60


@dataclass(frozen=True)
class Stop:
    """A way to stop a worker."""

    signals: tuple[signal.Signals, ...]
    finishes: bool
    """Whether the steps that run may come to their end."""
    soft: float = 0
    """``worker_soft_shutdown_timeout``, seconds."""
    group: bool = False
    """Whether the pool's processes get the signal too, as under systemd."""
    remap: bool = False
    """Whether SIGTERM means SIGQUIT, as in the compose file."""


STOPS = {
    "warm": Stop((signal.SIGTERM,), finishes=True),
    "soft": Stop((signal.SIGQUIT,), finishes=True, soft=3),
    "soft-cut-short": Stop((signal.SIGTERM,), finishes=False, soft=1, remap=True),
    "whole-group": Stop((signal.SIGTERM,), finishes=False, group=True),
    "cold-by-ctrl-c": Stop((signal.SIGINT, signal.SIGINT), finishes=False),
    "cold-by-quit": Stop((signal.SIGQUIT, signal.SIGQUIT), finishes=False, soft=1),
}


StartHere = Callable[..., Worker]


def gone(worker: Worker) -> bool:
    return worker.returncode is not None


def see_out(worker: Worker) -> None:
    """Wait until it has ended, or kill it after its grace as every supervisor does; what held it up is a warning."""
    try:
        wait_until(lambda: gone(worker), GRACE)
    except AssertionError:
        os.kill(worker.pid, signal.SIGUSR1)  # Celery logs what each thread is at
        time.sleep(2)
        log = worker.log.read_text(errors="replace")
        warnings.warn(f"killed after {GRACE} s of grace:\n{log[-8000:]}", stacklevel=2)
        worker.stop(kill=True)


@pytest.mark.parametrize("kind", STOPS)
def test_a_stop_in_the_middle_of_every_step(
    kind: str, app: Celery, redis_server: RedisServer, start_here: StartHere, record_property: Callable[..., None]
) -> None:
    """A create that waits for its answer, a batch between two looks, half a download, and two Messages calls."""
    stop = STOPS[kind]
    # As long as by default: a stop gives it up.
    env = {"CLAUDE_BATCH_LEASE": "60", **({"REMAP_SIGTERM": "SIGQUIT"} if stop.remap else {})}
    with Simulator() as simulator, Proxy(simulator.host, simulator.port) as proxy, ThreadPoolExecutor() as pool:
        # The second is there from the beginning, and begins to work when the first has ended.
        starting = pool.submit(start_here, proxy.url, options=("--concurrency=4", "--queues=standby"), name="second")
        first = start_here(proxy.url, config={"worker_soft_shutdown_timeout": stop.soft}, **env)
        starting.result()
        jobs = {}
        simulator.behave(processing_seconds=600)
        jobs["polled"] = run_batch.delay(requests("polled", 5), poll_min=2, poll_max=2)
        wait_until(lambda: simulator.state().totals.batches_created == 1)
        proxy.hold(r"GET \S+/results$", after=60_000)
        simulator.behave(processing_seconds=0.25, answer_chars=20_000)
        long = {name: {**params, "max_tokens": 5000} for name, params in requests("fetched", 20).items()}
        jobs["fetched"] = run_batch.delay(long)
        wait_until(lambda: proxy.held == 1)
        proxy.hold("POST /v1/messages$", times=2)
        simulator.behave(answer_chars=0, outcomes=[Outcome("expired", count=2)])
        jobs["fallen back"] = run_batch.delay(requests("fallen back", 5), retries=0)
        wait_until(lambda: proxy.held == 3)
        simulator.behave(outcomes=[])
        proxy.hold("POST /v1/messages/batches$")
        jobs["created"] = run_batch.delay(requests("created", 5))
        wait_until(lambda: proxy.held == 4)

        told = time.monotonic()
        for number in stop.signals:
            said = "shutdown" if number == signal.SIGTERM and not stop.remap else "Hitting Ctrl+C"
            signal_worker(first, number, said, group=stop.group)
        if stop.finishes:
            assert not gone(first)
            proxy.release()
        see_out(first)
        ended = time.monotonic()
        # Nothing was left with the worker: what was not done is back in the queue.
        assert redis_server.client().hlen("unacked") == 0
        assert redis_server.client().llen("celery") >= len(jobs)
        proxy.release()

        simulator.end()
        ready = time.monotonic()
        assert app.control.add_consumer("celery", destination=["second@tests"], reply=True, limit=1, timeout=30)
        took = {}
        for name in ("created", "fetched", "polled", "fallen back"):
            jobs[name].get(timeout=SOON)
            took[name] = round(time.monotonic() - ready, 1)
        record_property("seconds to stop", round(ended - told, 1))
        record_property("seconds to resume", took)

        for name, count in (("polled", 5), ("fetched", 20), ("created", 5)):
            assert account_for(app, jobs[name].id, name, count) == {"succeeded": count}
        # A call that was cut off may have been billed, so it is not made again: its request stays expired.
        fallen_back = {"succeeded": 5} if stop.finishes else {"succeeded": 3, "expired": 2}
        assert account_for(app, jobs["fallen back"].id, "fallen back", 5) == fallen_back
        journal = simulator.journal()
        assert len(journal.calls_to("create")) == len(jobs)
        assert len(journal.calls_to("messages")) == 2
        # Cut off were a download, and a create, whose batch was found by search and told by its first rows.
        assert len(journal.calls_to("results")) == (4 if stop.finishes else 6)
        assert journal.paid_twice() == []


def test_a_process_that_dies_before_the_result_is_stored(
    app: Celery, start_here: StartHere, tmp_path: Path, redis_server: RedisServer
) -> None:
    """The ledger says that the job has ended; the AsyncResult must say so too, and the callbacks must run."""
    root = str(Path(__file__).parents[2])
    with Simulator() as simulator:
        start_here(simulator.url, app="tests.integration.dying", DIED=str(tmp_path / "died"), PYTHONPATH=root)
        result = run_batch.apply_async((requests("late", 3),), link=called.s().set(queue="callbacks"))
        wait_until((tmp_path / "died").exists)
        wait_until(lambda: BatchJob(result.id, app).status().ended_at)
        assert result.get(timeout=10)["succeeded"] == 3
        assert wait_until(lambda: redis_server.client().llen("callbacks")) >= 1


@shared_task(name="tests.called")
def called(summary: dict[str, Any]) -> None:
    """A callback; nobody runs it, its messages are counted."""


@pytest.mark.parametrize("option", ["--max-tasks-per-child=1", "--autoscale=3,1"])
def test_a_pool_whose_processes_come_and_go(option: str, app: Celery, start_here: StartHere) -> None:
    partial = [Outcome("expired", count=2), Outcome("errored", error="invalid_request_error", count=1)]
    with Simulator() as simulator:
        simulator.behave(processing_seconds=1, messages_seconds=0.1, outcomes=partial)
        worker = start_here(simulator.url, options=("--concurrency=3", option), AUTOSCALE_KEEPALIVE="0.5")
        jobs = {f"job {i}": run_batch.delay(requests(f"job {i}", 5), retries=0) for i in range(2)}
        for name, result in jobs.items():
            assert result.get(timeout=180)["fallback"] == 2
            assert account_for(app, result.id, name, 5) == {"succeeded": 4, "errored": 1}
        journal = simulator.journal()
        assert len(journal.calls_to("create")) == len(jobs)
        assert len(journal.calls_to("messages")) == 2 * len(jobs)
        assert journal.paid_twice() == []
        log = worker.log.read_text()
        if "autoscale" in option:
            assert "Scaling up" in log
            assert "Scaling down" in log
        assert "Traceback" not in log


def test_a_rolling_deploy(app: Celery, start_here: StartHere, record_property: Callable[..., None]) -> None:
    """Two workers, replaced one after the other while jobs flow, by releases that are configured differently."""
    releases: list[dict[str, Any]] = [
        {},
        {"worker_prefetch_multiplier": 4, "task_compression": "gzip"},
        {},
        {"task_send_sent_event": False},
        {},
    ]

    def start(release: int) -> Worker:
        # Not a warm shutdown: where that meets a task just handed to the pool, Celery takes half a minute.
        config = {"worker_soft_shutdown_timeout": 1, **releases[release]}
        return start_here(simulator.url, options=("--concurrency=1",), config=config, REMAP_SIGTERM="SIGQUIT")

    jobs: dict[str, Any] = {}

    def submit(count: int) -> None:
        for _ in range(count):
            name = f"job {len(jobs)}"
            jobs[name] = run_batch.delay(requests(name, 4), retries=0)

    with Simulator() as simulator:
        simulator.behave(processing_seconds=1, outcomes=[Outcome("expired", count=1)])
        running = [start(0), start(1)]
        for release in range(2, len(releases)):
            submit(2)
            running.append(start(release))
            submit(1)
            oldest = running.pop(0)
            signal_worker(oldest, signal.SIGTERM, "Hitting Ctrl+C")
            submit(1)
            see_out(oldest)
        for result in jobs.values():
            result.get(timeout=SOON)
        ended = {name: BatchJob(result.id, app).status() for name, result in jobs.items()}
        lasted = [(s.ended_at - s.submitted_at).total_seconds() for s in ended.values() if s.ended_at]
        record_property("longest job", round(max(lasted), 1))
        for name, result in jobs.items():
            types = account_for(app, result.id, name, 4)
            # A Messages call that a stop cut off is not made again.
            assert types in ({"succeeded": 4}, {"succeeded": 3, "expired": 1})
        journal = simulator.journal()
        assert len(journal.calls_to("create")) == len(jobs)
        assert len(journal.calls_to("messages")) == len(jobs)
        assert journal.paid_twice() == []
