"""From the API to verified results in the store: ours, next to a raw copy of the bytes and to the SDK's bare loop."""

from __future__ import annotations

import redis

from benchmarks import material, world
from benchmarks.measure import Bench
from claude_batch_tasks import api
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.tasks import fetch_results

_PIECE = 1_000_000


def ours(bench: Bench) -> None:
    """``fetch_results``: downloaded, split, checked, compressed, written, published."""
    job_id = world.job_id(bench)
    # A worker makes its client, and looks up prices, once per process.
    settings = Settings.of(world.app(bench))
    api.get_client("default", settings.client_factories)
    assert settings.price_list.has_price(material.MODEL)
    with bench.measure():
        fetch_results.apply((job_id, 0, 0, 0), throw=True)
    batch = world.store(bench).records.read_batch(job_id, 0)
    assert batch is not None
    assert batch.state == "fetched", batch.state
    if bench.compared:
        return
    rows, other = world.stored(bench, job_id, "rows"), world.stored(bench, job_id, "pieces", "eligible")
    bench.measured.notes = f"{rows:,.0f} + {other:,.0f} B a result in Redis"


def raw_copy(bench: Bench) -> None:
    """The same bytes through the same client into the same Redis, a megabyte at a time, without a look at them."""
    client, server = world.client(bench), redis.Redis.from_url(bench.redis_url)
    with bench.measure(), api.open_results(client, world.batch_id(bench), timeout=60) as chunks:
        held: list[bytes] = []
        size = 0
        for chunk in chunks:
            held.append(chunk)
            size += len(chunk)
            if size >= _PIECE:
                server.rpush("raw", b"".join(held))
                held, size = [], 0
        server.rpush("raw", b"".join(held))
    server.delete("raw")


def sdk_loop(bench: Bench) -> None:
    """``for result in client.messages.batches.results(id)``, and nothing else."""
    client = world.client(bench)
    with bench.measure():
        assert sum(1 for _ in client.messages.batches.results(world.batch_id(bench))) == bench.records
