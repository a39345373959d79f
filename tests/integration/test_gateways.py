"""Jobs whose calls meet what stands between a worker and the API: the simulator's scenarios of the field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.api import batches, messages
from claude_batch_tasks.simulator import SCENARIOS, Outcome, Simulator
from tests.factories import make_params

pytestmark = pytest.mark.latest

REQUESTS = {str(number): make_params(f"prompt {number}") for number in range(2)}
#: Answers of this length come as a stream.
LONG = {name: {**params, "max_tokens": 30_000} for name, params in REQUESTS.items()}
FIRST_CALLS = [name for name in SCENARIOS if name.startswith(("cloudflare", "forbidden", "envoy"))]
NO_BATCHES = [name for name in SCENARIOS if name.startswith("no-batches")]
STREAMS = [name for name in SCENARIOS if name.startswith("stream")]


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    with Simulator() as running:
        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture(autouse=True)
def eager(store_url: str) -> Iterator[Celery]:
    app = Celery("tests", broker="amqp://nowhere", include=["claude_batch_tasks.tasks"], set_as_current=False)
    app.loader.import_default_modules()
    app.conf.update(
        task_always_eager=True, claude_batch_store_url=store_url, claude_batch_create_settle=1, claude_batch_timeout=2
    )
    app.set_current()
    yield app
    app.close()


def run(simulator: Simulator, name: str, requests: dict[str, Any], **options: Any) -> tuple[BatchJob, dict[str, Any]]:
    simulator.reset(name)
    simulator.behave(processing_seconds=0.3)
    result = run_batch.delay(requests, **options)
    return BatchJob(result.id), result.get()


@pytest.mark.parametrize("name", FIRST_CALLS)
def test_the_first_calls_are_struck_and_nothing_is_paid_twice(name: str, simulator: Simulator) -> None:
    _, summary = run(simulator, name, REQUESTS, fallback="off")
    journal = simulator.journal()
    assert (summary["state"], summary["succeeded"]) == ("completed", 2)
    assert (journal.totals.batches_created, journal.paid_twice(), journal.unpaid()) == (1, [], [])
    assert {call.endpoint for call in journal.calls if call.faults} >= {"create", "retrieve", "results"}


@pytest.mark.parametrize("name", NO_BATCHES)
def test_a_gateway_without_batches_leaves_the_messages_api(name: str, simulator: Simulator) -> None:
    _, summary = run(simulator, name, REQUESTS)
    journal = simulator.journal()
    assert (summary["state"], summary["succeeded"], summary["fallback"]) == ("completed", 2, 2)
    assert (journal.totals.batches_created, journal.totals.paid_messages, journal.paid_twice()) == (0, 2, [])


@pytest.mark.parametrize("name", STREAMS)
def test_odd_streams_give_whole_answers(name: str, simulator: Simulator) -> None:
    simulator.reset(name)
    simulator.behave(processing_seconds=0.3, outcomes=[Outcome("expired")])
    result = run_batch.delay(LONG, retries=0)
    assert result.get()["fallback"] == 2
    texts = {row.custom_id: row.text for row in BatchJob(result.id).results()}
    assert texts == {name: f"Echo: prompt {name}" for name in LONG}
    journal = simulator.journal()
    assert (journal.totals.paid_messages, journal.paid_twice()) == (2, [])
    assert all(call.faults for call in journal.calls_to("messages"))


def test_connections_that_stay_silent_are_given_up(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LONG_TIMEOUT", 2.0)
    _, summary = run(simulator, "half-open", REQUESTS, fallback="off")
    journal = simulator.journal()
    assert (summary["state"], summary["succeeded"]) == ("completed", 2)
    assert (journal.totals.batches_created, journal.paid_twice()) == (1, [])
    silent = [call.endpoint for call in journal.calls if call.faults]
    assert set(silent) == {"create", "retrieve", "results"}


def test_a_message_without_an_answer_may_be_paid_and_is_not_repeated(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "LONG_TIMEOUT", 2.0)
    simulator.reset("half-open")
    simulator.faults(replace=True)
    simulator.behave(processing_seconds=0.3, outcomes=[Outcome("expired")])
    simulator.faults(*(fault for fault in SCENARIOS["half-open"].faults if fault.endpoint == "messages"))
    result = run_batch.delay(REQUESTS, retries=0)
    assert (result.get()["state"], result.get()["succeeded"]) == ("completed", 0)
    journal = simulator.journal()
    assert [call.status for call in journal.calls_to("messages")] == [0, 0]
    assert journal.paid_twice() == []
