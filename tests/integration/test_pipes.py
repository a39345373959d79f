"""What a pool process tells the worker's main process of a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery

from claude_batch_tasks import run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Simulator
from tests.integration.rig import account_for, requests

pytestmark = [pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(120)]


def test_a_step_that_comes_back_sends_no_more_than_any_task_that_does(
    app: Celery, start_here: Callable[..., Worker], tmp_path: Path
) -> None:
    """A pipe holds 64 KB. For what does not fit, a worker that is being stopped may wait for ever."""
    measured = tmp_path / "measured"
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=1.0)
        start_here(simulator.url, app="tests.integration.measured", MEASURED=str(measured))
        app.send_task("tests.integration.measured.plain").get(timeout=30)
        most_plain = max(int(line.split()[0]) for line in measured.read_text().splitlines())
        measured.unlink()
        job = run_batch.delay(requests("pipes", 20), poll_min=0.1, poll_max=0.5, retry_min=0.1)
        job.get(timeout=60)
        assert account_for(app, job.id, "pipes", 20) == {"succeeded": 20}
    sent = [(int(length), what) for length, what in map(str.split, measured.read_text().splitlines())]
    assert [what for _, what in sent if what == "retry"] >= ["retry"] * 3
    assert max(sent)[0] < 1.1 * most_plain
