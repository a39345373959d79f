"""What the tests of many batches in flight share."""

from __future__ import annotations

import time
from typing import Any

from celery import Celery

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.simulator import Call, Simulator
from tests.chaos.ledgers import Ledger
from tests.integration.rig import requests


def looks(simulator: Simulator, since: int = 0) -> list[Call]:
    """The calls that look at batches."""
    calls = simulator.journal(since, prompts=False).calls
    return [call for call in calls if call.endpoint in ("list", "retrieve")]


def submit(count: int, **options: Any) -> list[Any]:
    """So many jobs of one batch each."""
    return [run_batch.delay(requests(f"job {number}", 1), **options) for number in range(count)]


def in_flight(app: Celery, jobs: list[Any]) -> bool:
    time.sleep(0.2)  # asking takes from the workers
    return all(BatchJob(job.id, app).status().batches[0].batch_id for job in jobs)


def nothing_waits(ledger: Ledger) -> bool:
    return not {"due", "waiting"} & ledger.count_unfinished().keys()


def finish(simulator: Simulator, jobs: list[Any]) -> None:
    for job in jobs:
        assert job.get(timeout=180)["succeeded"] == 1
    assert simulator.journal(prompts=False).totals.paid_batch == len(jobs)
    assert len(simulator.journal(prompts=False).calls_to("create", 200)) == len(jobs)
