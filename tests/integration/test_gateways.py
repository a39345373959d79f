"""Jobs whose calls meet what stands between a worker and the API: the scenarios of the field."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from celery import Celery

from claude_batch_tasks import run_batch
from claude_batch_tasks.simulator import SCENARIOS, Outcome, Simulator
from tests.factories import make_params

REQUESTS = {str(number): make_params(f"prompt {number}") for number in range(2)}


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    with Simulator("healthy") as running:
        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def eager(redis_url: str) -> Iterator[Celery]:
    app = Celery("tests", broker="amqp://nowhere", include=["claude_batch_tasks.tasks"], set_as_current=False)
    app.loader.import_default_modules()
    app.conf.update(
        task_always_eager=True, claude_batch_store_url=redis_url, claude_batch_create_settle=1, claude_batch_timeout=3
    )
    app.set_current()
    yield app
    app.close()


@pytest.mark.parametrize("name", [n for n in SCENARIOS if n.startswith(("cloudflare","forb","envoy","stream","half","no-b", "issue-1432-c"))])
def test_x(name: str, eager: Celery, simulator: Simulator) -> None:
    simulator.reset(name)
    simulator.behave(processing_seconds=0.3, outcomes=[Outcome("expired", count=1, attempts=9)])
    result = run_batch.delay(REQUESTS)
    try:
        out = {k:v for k,v in result.get().items() if k in ("state","succeeded","errored","expired","fallback","batch_ids","resubmitted")}
    except Exception as e:
        out = repr(e)
    j = simulator.journal()
    print("\n###", name, out, "twice", j.paid_twice(), j.totals.batches_created, j.totals.paid_batch, j.totals.paid_messages)
    for c in j.calls: print("    ", round(c.at - j.calls[0].at,1), c.endpoint, c.status, c.faults, c.error, c.reason)
