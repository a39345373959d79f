"""Jobs in eager mode, as tests of applications run them: their caller stands still, so that they wait for no more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from celery.signals import task_failure, task_prerun

from claude_batch_tasks import BatchJob, errors, rules, run_batch
from claude_batch_tasks.embedded import RedisServer, free_port
from claude_batch_tasks.simulator import Fault, Outcome, Simulator
from tests.factories import make_params

REQUESTS = {str(number): make_params(f"prompt {number}") for number in range(2)}


@pytest.fixture
def point_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """``point_at(url)``: where the API is from now on."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-simulated")
    return lambda url: monkeypatch.setenv("ANTHROPIC_BASE_URL", url)


@pytest.fixture
def simulator(point_at: Callable[[str], None]) -> Iterator[Simulator]:
    with Simulator("healthy") as running:
        running.behave(processing_seconds=0.3)
        point_at(running.url)
        yield running


@pytest.fixture
def eager(store_url: str) -> Iterator[Celery]:
    """An app whose settings are those of its production, where nobody stands still."""
    app = Celery("tests", broker="amqp://nowhere", include=["claude_batch_tasks.tasks"], set_as_current=False)
    app.loader.import_default_modules()
    app.conf.update(
        task_always_eager=True,
        claude_batch_store_url=store_url,
        claude_batch_poll_min=60,
        claude_batch_retry_min=60,
    )
    app.set_current()
    yield app
    app.close()


def seconds(job: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.monotonic()
    result = job()
    return time.monotonic() - begun, result


@pytest.mark.parametrize("first", [True, False])
def test_each_test_has_a_simulator_of_its_own(
    first: bool, eager: Celery, simulator: Simulator, point_at: Callable[[str], None]
) -> None:
    assert run_batch.delay(REQUESTS).get()["succeeded"] == 2
    with Simulator("healthy") as other:  # and within one test
        point_at(other.url)
        assert run_batch.delay(REQUESTS).get()["succeeded"] == 2
        assert other.state().totals.batches_created == simulator.state().totals.batches_created == 1


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [Fault("create", "status", status=404, calls=(1, 2)), Fault("retrieve", "status", status=404, calls=(1, 2))],
        [Fault("results", "status", status=404, calls=(1,)), Fault("results", "cut", how="reset", at=0.5, calls=(2,))],
        [Fault("create", "drop", commit=True, calls=(1,))],
        [Fault("retrieve", "status", status=503, calls=(1, 2, 3))],
    ],
)
def test_countdowns_are_no_longer_than_what_it_waits_for(
    faults: list[Fault], eager: Celery, simulator: Simulator
) -> None:
    simulator.faults(*faults)
    took, result = seconds(lambda: run_batch.delay(REQUESTS))
    assert result.get()["succeeded"] == 2
    assert took < 30  # on a busy machine; with countdowns as they are elsewhere it is minutes
    assert simulator.journal().paid_twice() == []


def test_smaller_batches_and_the_messages_api_follow_at_once(eager: Celery, simulator: Simulator) -> None:
    simulator.behave(outcomes=[Outcome("expired", count=1, attempts=9)])
    took, result = seconds(lambda: run_batch.delay(REQUESTS))
    assert (result.get()["succeeded"], result.get()["fallback"]) == (2, 1)
    assert took < 40


def test_what_the_api_asks_for_is_waited_for(eager: Celery, simulator: Simulator) -> None:
    simulator.faults(Fault("retrieve", "status", status=429, headers={"retry-after": "3"}, calls=(1,)))
    took, result = seconds(lambda: run_batch.delay(REQUESTS))
    assert result.get()["succeeded"] == 2
    assert took >= 3


def test_nobody_waits_for_an_api_that_does_not_answer(
    eager: Celery, point_at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "EAGER_MAX_FAILING", 1.0)
    point_at(f"http://127.0.0.1:{free_port()}")
    took, result = seconds(lambda: run_batch.delay(REQUESTS))
    with pytest.raises(errors.WaitExceeded, match=r"only failures for 1\.0 s"):
        result.get()
    assert took < 30
    assert BatchJob(result.id).status().state == "failed"


def test_a_batch_that_does_not_end_is_not_waited_for_without_a_limit(
    eager: Celery, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "EAGER_MAX_WAIT", 1.0)
    simulator.behave(processing_seconds=3600)
    result = run_batch.delay(REQUESTS)
    with pytest.raises(errors.WaitExceeded):
        result.get()


def test_a_store_that_is_gone_is_said_at_once(eager: Celery, simulator: Simulator) -> None:
    with RedisServer() as server:
        eager.conf.claude_batch_store_url = server.url
        simulator.faults(Fault("retrieve", "delay", seconds=1.0))
        simulator.behave(processing_seconds=3600)
        threading.Timer(2, server.stop).start()
        took, result = seconds(lambda: run_batch.delay(REQUESTS))
    with pytest.raises(errors.StoreUnavailable):
        result.get()
    assert took < 40


@pytest.mark.parametrize("batches", [1, 3])
def test_a_job_that_fails_is_one_failure_of_the_task_that_was_called(
    batches: int, eager: Celery, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[Any] = []
    runs: list[Any] = []
    told: list[str] = []

    def failed(sender: Any = None, task_id: str | None = None, **_: Any) -> None:
        failures.append((sender.name, task_id))

    def ran(sender: Any = None, task_id: str | None = None, **_: Any) -> None:
        runs.append((sender.name, task_id))

    @eager.task(name="tests.told", shared=False)
    def told_of(job_id: str) -> None:
        told.append(job_id)

    simulator.faults(Fault("create", "status", status=403))
    task_failure.connect(failed)
    task_prerun.connect(ran)
    try:
        options = {"max_requests_per_batch": 2 // batches or 1}
        requests = {str(number): REQUESTS["0"] for number in range(batches)}
        result = run_batch.apply_async((requests,), options, link_error=told_of.s())
    finally:
        task_failure.disconnect(failed)
        task_prerun.disconnect(ran)
    name = "claude_batch_tasks.run_batch"
    assert failures == [(name, result.id)]
    assert [task for task, task_id in runs if task_id == result.id] == [name]
    assert told == [result.id]
    assert [record.name for record in caplog.records if record.levelname == "ERROR"] == ["celery.app.trace"]


def test_what_failed_is_retried_here(eager: Celery, simulator: Simulator) -> None:
    simulator.behave(outcomes=(Outcome("errored", error="invalid_request_error", prompt="1", attempts=1),))
    job = BatchJob(run_batch.delay(REQUESTS).id, eager)
    again = job.retry_failed()
    assert again.get()["succeeded"] == 1
    assert {each.custom_id: each.type for each in job.results(with_retries=True)} == dict.fromkeys("01", "succeeded")
    with pytest.raises(errors.NothingToRetry):
        job.retry_failed()
    assert simulator.journal().paid_twice() == []
