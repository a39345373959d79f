"""Asks: what ``.delay()`` takes next to that of a task without arguments, and what one worker seals and delivers."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from benchmarks import material, world
from benchmarks.measure import Bench
from benchmarks.plain import nothing
from benchmarks.watching import watch_worker
from claude_batch_tasks import ask
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Simulator
from claude_batch_tasks.store import Store, open_store_at

#: Characters of a short question, and of one as long as the requests of the other benchmarks.
_SHORT, _LONG = 60, 1_750


def no_op(bench: Bench) -> None:
    """Send a task that does nothing, one call after the other."""
    world.app(bench)
    nothing.app.conf.update(broker_url=bench.redis_url, result_backend=bench.redis_url)
    nothing.delay()
    with bench.measure():
        for _ in range(bench.records):
            nothing.delay()


def short(bench: Bench) -> None:
    """Ask short questions, one call after the other."""
    _ask_all(bench, _SHORT)


def long(bench: Bench) -> None:
    """Ask questions of 1,750 characters, one call after the other."""
    _ask_all(bench, _LONG)


def _ask_all(bench: Bench, size: int) -> None:
    world.app(bench)
    questions = [material.request(number, size)["params"] for number in range(bench.records)]
    ask.delay(questions[0])
    with bench.measure():
        for params in questions:
            ask.delay(params)


def delivered(bench: Bench) -> None:
    """From asks that wait in the store to the end of each: one worker with two processes, which has run asks before."""
    app = world.app(bench)
    redis.Redis.from_url(bench.redis_url).flushall()
    store = open_store_at(bench.redis_url)
    with _running(bench) as (simulator, worker):
        app.set_default()
        for number in range(8):
            ask.delay(material.request(number, _SHORT)["params"], pool=f"first-{number}", ask_max_requests=1).get(60)
        simulator.reset()
        simulator.behave(processing_seconds=0.1)
        os.kill(worker.pid, signal.SIGSTOP)  # all asks wait before the first pool is sealed
        jobs = {
            str(ask.delay(material.request(number, _SHORT)["params"], ask_max_wait=1).job.id): 0
            for number in range(bench.records)
        }
        with watch_worker(bench, worker) as watched:
            os.kill(worker.pid, signal.SIGCONT)
            _wait_for_ends(store, jobs, bench.records)
        assert simulator.state().totals.paid_batch == bench.records
    each = watched.cpu_seconds / bench.records * 1e6
    bench.measured.notes = f"{len(jobs)} jobs; worker {each:.0f} us CPU each, {watched.peak_mb:+.0f} MB"


def _wait_for_ends(store: Store, jobs: dict[str, int], count: int) -> None:
    """Wait until so many asks have ended; ``jobs`` has how many of each job have."""
    left, deadline = list(jobs), time.monotonic() + 900
    while sum(jobs.values()) < count:
        assert time.monotonic() < deadline, f"{sum(jobs.values())} of {count} asks have ended"
        time.sleep(0.1)
        for job_id in left[:8]:
            jobs[job_id] = int.from_bytes(store.asks.read_ended(job_id), "big").bit_count()
            job = store.jobs.read_job(job_id)
            if job is not None and job.ended_at is not None and jobs[job_id] >= job.requests:
                left.remove(job_id)


@contextmanager
def _running(bench: Bench) -> Iterator[tuple[Simulator, Worker]]:
    with Simulator("healthy", process=True) as simulator, tempfile.TemporaryDirectory() as folder:
        simulator.behave(processing_seconds=0.1)
        env = {
            **os.environ,
            **simulator.env,
            "CELERY_BROKER_URL": bench.redis_url,
            "CELERY_RESULT_BACKEND": bench.redis_url,
            "CLAUDE_BATCH_POLL_MIN": "0.1",
        }
        with Worker(env, Path(folder, "worker.log")) as worker:
            yield simulator, worker
