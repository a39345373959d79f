"""What the cases of one process share: the Celery app, the client, a job in the store, a result file to download."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import anthropic
import redis
from celery import Celery

from benchmarks import material
from benchmarks.measure import Bench
from claude_batch_tasks import tasks
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.records import Unit
from claude_batch_tasks.store import open_store_at
from claude_batch_tasks.wire import batch_requests

KEY = "sk-ant-benchmark"


def app(bench: Bench) -> Celery:
    """An app whose store is the benchmark's Redis; tasks are called in this process."""
    os.environ.update(ANTHROPIC_API_KEY=KEY, ANTHROPIC_BASE_URL=bench.api_url)
    made = Celery("benchmarks", broker=bench.redis_url, backend=bench.redis_url)
    made.conf.update(task_always_eager=False, claude_batch_store_url=bench.redis_url)
    made.set_default()
    made.finalize(auto=True)
    assert made.backend is not None  # looked up, as in a worker that has run a task before
    return made


def client(bench: Bench) -> anthropic.Anthropic:
    """The official SDK's client, as it is."""
    return anthropic.Anthropic(api_key=KEY, base_url=bench.api_url)


def batch_id(records: int) -> str:
    """The batch of so many results that the server has; see ``prepare``."""
    return f"msgbatch_{records}"


def job_id(records: int) -> str:
    """The job the batch belongs to."""
    return f"job-{records}"


def prepare(bench: Bench) -> None:
    """Stage a job of small requests, write the result file of its batch, and leave the batch ended at Anthropic."""
    count, folder = bench.records, Path(os.environ["BENCHMARK_FOLDER"])
    staged = submission.submit_job(app(bench), job_id(count), material.requests(count, 60), {})
    with (folder / f"{batch_id(count)}.jsonl").open("wb") as file:
        for number in range(count):
            # Not in order: that of a result file is not promised.
            place = number * 7919 % count
            file.write(material.line(batch_requests.wire_id(staged.nonce, place), place) + b"\n")
    counts = {"processing": 0, "succeeded": count, "errored": 0, "canceled": 0, "expired": 0}
    (folder / f"{batch_id(count)}.json").write_text(json.dumps(counts))
    store = open_store_at(bench.redis_url)
    unit = Unit(job_id(count), 0)
    store.jobs.update_job(job_id(count), state="running", started_at=time.time(), admitted=1)
    store.leases.acquire_lease(unit, 0, "benchmark", 60)
    store.leases.write_record(
        unit, "benchmark", state="ended", batch_id=batch_id(count), told=counts, created_at=time.time()
    )
    store.leases.advance_unit(unit, "benchmark", 0)


def stored(bench: Bench, job_id: str, *kinds: str) -> float:
    """Bytes of Redis memory per record that a job's keys take: all of them, or those with such endings."""
    client: Any = redis.Redis.from_url(bench.redis_url)
    keys = client.scan_iter(f"claude_batch:{{{job_id}}}*", count=1000)
    chosen = [key for key in keys if not kinds or key.decode().rstrip("0123456789").rstrip(":").endswith(kinds)]
    return float(sum(client.memory_usage(key, samples=0) for key in chosen)) / bench.records


__all__ = ["app", "batch_id", "client", "job_id", "prepare", "stored", "tasks"]
