"""Pools of asks become jobs, and an ask that the API does not take in any batch fails alone."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from celery import Celery
from celery.utils import uuid

from claude_batch_tasks import AskResult, BatchJob, errors
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.pool_records import Ask, PoolLimits, PoolRecord
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.simulator import Refusal, Simulator
from claude_batch_tasks.store import Store, open_store
from tests.factories import make_params
from tests.support import wait_until

pytestmark = [pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(150)]

StartWorker = Callable[..., Worker]


@pytest.fixture
def store(app: Celery) -> Store:
    return open_store(Settings.of(app))


def put_asks(store: Store, texts: Iterable[str], *, at_most: int = 1000, max_wait: float = 60.0) -> dict[str, str]:
    """Put asks into pools of so many; return their texts by their ids."""
    found, limits = {}, PoolLimits(at_most, 32_000_000, max_wait)
    for text in texts:
        ask = Ask(id=uuid(), params=json.dumps(make_params(text)).encode())
        store.pools.add_ask("key", PoolRecord(name="tests"), uuid(), ask, 200, limits)
        found[ask.id] = text
    return found


def wait_for_ends(store: Store, asks: dict[str, str]) -> dict[str, str]:
    """Return how each ask has ended, when all have: by their texts."""

    def ends() -> dict[str, str] | None:
        places = store.asks.read_places(list(asks))
        states = {text: place.state for text, place in zip(asks.values(), places, strict=True) if place is not None}
        return states if len(states) == len(asks) and "waiting" not in states.values() else None

    found: dict[str, str] = wait_until(ends)
    return found


def count_creates(simulator: Simulator) -> int:
    """Return how many creates were sent."""
    return sum(call.endpoint == "create" for call in simulator.journal(prompts=False).calls)


def check_paid(simulator: Simulator, asks: dict[str, str], failed: set[str]) -> None:
    """Check that each ask but those that have failed was in one batch, and is paid once."""
    prompts = {prompt.text: prompt for prompt in simulator.journal().prompts}
    assert prompts.keys() == set(asks.values()) - failed
    assert {(prompt.sent_in_batches, prompt.paid) for prompt in prompts.values()} == {(1, 1)}


@pytest.mark.every_store
def test_pools_become_jobs_when_they_are_full_and_when_they_are_old(
    app: Celery, store: Store, simulator: Simulator, start_worker: StartWorker
) -> None:
    asks = put_asks(store, [f"question {number}" for number in range(25)], at_most=10, max_wait=1.0)
    start_worker(simulator.url)
    assert Counter(wait_for_ends(store, asks).values()) == {"succeeded": 25}
    places = store.asks.read_places(list(asks))
    assert sorted(Counter(place.job_id for place in places if place).values()) == [5, 10, 10]
    for job_id in {place.job_id for place in places if place is not None}:
        job = BatchJob(job_id, app)
        wait_until(lambda job=job: job.status().state == "completed")
        assert job.status().label == "pool:tests"
    check_paid(simulator, asks, set())
    assert count_creates(simulator) == 3


@pytest.mark.parametrize(
    ("count", "named", "more"),
    [
        pytest.param(1000, False, 12, id="not named", marks=pytest.mark.slow),
        pytest.param(100, True, 2, id="named"),
    ],
)
def test_a_poisonous_ask_fails_alone(
    count: int, named: bool, more: int, app: Celery, store: Store, simulator: Simulator, start_worker: StartWorker
) -> None:
    simulator.behave(refusals=(Refusal("^question 61$", message="It is poisonous", named=named),))
    asks = put_asks(store, [f"question {number}" for number in range(count)], at_most=count)
    start_worker(simulator.url)
    ends = wait_for_ends(store, asks)
    assert [text for text, state in ends.items() if state == "failed"] == ["question 61"]
    check_paid(simulator, asks, {"question 61"})
    assert count_creates(simulator) - 1 <= more
    [bad] = [ask_id for ask_id, text in asks.items() if text == "question 61"]
    with pytest.raises(errors.RequestFailed, match="It is poisonous"):
        AskResult(bad, app=app).get(timeout=60)
    assert list(store.pools.list_pools()) == []


@pytest.mark.slow
def test_a_search_goes_on_where_workers_were_killed(
    app: Celery, store: Store, simulator: Simulator, start_worker: StartWorker
) -> None:
    simulator.behave(refusals=(Refusal("^question (7|30)$"),))
    asks = put_asks(store, [f"question {number}" for number in range(40)], at_most=40)
    for creates in (2, 5):
        worker = start_worker(simulator.url)
        wait_until(lambda least=creates: count_creates(simulator) >= least)
        os.killpg(worker.pid, signal.SIGKILL)
    start_worker(simulator.url)
    ends = wait_for_ends(store, asks)
    assert {text for text, state in ends.items() if state == "failed"} == {"question 7", "question 30"}
    check_paid(simulator, asks, {"question 7", "question 30"})
    assert list(store.pools.list_pools()) == []
