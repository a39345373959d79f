"""The three cases of the report that started this, through real prefork workers, a real Redis and real HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Simulator

pytestmark = pytest.mark.workers


def prompts(count: int) -> dict[str, dict[str, Any]]:
    return {
        f"review {i}": {
            "model": "claude-haiku-4-5",
            "max_tokens": 64,
            "messages": [{"role": "user", "content": f"prompt number {i}"}],
        }
        for i in range(count)
    }


@pytest.mark.parametrize("scenario", ["create-404", "retrieve-404", "results-404", "issue-1432"])
def test_every_request_succeeds_and_is_paid_once(
    scenario: str, app: Celery, start_worker: Callable[..., Worker]
) -> None:
    with Simulator(scenario) as simulator:
        worker = start_worker(simulator.url)
        result = run_batch.delay(prompts(40))
        summary = result.get(timeout=60)

        assert summary["state"] == "completed"
        assert (summary["requests"], summary["succeeded"], summary["fallback"]) == (40, 40, 0)
        assert BatchJob(result.id, app).status().not_found > 0
        rows = {row.custom_id: row for row in BatchJob(result.id, app).results()}
        assert {custom_id: row.text for custom_id, row in rows.items()} == {
            f"review {i}": f"Echo: prompt number {i}" for i in range(40)
        }
        assert {row.source for row in rows.values()} == {"batch"}
        journal = simulator.journal()
        assert journal.paid_twice() == []
        assert "Traceback" not in worker.log.read_text()
