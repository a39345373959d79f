"""From the caller's generator into the store."""

from __future__ import annotations

import json

from benchmarks import material, world
from benchmarks.measure import Bench
from claude_batch_tasks.lifecycle import submission


def ours(bench: Bench) -> None:
    """``run_batch.delay(generator)`` up to the message: validated, cut into batches, staged."""
    app = world.app(bench)
    material.text(0, 10)
    job_id = f"submitted-{bench.records}{bench.suffix}"
    with bench.measure():
        submission.submit_job(app, job_id, material.requests(bench.records), {})
    _note(bench, job_id)


def ours_small(bench: Bench) -> None:
    """The same with requests of 200 bytes."""
    app = world.app(bench)
    material.text(0, 10)
    with bench.measure():
        submission.submit_job(app, f"small-{bench.records}", material.requests(bench.records, 60), {})
    _note(bench, f"small-{bench.records}")


def _note(bench: Bench, job_id: str) -> None:
    if bench.compared:
        return
    bodies, other = world.stored(bench, job_id, "body"), world.stored(bench, job_id, "ids", "sizes", "index")
    bench.measured.notes = f"{bodies:,.0f} + {other:,.0f} B a request in Redis"


def dumps_only(bench: Bench) -> None:
    """``json.dumps`` of the same requests, one after the other; part of the price of any way to send them."""
    material.text(0, 10)
    with bench.measure():
        for request in material.requests(bench.records):
            json.dumps(request)
