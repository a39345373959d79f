"""A job of a million small requests in twelve batches: what every process of it holds at most."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from benchmarks import material, world
from benchmarks.measure import Bench, memory
from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Simulator


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ours(bench: Bench) -> None:
    """From ``run_batch.delay(generator)`` over the summary to the last of ``job.results()``."""
    app = world.app(bench)
    with Simulator("healthy", process=True) as simulator, tempfile.TemporaryDirectory() as folder:
        simulator.behave(processing_seconds=0.5, echo_chars=60)
        env = {
            **os.environ,
            **simulator.env,
            "CELERY_BROKER_URL": bench.redis_url,
            "CELERY_RESULT_BACKEND": bench.redis_url,
            "CLAUDE_BATCH_POLL_MIN": "0.2",
        }
        with Worker(env, Path(folder, "worker.log")) as worker:
            app.set_default()
            run_batch.delay(material.requests(2)).get(timeout=60)
            processes = [worker.pid, *_children(worker.pid)]
            before = {pid: memory("VmRSS", pid) for pid in processes}
            material.text(0, 10)
            with bench.measure():
                limit = -(-bench.records // 12)
                result = run_batch.delay(material.requests(bench.records, 60), max_requests_per_batch=limit)
                summary = result.get(timeout=1800)
                assert summary["succeeded"] == bench.records
                assert len(summary["batch_ids"]) == 12
                assert sum(1 for _ in BatchJob(result.id, app).results()) == bench.records
            peaks = ", ".join(f"{memory('VmHWM', pid) - before[pid]:.0f}" for pid in processes)
        journal = simulator.journal(prompts=False)
        assert journal.totals.paid_batch == bench.records + 2
    size = world.stored(bench, result.id)
    bench.measured.notes = f"worker's processes {peaks} MB; {size:,.0f} B a request in Redis"
