"""The named scenarios: plain SDK code fails where the report says, code that retries gets through."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import anthropic
import pytest

from claude_batch_tasks.simulator import SCENARIOS, Simulator

from .conftest import requests

pytestmark = pytest.mark.latest

T = TypeVar("T")


def patiently(call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Repeat a call until it no longer fails."""
    while True:
        try:
            return call(*args, **kwargs)
        except anthropic.APIError:
            time.sleep(0.1)


def test_issue_1432_fails_plain_code_at_each_step_and_lets_patient_code_through(
    simulator: Simulator, client: anthropic.Anthropic
) -> None:
    simulator.reset("issue-1432")
    # Four times as fast, to save time: looks every 0.4 simulated seconds.
    simulator.behave(clock_speed=4.0)
    batches = client.messages.batches
    start = simulator.state().now

    with pytest.raises(anthropic.NotFoundError):
        batches.create(requests=requests(5))
    batch = patiently(batches.create, requests=requests(5))
    with pytest.raises(anthropic.NotFoundError):
        batches.retrieve(batch.id)
    seen: list[int] = []
    while True:
        try:
            status = batches.retrieve(batch.id).processing_status
            seen.append(200)
            if status == "ended":
                break
        except anthropic.NotFoundError:
            seen.append(404)
        time.sleep(0.1)
    # 404, in progress, 404 again, in progress, ended: what the report shows.
    assert [status for status, last in zip(seen, [None, *seen], strict=False) if status != last] == [
        404,
        200,
        404,
        200,
    ]
    with pytest.raises(anthropic.NotFoundError):
        list(batches.results(batch.id))
    assert simulator.journal().calls_to("results") == []
    with pytest.raises(anthropic.NotFoundError):
        list(batches.results(batch.id))
    assert simulator.journal().calls_to("results", 404)
    assert len(list(patiently(batches.results, batch.id))) == 5

    assert simulator.state().now - start < 25
    journal = simulator.journal()
    assert (journal.totals.batches_created, journal.paid_twice(), journal.unpaid()) == (1, [], [])


def test_issue_1432_meets_a_client_that_looks_seldom(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.reset("issue-1432")
    batch = patiently(client.messages.batches.create, requests=requests(1))
    answers: list[str] = []
    for seconds in (8, 7, 30, 1):
        simulator.advance(seconds)
        try:
            answers.append(client.messages.batches.retrieve(batch.id).processing_status)
        except anthropic.NotFoundError:
            answers.append("404")
    assert answers == ["404", "404", "ended", "404"]


@pytest.mark.parametrize("name", ["create-404", "create-404-always"])
def test_create_404(simulator: Simulator, client: anthropic.Anthropic, name: str) -> None:
    simulator.reset(name)
    for _ in range(2):
        with pytest.raises(anthropic.NotFoundError):
            client.messages.batches.create(requests=requests(1))
    if name == "create-404":
        client.messages.batches.create(requests=requests(1))
    else:
        with pytest.raises(anthropic.NotFoundError):
            client.messages.batches.create(requests=requests(1))


def test_retrieve_404_alone(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.reset("retrieve-404")
    batch = client.messages.batches.create(requests=requests(1))
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(batch.id)
    simulator.advance(20)
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(batch.id)
    assert client.messages.batches.retrieve(batch.id).processing_status == "ended"
    assert len(list(client.messages.batches.results(batch.id))) == 1


def test_results_404_alone(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.reset("results-404")
    batch = client.messages.batches.create(requests=requests(1))
    simulator.advance(10)
    assert client.messages.batches.retrieve(batch.id).processing_status == "ended"
    # First the hidden retrieve, then the download itself, however late.
    for calls in (0, 1):
        with pytest.raises(anthropic.NotFoundError):
            client.messages.batches.results(batch.id)
        assert len(simulator.journal().calls_to("results")) == calls
    assert len(list(client.messages.batches.results(batch.id))) == 1


def test_lost(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.reset("lost")
    batch = client.messages.batches.create(requests=requests(1))
    simulator.advance(3600)
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(batch.id)
    assert client.messages.batches.list().data == []


def test_partial(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.reset("partial")
    batch = client.messages.batches.create(requests=requests(20))
    simulator.end()
    counts = client.messages.batches.retrieve(batch.id).request_counts
    assert (counts.succeeded, counts.expired, counts.errored) == (13, 3, 4)


def test_storm_strikes_and_is_survivable(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.reset("storm")
    kinds = set()
    for n in range(60):
        try:
            client.messages.batches.create(requests=requests(n + 1))
        except Exception as error:  # noqa: BLE001
            kinds.add(type(error).__name__)
    assert {"NotFoundError", "APIConnectionError", "InternalServerError"} <= kinds
    stored = simulator.state().totals.batches_created
    answered = len(simulator.journal().calls_to("create", 200))
    assert stored > answered > 0


def test_every_scenario_says_what_it_is_about() -> None:
    assert {"healthy", "issue-1432", "create-404", "retrieve-404", "results-404", "storm", "partial"} <= set(SCENARIOS)
    assert all(scenario.about for scenario in SCENARIOS.values())
