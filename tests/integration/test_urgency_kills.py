"""A worker that dies while it cancels a batch for a deadline: each request is answered once, and paid once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from celery import Celery

from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Fault, Simulator
from tests.integration.test_urgency import start
from tests.support import wait_until

pytestmark = [pytest.mark.latest, pytest.mark.workers, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("done", [True, False], ids=["canceled", "not canceled"])
def test_what_the_batch_did_not_process_is_sent_once(
    app: Celery, start_here: Callable[..., Worker], simulator: Simulator, *, done: bool
) -> None:
    simulator.behave(processing_seconds=30.0, cancel_seconds=0.2)
    simulator.faults(Fault("cancel", "stall", commit=done, calls=(1,)))
    worker = start_here(simulator.url, CLAUDE_BATCH_RECOVER_AFTER="5")
    job = start(app, 100, seconds=6)
    wait_until(lambda: any(call.endpoint == "cancel" for call in simulator.journal(prompts=False).calls))
    worker.stop(kill=True)
    start_here(simulator.url, CLAUDE_BATCH_RECOVER_AFTER="5")
    assert job.get(timeout=120)["succeeded"] == 100
    found = Counter(each.source for each in job.results())
    assert found.keys() == {"batch", "messages"}
    assert simulator.journal().paid_twice() == []
