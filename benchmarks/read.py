"""Reading results back from the store."""

from __future__ import annotations

import io
import time

import redis

from benchmarks import world
from benchmarks.measure import Bench
from claude_batch_tasks import BatchJob
from claude_batch_tasks.records import Unit


def _job(bench: Bench) -> BatchJob:
    app = world.app(bench)
    store, unit = world.store(bench), Unit(world.job_id(bench), 0)
    store.leases.acquire_lease(unit, 10**16, "benchmark", 60)
    store.leases.write_record(unit, "benchmark", final=True, done=True)
    return BatchJob(unit.job_id, app)


def ours(bench: Bench) -> None:
    """``job.results()``."""
    job = _job(bench)
    with bench.measure():
        assert sum(1 for _ in job.results()) == bench.records


def in_order(bench: Bench) -> None:
    """``job.results(order="request")``."""
    job = _job(bench)
    with bench.measure():
        assert sum(1 for _ in job.results(order="request")) == bench.records


def errored(bench: Bench) -> None:
    """``job.results(type="errored")``, of which there are none: every row is looked at."""
    job = _job(bench)
    unit = Unit(world.job_id(bench), 0)
    world.store(bench).leases.write_record(unit, "benchmark", counts={"succeeded": bench.records - 1, "errored": 1})
    with bench.measure():
        assert sum(1 for _ in job.results(type="errored")) == 0


def export(bench: Bench) -> None:
    """``job.export(file)``, as JSON lines."""

    class Nowhere(io.RawIOBase):
        def write(self, data: object) -> int:
            return len(data)  # type: ignore[arg-type]

    job = _job(bench)
    with bench.measure():
        assert job.export(Nowhere()) == bench.records  # type: ignore[arg-type]


def arrow(bench: Bench) -> None:
    """``job.to_arrow()``."""
    import pyarrow.parquet  # noqa: F401 - beforehand, as in a process that has made a table before

    job = _job(bench)
    with bench.measure():
        assert job.to_arrow().num_rows == bench.records


def round_trips(bench: Bench) -> None:
    """Four calls of Redis that do nothing, a hundred times: what ``one`` cannot be without."""
    client = redis.Redis.from_url(bench.redis_url)
    client.ping()
    with bench.measure():
        for _ in range(400):
            client.ping()
    bench.measured.records = 100


def one(bench: Bench) -> None:
    """``job.result(custom_id)``, a hundred of them."""
    job = _job(bench)
    worst = 0.0
    job.result("review-0")
    with bench.measure():
        for n in range(100):
            begun = time.perf_counter()
            job.result(f"review-{n * 7919 % bench.records}")
            worst = max(worst, time.perf_counter() - begun)
    bench.measured.records = 100
    bench.measured.notes = f"slowest {worst * 1000:.1f} ms"
