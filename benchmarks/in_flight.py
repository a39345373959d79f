"""Many batches in flight, with time compressed: what a look costs, and how late ends are noticed.

Each batch is one of fifteen minutes to two hours; a second of the run stands for several. Figures are per batch and
hour of its life, and lateness is in such seconds, up to the call for the results.
"""

from __future__ import annotations

import os
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import redis

from benchmarks import material, world
from benchmarks.measure import Bench
from benchmarks.plain import watch
from benchmarks.watching import watch_worker
from claude_batch_tasks import run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Journal, Simulator

#: Seconds of an hour per second of the run, at most: so few that a machine with two cores keeps up.
FACTOR = 30.0
#: Batches for which that is so; of more, fewer can be created while they run.
_KEPT_UP = 2_500


def ours(bench: Bench) -> None:
    """A job for each batch, at the default settings, compressed."""
    app, factor = world.app(bench), FACTOR * min(_KEPT_UP / bench.records, 1)
    with _running(bench, "benchmarks.compressed", factor) as (simulator, worker):
        app.set_default()
        simulator.behave(processing_seconds=0.1)
        for result in [run_batch.delay([material.request(number, 60)]) for number in range(4)]:
            result.get(timeout=60)  # each process has loaded what it needs
        simulator.reset()
        simulator.behave(processing_seconds=(900 / factor, 7200 / factor))
        with watch_worker(bench, worker) as watched:
            jobs = [run_batch.delay([material.request(number, 60)]) for number in range(bench.records)]
            time.sleep(450 / factor)
            waiting = _in_store(bench)
            for job in jobs:
                job.get(timeout=3600)
        journal = simulator.journal(prompts=False)
        assert journal.totals.paid_batch == bench.records
        _report(bench, worker, journal, factor, watched.peak_mb)
    bench.measured.notes += f"; {waiting}"


def every_60_s(bench: Bench) -> None:
    """A task for each batch, which looks every minute; compressed no more than two processes can keep up with."""
    factor = min(FACTOR, max(FACTOR * 100 / bench.records, 0.5))
    with _running(bench, "benchmarks.plain", factor) as (simulator, worker):
        client = anthropic.Anthropic(api_key=simulator.env["ANTHROPIC_API_KEY"], base_url=simulator.url)
        params: Any = material.request(0, 60)
        watch.app.conf.broker_url = bench.redis_url
        simulator.behave(processing_seconds=0.1)
        for _ in range(4):
            watch.delay(client.messages.batches.create(requests=[params]).id, 0.2)
        while len(simulator.journal().calls_to("results", 200)) < 4:
            time.sleep(0.2)  # each process has loaded what it needs
        simulator.reset()
        simulator.behave(processing_seconds=7200)
        ids = [client.messages.batches.create(requests=[params]).id for _ in range(bench.records)]
        created = time.time()
        with watch_worker(bench, worker) as watched:
            for batch_id in ids:
                watch.delay(batch_id, 60 / factor)
            time.sleep(150 / factor)
            simulator.end()
            ended = time.time()
            while len(simulator.journal(prompts=False).calls_to("results", 200)) < bench.records:
                assert time.time() - ended < 600
                time.sleep(1)
        journal = simulator.journal(prompts=False)
        for batch in journal.batches:  # what came before the tasks were sent is no part of it
            batch.created_at, batch.ended_at = created, ended
        _report(bench, worker, journal, factor, watched.peak_mb)


@contextmanager
def _running(bench: Bench, app: str, factor: float) -> Iterator[tuple[Simulator, Worker]]:
    with Simulator("healthy", process=True) as simulator, tempfile.TemporaryDirectory() as folder:
        env = {
            **os.environ,
            **simulator.env,
            "CELERY_BROKER_URL": bench.redis_url,
            "CELERY_RESULT_BACKEND": bench.redis_url,
            "BENCHMARK_COMPRESS": str(factor),
            "CLAUDE_BATCH_POLL_MIN": str(5 / factor),
            "CLAUDE_BATCH_POLL_MAX": str(120 / factor),
        }
        redis.Redis.from_url(bench.redis_url).flushall()
        with Worker(env, Path(folder, "worker.log"), app=app) as worker:
            yield simulator, worker


def _in_store(bench: Bench) -> str:
    """What a batch that waits takes in Redis, besides its job."""
    client: Any = redis.Redis.from_url(bench.redis_url)
    keys = [b"claude_batch:waiting", b"claude_batch:due", *client.keys("claude_batch:account:*")]
    waiting = client.zcard("claude_batch:waiting") or 1
    taken = sum(client.memory_usage(key, samples=0) or 0 for key in keys)
    held = client.hlen("unacked")
    return f"{waiting:,} waited in the store at {taken / waiting:,.0f} B each, {held} in the broker"


def _report(bench: Bench, worker: Worker, journal: Journal, factor: float, peak_mb: float) -> None:
    hours = sum((batch.ended_at or 0) - batch.created_at for batch in journal.batches) * factor / 3600
    looks = sum(call.endpoint in ("list", "retrieve") for call in journal.calls)
    messages = len(re.findall(r"\] received", worker.log.read_text()))
    fetched = {call.batch_id: call.at for call in journal.calls_to("results", 200)}
    late = sorted((fetched[batch.id] - (batch.ended_at or 0)) * factor for batch in journal.batches)
    bench.measured.values = {"looks": looks / hours, "messages": messages / hours}
    bench.measured.notes = (
        f"per batch and hour {looks / hours:.2f} looks, {messages / hours:.2f} messages; "
        f"late {statistics.median(late):.0f} s, at most {late[-1]:.0f} s; worker {peak_mb:+.0f} MB"
    )
