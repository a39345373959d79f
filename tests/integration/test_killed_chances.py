"""Another chance where workers are killed, or have settings of their own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.records import Unit
from claude_batch_tasks.simulator import Fault, Outcome, Simulator
from tests.chaos.ledgers import Ledger
from tests.integration.listening import SAVED, save
from tests.integration.rig import account_for, requests
from tests.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.latest, pytest.mark.workers]

StartWorker = Callable[..., Worker]

EXPIRED = Outcome("expired")


def notes(app: Celery, job_id: str) -> Counter[str | None]:
    return Counter(found.note for found in BatchJob(job_id, app).results())


def calls(simulator: Simulator, endpoint: str, status: int | None = None) -> int:
    found = simulator.journal().calls
    return sum(call.endpoint == endpoint and status in (None, call.status) for call in found)


def test_rounds_survive_workers_that_are_killed(app: Celery, start_worker: StartWorker, simulator: Simulator) -> None:
    simulator.behave(processing_seconds=0.4, outcomes=(Outcome("expired", attempts=2),))
    result = run_batch.delay(requests("job", 30), max_requests_per_batch=10)
    for count in (4, 6, 8):
        worker = start_worker(simulator.url)
        wait_until(lambda count=count: simulator.state().totals.batches_created >= count)
        worker.stop(kill=True)
    start_worker(simulator.url)
    assert result.get(timeout=180)["resubmitted"] == 30
    assert account_for(app, result.id, "job", 30) == {"succeeded": 30}
    assert simulator.state().totals.batches_created == 9


def test_a_number_of_requests_is_kept_by_eight_processes(
    app: Celery, start_worker: StartWorker, simulator: Simulator
) -> None:
    """Eight processes, 500 requests, two batches that share the limit of 100."""
    simulator.behave(processing_seconds=0.2, messages_seconds=0.05, outcomes=(EXPIRED,))
    for _ in range(2):
        start_worker(simulator.url, options=("--concurrency=4",))
    options = {"retries": 0, "max_fallback_requests": 100, "max_requests_per_batch": 250}
    result = run_batch.delay(requests("job", 500), **options)
    summary = result.get(timeout=180)
    assert [summary[name] for name in ("succeeded", "fallback", "fallback_skipped")] == [100, 100, 400]
    assert simulator.state().totals.paid_messages == 100
    assert account_for(app, result.id, "job", 500) == {"succeeded": 100, "expired": 400}
    assert notes(app, result.id) == {None: 100, "max_fallback_requests (100) are reached for this job": 400}


@pytest.mark.parametrize("max_tokens", [64, 20_000])
def test_a_cost_is_kept_by_eight_processes(
    max_tokens: int, app: Celery, start_worker: StartWorker, simulator: Simulator
) -> None:
    """Answers are much shorter than they may be: what was reserved for them is had again."""
    simulator.behave(processing_seconds=0.2, outcomes=(EXPIRED,))
    for _ in range(2):
        start_worker(simulator.url, options=("--concurrency=4",))
    made = requests("job", 200)
    for params in made.values():
        params["max_tokens"] = max_tokens
    result = run_batch.delay(made, retries=0, max_fallback_cost=0.003)
    summary = result.get(timeout=180)
    each = summary["cost"] / summary["fallback"]
    assert 0.003 - each < summary["cost"] < 0.003 + each
    assert summary["fallback"] + summary["fallback_skipped"] == 200
    assert simulator.state().totals.paid_messages == summary["fallback"]
    assert (
        sum("max_fallback_cost ($0.003)" in (note or "") for note in notes(app, result.id).elements())
        == (summary["fallback_skipped"])
    )


def test_what_a_killed_worker_was_at_is_lost_and_nothing_else(
    app: Celery, start_worker: StartWorker, simulator: Simulator
) -> None:
    """Through a rate limit: few refusals, none lost, none paid twice; what was under way keeps its outcome."""
    simulator.behave(
        processing_seconds=0.2,
        messages_seconds=0.02,
        minute_seconds=3,
        messages_per_minute=500,
        outcomes=(EXPIRED,),
    )
    first, second = (start_worker(simulator.url) for _ in range(2))
    result = run_batch.delay(requests("job", 1000), retries=0)
    wait_until(lambda: simulator.state().totals.paid_messages > 300)
    first.stop(kill=True)
    start_worker(simulator.url)
    summary = result.get(timeout=180)
    assert second.returncode is None
    types = account_for(app, result.id, "job", 1000)
    assert types["succeeded"] == summary["fallback"] >= 1000 - 32
    assert simulator.journal().paid_twice() == []
    paid = simulator.state().totals.paid_messages
    assert summary["fallback"] <= paid <= 1000
    assert calls(simulator, "messages", 429) < 10
    lost = sum("lost" in (note or "") for note in notes(app, result.id).elements())
    assert lost == 1000 - summary["fallback"]


@pytest.mark.every_store
def test_a_worker_that_died_when_its_lanes_had_begun(
    app: Celery, start_worker: StartWorker, simulator: Simulator, ledger: Ledger
) -> None:
    """As if it had not been written down that they had: what was sent is not entered again, the rest is sent."""
    simulator.behave(processing_seconds=0.2, messages_seconds=0.5, outcomes=(EXPIRED,))
    worker = start_worker(simulator.url)
    result = run_batch.delay(requests("job", 100), retries=0)
    wait_until(lambda: simulator.state().totals.paid_messages > 5)
    worker.stop(kill=True)
    ledger.set_record(result.id, 0, messages_out=False)
    # And its lanes are through, whatever that left.
    for lane in range(8):
        ledger.set_unit(Unit(result.id, 0, lane), position=10**15)
    start_worker(simulator.url)
    summary = result.get(timeout=180)
    assert summary["fallback"] >= 100 - 32
    assert len(list(BatchJob(result.id, app).results())) == 100
    assert simulator.journal().paid_twice() == []


def test_a_batch_that_was_lost_counts(app: Celery, start_worker: StartWorker, simulator: Simulator) -> None:
    simulator.behave(processing_seconds=0.2, list_lag_seconds=1e9)
    simulator.faults(Fault("retrieve", "status", status=404))
    start_worker(simulator.url, CLAUDE_BATCH_NOT_FOUND_GRACE="0.5")
    result = run_batch.delay(requests("job", 10), max_cost=0.002)
    summary = result.get(timeout=180)
    # At most 10 * (22 * $1 + 64 * $5) / 2 = $0.0017 for the batch: little is left for answers of $0.000062.
    assert 0 < summary["fallback"] < 8
    assert summary["fallback"] + summary["fallback_skipped"] == 10


def test_on_result_is_called_for_none_too_few(app: Celery, start_worker: StartWorker, simulator: Simulator) -> None:
    simulator.behave(processing_seconds=0.2, messages_seconds=0.1, outcomes=(Outcome("expired", prompt="1 of"),))
    worker = start_worker(simulator.url, options=("--concurrency=2", "--include=tests.integration.listening"))
    result = run_batch.delay(requests("job", 1500), retries=0, on_result=save.s("answers"))
    wait_until(lambda: simulator.state().totals.paid_messages > 20)
    worker.stop(kill=True)
    start_worker(simulator.url, options=("--concurrency=2", "--include=tests.integration.listening"))
    result.get(timeout=180)

    def saved() -> set[str]:
        entries = map(json.loads, app.backend.client.lrange(SAVED, 0, -1))
        return {custom_id for _, ids, _ in entries for custom_id in ids}

    wait_until(lambda: len(saved()) == 1500)
