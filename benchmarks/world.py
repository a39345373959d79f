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
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import Store, open_store
from claude_batch_tasks.wire import batch_requests

KEY = "sk-ant-benchmark"


def app(bench: Bench) -> Celery:
    """An app with the store of the benchmark; tasks are called in this process."""
    os.environ.update(ANTHROPIC_API_KEY=KEY, ANTHROPIC_BASE_URL=bench.api_url)
    made = Celery("benchmarks", broker=bench.redis_url, backend=bench.redis_url)
    made.conf.update(task_always_eager=False, claude_batch_store_url=bench.store_url)
    made.conf.claude_batch_payload_url = bench.payload_url
    made.set_default()
    made.finalize(auto=True)
    assert made.backend is not None  # looked up, as in a worker that has run a task before
    return made


def client(bench: Bench) -> anthropic.Anthropic:
    """The official SDK's client, as it is."""
    return anthropic.Anthropic(api_key=KEY, base_url=bench.api_url)


def batch_id(bench: Bench) -> str:
    """The batch of so many results that the server has; see ``prepare``."""
    return f"msgbatch_{bench.records}{bench.suffix}"


def job_id(bench: Bench) -> str:
    """The job the batch belongs to."""
    return f"job-{bench.records}{bench.suffix}"


def store(bench: Bench) -> Store:
    """The store of ``app``."""
    return open_store(Settings.of(app(bench)))


def prepare(bench: Bench) -> None:
    """Stage a job of small requests, write the result file of its batch, and leave the batch ended at Anthropic."""
    count, folder = bench.records, Path(os.environ["BENCHMARK_FOLDER"])
    staged = submission.submit_job(app(bench), job_id(bench), material.requests(count, 60), {})
    with (folder / f"{batch_id(bench)}.jsonl").open("wb") as file:
        for number in range(count):
            # Not in order: that of a result file is not promised.
            place = number * 7919 % count
            file.write(material.line(batch_requests.wire_id(staged.nonce, place), place) + b"\n")
    counts = {"processing": 0, "succeeded": count, "errored": 0, "canceled": 0, "expired": 0}
    (folder / f"{batch_id(bench)}.json").write_text(json.dumps(counts))
    ledger, unit = store(bench), Unit(job_id(bench), 0)
    ledger.jobs.update_job(unit.job_id, state="running", started_at=time.time(), admitted=1)
    ledger.leases.acquire_lease(unit, 0, "benchmark", 60)
    ledger.leases.write_record(
        unit, "benchmark", state="ended", batch_id=batch_id(bench), told=counts, created_at=time.time()
    )
    ledger.leases.advance_unit(unit, "benchmark", 0)


def stored(bench: Bench, job_id: str, *kinds: str) -> float:
    """Bytes of Redis memory per record that a job's keys take: all of them, or those with such endings."""
    client: Any = redis.Redis.from_url(bench.redis_url)
    keys = client.scan_iter(f"claude_batch:{{{job_id}}}*", count=1000)
    chosen = [key for key in keys if not kinds or key.decode().rstrip("0123456789").rstrip(":").endswith(kinds)]
    return float(sum(client.memory_usage(key, samples=0) for key in chosen)) / bench.records


__all__ = ["app", "batch_id", "client", "job_id", "prepare", "store", "stored", "tasks"]
