"""A whole job against the simulator: two prefork processes of ours, next to batchwizard, the fastest durable peer.

What either waits for Anthropic is left out: the time from the batch's creation to the first call for its results.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from celery import Celery

from benchmarks import material, world
from benchmarks.measure import Bench
from claude_batch_tasks import run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Simulator

PEER = "batchwizard==0.5.0"


@contextmanager
def _simulator(bench: Bench) -> Iterator[Simulator]:
    with Simulator("healthy", process=True) as simulator:
        _behave(simulator)
        yield simulator
        journal = simulator.journal(prompts=False)
        created = {batch.id: batch.created_at for batch in journal.batches}
        waited = [call.at - created[call.batch_id or ""] for call in journal.calls_to("results", 200)]
        bench.measured.seconds -= max(waited)
        assert journal.totals.paid_batch == bench.records


def _behave(simulator: Simulator) -> None:
    simulator.behave(processing_seconds=0.1, answer_chars=1300)


def _questions(bench: Bench, folder: str) -> Path:
    path = Path(folder, "questions.jsonl")
    with path.open("w") as file:
        file.writelines(json.dumps(request) + "\n" for request in material.requests(bench.records))
    return path


def ours(bench: Bench) -> None:
    """From ``run_batch.delay`` of the lines of a file, to the summary of ``get()``."""
    app: Celery = world.app(bench)
    with _simulator(bench) as simulator, tempfile.TemporaryDirectory() as folder:
        env = {
            **os.environ,
            **simulator.env,
            "CELERY_BROKER_URL": bench.redis_url,
            "CELERY_RESULT_BACKEND": bench.redis_url,
            "CLAUDE_BATCH_POLL_MIN": "0.1",
        }
        with Worker(env, Path(folder, "worker.log")):
            app.set_default()
            # Workers run already when a job comes: each process has its connections.
            for result in [run_batch.delay(material.requests(2)) for _ in range(4)]:
                result.get(timeout=60)
            simulator.reset()
            _behave(simulator)
            with _questions(bench, folder).open() as file, bench.measure():
                result = run_batch.delay(map(json.loads, file))
                summary = result.get(timeout=600, interval=0.02)
            assert summary["succeeded"] == bench.records


def batchwizard(bench: Bench) -> None:
    """From the same file to its file of answers; without the time its command takes to start."""
    home = Path(os.environ["BENCHMARK_PEERS"], PEER)
    command = home / "bin" / "batchwizard"
    if not command.exists():
        venv.create(home, with_pip=True)
        subprocess.run(
            [home / "bin" / "python", "-m", "pip", "install", "--quiet", PEER], check=True, stderr=subprocess.DEVNULL
        )
    with _simulator(bench) as simulator, tempfile.TemporaryDirectory() as folder:
        questions = _questions(bench, folder)
        env = {**os.environ, **simulator.env, "HOME": folder, "XDG_CONFIG_HOME": folder, "NO_COLOR": "1"}
        begun = time.perf_counter()
        subprocess.run([command, "--help"], cwd=folder, env=env, check=True, capture_output=True)
        starting = time.perf_counter() - begun
        options = ["--provider", "anthropic", "--check-interval", "1", "--output-directory", "answers"]
        with bench.measure():
            subprocess.run(
                [command, "process", questions, *options], cwd=folder, env=env, check=True, capture_output=True
            )
        bench.measured.seconds -= starting
        answers = sum(len(path.read_bytes().splitlines()) for path in Path(folder, "answers").rglob("*.jsonl"))
        assert answers == bench.records, answers
