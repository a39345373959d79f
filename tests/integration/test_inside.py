"""A worker in a thread of the test's own process, as Celery's own pytest fixtures (``celery_worker``) start it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.api import clients
from claude_batch_tasks.simulator import Simulator
from tests.chaos.ledgers import Ledger
from tests.integration.rig import requests
from tests.support import FAST, wait_until

pytestmark = pytest.mark.workers


@pytest.fixture
def here(app: Celery, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """The app, with the settings that a worker of its own process needs."""
    clients._client.cache_clear()  # another test's, whose server is gone
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-test-key-never-to-be-seen")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", simulator.url)
    app.conf.update({name.lower(): float(value) for name, value in FAST.items()})
    yield app
    clients._client.cache_clear()


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_what_waits_there_is_sent_when_it_is_due(pool: str, here: Celery, simulator: Simulator) -> None:
    simulator.behave(processing_seconds=3)
    with start_worker(here, pool=pool, perform_ping_check=False):
        job = run_batch.delay(requests("job", 3), poll_min=1.5, poll_max=1.5)
        assert job.get(timeout=180)["succeeded"] == 3
    assert BatchJob(job.id, here).status().polls >= 2


def test_nothing_is_sent_by_one_that_was_stopped(here: Celery, simulator: Simulator, ledger: Ledger) -> None:
    simulator.behave(processing_seconds=3600)
    with start_worker(here, perform_ping_check=False):
        run_batch.delay(requests("job", 1), poll_min=4, poll_max=4)
        wait_until(lambda: ledger.count_unfinished().get("waiting"))
    time.sleep(5)
    assert (ledger.count_unfinished()["waiting"], here.backend.client.llen("celery")) == (1, 0)
