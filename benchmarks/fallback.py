"""Requests through the Messages API under its rate limit: 1,000 a minute, four worker processes, time compressed.

A minute takes twelve seconds, and an answer a tenth of a second, which stands for half a second. The account's bucket
is full at the beginning, so that 2,000 requests take one minute at best.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis

from benchmarks import material, world
from benchmarks.measure import Bench
from benchmarks.plain import ask
from claude_batch_tasks import run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Outcome, Simulator

#: Of the rate limit: requests, and the seconds that a minute takes.
LIMIT, MINUTE = 1000, 12.0
_PROCESSES = 2


def ours(bench: Bench) -> None:
    """A job whose requests have all expired in its batch."""
    app = world.app(bench)
    with _running(bench, "claude_batch_tasks.app") as simulator:
        app.set_default()
        with bench.measure():
            result = run_batch.delay(
                material.requests(bench.records, 60), retries=0, max_fallback_requests=bench.records
            )
            assert result.get(timeout=600)["fallback"] == bench.records
        _report(bench, simulator)


def a_task_each(bench: Bench) -> None:
    """A task for each request, which is tried again when it is refused."""
    ask.app.conf.broker_url = bench.redis_url
    with _running(bench, "benchmarks.plain") as simulator:
        with bench.measure():
            for number in range(bench.records):
                ask.delay(material.request(number, 60)["params"])
            while simulator.state().totals.paid_messages < bench.records:
                pass
        _report(bench, simulator)


@contextmanager
def _running(bench: Bench, app: str) -> Iterator[Simulator]:
    with Simulator("healthy", process=True) as simulator, tempfile.TemporaryDirectory() as folder:
        simulator.behave(
            processing_seconds=0.1,
            messages_seconds=0.1,
            messages_per_minute=LIMIT,
            minute_seconds=MINUTE,
            outcomes=(Outcome("expired"),),
        )
        env: dict[str, Any] = {
            **os.environ,
            **simulator.env,
            "CELERY_BROKER_URL": bench.redis_url,
            "CELERY_RESULT_BACKEND": bench.redis_url,
            "CLAUDE_BATCH_POLL_MIN": "0.2",
        }
        redis.Redis.from_url(bench.redis_url).flushall()
        with ExitStack() as workers:
            for name in ("a", "b"):
                options = (f"--concurrency={_PROCESSES}", f"--hostname={name}@bench")
                workers.enter_context(Worker(env, Path(folder, f"{name}.log"), app=app, options=options))
            yield simulator


def _report(bench: Bench, simulator: Simulator) -> None:
    calls = [call for call in simulator.journal(prompts=False).calls if call.endpoint == "messages"]
    accepted = [call.at for call in calls if call.status == 200]
    span = accepted[-1] - accepted[0]
    allowed = LIMIT * (1 + span / MINUTE)
    used, refused = len(accepted) / allowed, sum(call.status == 429 for call in calls)
    bench.measured.values = {"calls": len(calls)}
    bench.measured.notes = (
        f"{used:.0%} of what the limit allowed in {span:.1f} s; {refused:,} of {len(calls):,} calls refused"
    )
