"""The three cases of the report that started this, through real prefork workers, a real Redis and real HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Simulator
from tests.integration.rig import account_for, requests

pytestmark = [pytest.mark.slow, pytest.mark.workers]


@pytest.mark.parametrize("scenario", ["create-404", "retrieve-404", "results-404", "issue-1432"])
def test_every_request_succeeds_and_is_paid_once(
    scenario: str, app: Celery, start_worker: Callable[..., Worker]
) -> None:
    with Simulator(scenario) as simulator:
        worker = start_worker(simulator.url)
        result = run_batch.delay(requests("review", 40))
        summary = result.get(timeout=180)

        assert summary["state"] == "completed"
        assert (summary["requests"], summary["succeeded"], summary["fallback"]) == (40, 40, 0)
        assert BatchJob(result.id, app).status().polls_404 > 0
        assert account_for(app, result.id, "review", 40) == {"succeeded": 40}
        assert {row.source for row in BatchJob(result.id, app).results()} == {"batch"}
        journal = simulator.journal()
        assert journal.paid_twice() == []
        told = BatchJob(result.id, app).history()
        line = ["submitted", "started", "created", "seen", "ended", "fetched", "finished"]
        assert [event.event for event in told if event.event != "not_found"] == line
        not_found = [event for event in told if event.event == "not_found"]
        met = Counter(event.details["endpoint"] for event in not_found)
        assert met == Counter(call.endpoint for call in journal.calls if call.status == 404)
        for event in not_found:
            assert event.details["countdown"] >= 0
            assert event.details["request_id"].startswith("req_")

        log = worker.log.read_text()
        assert "Traceback" not in log
        about_it = [line for line in log.splitlines() if result.id in line]
        # What the caller did stands in the caller's log.
        shown = [event for event in told if event.event not in ("submitted", "seen")]
        assert all(any(event.text in line for line in about_it) for event in shown)
        # One line for each call, and none of Celery's or httpx's.
        calls = [call for call in journal.calls if call.endpoint in ("create", "retrieve", "results")]
        assert len(about_it) == len(calls) + len(["started", "finished"])
        assert not [line for line in log.splitlines() if "Task claude_batch_tasks." in line or "HTTP Request" in line]
