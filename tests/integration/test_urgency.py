"""Answers that are wanted by a moment: a batch that takes too long is canceled, and the rest is asked for at once."""

from __future__ import annotations

import asyncio
import json
import threading
from array import array
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.utils import uuid
from fastapi import FastAPI

from claude_batch_tasks import BatchJob, ask, errors, run_batch
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.records import Unit
from claude_batch_tasks.rules.polling import MIN_SAMPLES
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.simulator import Fault, Outcome, Simulator
from claude_batch_tasks.steps import message_chain
from claude_batch_tasks.store import lost_records, open_store
from claude_batch_tasks.tasks import recover_jobs
from tests.factories import make_params
from tests.integration.rig import forget_account, open_world, requests
from tests.support import FAST, LendStore
from tests.web.servers import ask as fetch, serve_asgi

pytestmark = [pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(300)]

#: Seconds that a batch takes in a slow hour: no test waits for so long.
SLOW = 600.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, lend_store: LendStore) -> Iterator[tuple[Celery, Simulator]]:
    """A worker with two processes that all of these tests share: none does it any harm."""
    with open_world(tmp_path_factory.mktemp("urgency") / "worker.log", lend_store) as found:
        yield found


@pytest.fixture
def app(world: tuple[Celery, Simulator]) -> Celery:
    app, _ = world
    app.set_current()
    forget_account(app)
    return app


@pytest.fixture
def simulator(world: tuple[Celery, Simulator]) -> Simulator:
    _, simulator = world
    simulator.reset("healthy")
    return simulator


def start(app: Celery, count: int, *, seconds: float | None = None, direct: bool = False, **options: Any) -> BatchJob:
    """Start a job of so many requests whose answers are wanted in so many seconds, as a pool becomes one."""
    store, job_id = open_store(Settings.of(app)), uuid()
    answer_by = None if seconds is None else store.now() + seconds
    asked = requests("job", count)
    job = submission.submit_job(app, job_id, asked, options, pool="p", answer_by=answer_by, direct=direct)
    store.schedule.add_units([Unit(job_id)], store.now())
    message_chain.make_first_message(app, job, job_id).apply_async()
    return BatchJob(job_id, app)


def sources(job: BatchJob) -> Counter[tuple[str, str]]:
    return Counter((found.type, found.source) for found in job.results())


def calls(simulator: Simulator, endpoint: str, status: int | None = None) -> int:
    found = simulator.journal().calls
    return sum(call.endpoint == endpoint and status in (None, call.status) for call in found)


def test_what_a_slow_batch_has_not_processed_goes_through_the_messages_api(app: Celery, simulator: Simulator) -> None:
    simulator.behave(processing_seconds=30.0, cancel_seconds=0.2)
    job = start(app, 100, seconds=4)
    summary = job.get(timeout=120)
    found = sources(job)
    assert found.keys() == {("succeeded", "batch"), ("succeeded", "messages")}
    assert sum(found.values()) == 100
    assert (summary["state"], summary["fallback"]) == ("completed", found["succeeded", "messages"])
    assert calls(simulator, "cancel") == 1
    assert simulator.journal().paid_twice() == []
    assert [event.event for event in job.history()].count("cancel") == 1


@pytest.mark.redis_store("keys that it loses one by one")
def test_what_the_store_loses_of_it_is_fetched_again_and_judged_as_it_was(app: Celery, simulator: Simulator) -> None:
    simulator.behave(processing_seconds=30.0, cancel_seconds=0.2)
    job = start(app, 100, seconds=4)
    job.get(timeout=120)
    found = sources(job)
    client, store = app.backend.client, job._store
    [record] = store.records.read_batches(job.id)

    def eligible() -> list[int]:
        return sorted(array("I", store.results.read_eligible(job.id, 0, record.layers[0][0])))

    before = eligible()
    assert len(before) == found["succeeded", "messages"]
    for name in lost_records.all_names_fetched(record):
        client.delete(f"{store.records.name_batch(job.id, 0)}:{name}")
    with pytest.raises(errors.ResultsMissing):
        sources(job)
    recover_jobs.delay(job_id=job.id).get(timeout=60)
    assert eligible() == before
    assert sources(job) == found


def test_a_cancel_that_fails_is_tried_again(app: Celery, simulator: Simulator) -> None:
    simulator.behave(processing_seconds=SLOW, cancel_seconds=0.2)
    simulator.faults(
        Fault("cancel", "status", status=500, calls=(1,)), Fault("cancel", "status", status=404, calls=(2,))
    )
    job = start(app, 5, seconds=2)
    assert job.get(timeout=120)["fallback"] == 5
    assert calls(simulator, "cancel", 200) == 1


def test_a_job_that_may_not_use_it_is_answered_late(app: Celery, simulator: Simulator) -> None:
    simulator.behave(processing_seconds=3)
    job = start(app, 5, seconds=1, fallback="off")
    assert job.get(timeout=120)["succeeded"] == 5
    assert (calls(simulator, "cancel"), calls(simulator, "messages")) == (0, 0)


def test_a_batch_that_ends_in_time_is_not_canceled(app: Celery, simulator: Simulator) -> None:
    simulator.behave(processing_seconds=0.2)
    job = start(app, 5, seconds=60)
    assert job.get(timeout=120)["succeeded"] == 5
    assert (calls(simulator, "cancel"), calls(simulator, "messages")) == (0, 0)


def test_what_the_limit_of_the_fallback_leaves_out_ends_as_canceled_and_says_why(
    app: Celery, simulator: Simulator
) -> None:
    simulator.behave(processing_seconds=SLOW, cancel_seconds=0.2)
    job = start(app, 5, seconds=2, max_fallback_requests=3)
    summary = job.get(timeout=120)
    assert (summary["fallback"], summary["canceled"], summary["fallback_skipped"]) == (3, 2, 2)
    left = [found for found in job.results() if found.type == "canceled"]
    assert all("max_fallback_requests" in (found.note or "") for found in left)


def test_a_batch_that_cannot_be_created_in_time_is_not_created(app: Celery, simulator: Simulator) -> None:
    simulator.faults(Fault("create", "status", status=429, error="rate_limit_error", after=0.0))
    job = start(app, 5, seconds=4, retry_min=0.2, retry_max=SLOW)
    assert job.get(timeout=120)["fallback"] == 5
    assert simulator.state().totals.batches_created == 0
    assert calls(simulator, "create") > 0


def test_a_direct_job_has_no_batch(app: Celery, simulator: Simulator) -> None:
    job = start(app, 5, direct=True, fallback="off")
    summary = job.get(timeout=120)
    assert (summary["succeeded"], summary["fallback"], summary["batch_ids"]) == (5, 5, [])
    assert sources(job) == {("succeeded", "messages"): 5}
    assert calls(simulator, "create") == 0


def test_a_direct_job_stays_within_its_budget(app: Celery, simulator: Simulator) -> None:
    job = start(app, 5, direct=True, max_fallback_cost=1e-9)
    summary = job.get(timeout=120)
    assert (summary["errored"], summary["fallback"], summary["cost"] or 0) == (5, 0, 0)
    found = next(job.results())
    assert found.error_type == "not_sent"
    assert "max_fallback_cost" in (found.note or "")


class TestAPool:
    def test_that_no_batch_answers_in_time_is_asked_for_at_once(self, app: Celery, simulator: Simulator) -> None:
        simulator.behave(processing_seconds=SLOW)
        results = [
            ask.delay(make_params(f"urgent {n}", max_tokens=64), deadline=600, ask_max_wait=0.2) for n in range(5)
        ]
        assert [result.get(timeout=60).source for result in results] == ["messages"] * 5
        assert calls(simulator, "create") == 0

    def test_is_a_batch_if_those_like_it_ended_in_time(self, app: Celery, simulator: Simulator) -> None:
        simulator.behave(processing_seconds=0.2)
        for _ in range(MIN_SAMPLES):
            run_batch.delay(requests("job", 1)).get(timeout=60)
        found = ask.delay(make_params("not so urgent", max_tokens=64), deadline=600, ask_max_wait=0.2)
        assert found.get(timeout=60).source == "batch"
        answer_by = open_store(Settings.of(app)).jobs.read_job(found.job.id)
        assert answer_by is not None
        assert answer_by.answer_by is not None

    def test_that_the_budget_does_not_cover_is_late_and_says_so(self, app: Celery, simulator: Simulator) -> None:
        simulator.behave(processing_seconds=0.2)
        asked = make_params("urgent", max_tokens=64)
        found = ask.delay(asked, deadline=1, max_fallback_cost=1e-9, ask_max_wait=0.2)
        assert found.get(timeout=60).source == "batch"
        assert ["max_fallback_cost" in event.text for event in found.job.history() if event.event == "limited"] == [
            True
        ]

    def test_may_cost_no_more_than_its_asks_have_reserved(self, app: Celery, simulator: Simulator) -> None:
        asked = [make_params(f"dear {n}", max_tokens=64) for n in range(2)]
        results = [ask.delay(each, ask_max_cost=1.0, ask_max_wait=1.0, pool="dear") for each in asked]
        store = open_store(Settings.of(app))
        reserved = store.asks.read_cost("dear", 86_400.0)
        job = store.jobs.read_job(results[1].job.id if results[1].get(timeout=60) else "")
        assert job is not None
        assert job.options["max_cost"] == pytest.approx(reserved / 1e9)
        assert job.summary is None or 0 < job.summary["cost"] < job.options["max_cost"]

    def test_in_the_mode_messages_is_asked_for_at_once(self, app: Celery, simulator: Simulator) -> None:
        found = ask.delay(make_params("now", max_tokens=64), ask_mode="messages")
        assert found.get(timeout=60).source == "messages"
        assert calls(simulator, "create") == 0


def test_requests_of_a_fastapi_app_await_their_answers(app: Celery, simulator: Simulator) -> None:
    simulator.behave(
        processing_seconds=0.5, outcomes=(Outcome("errored", error="invalid_request_error", prompt="bad"),)
    )
    api = FastAPI()
    task: Any = app.tasks[ask.name]  # the server's thread has no current app

    @api.get("/ask")
    async def ask_one(text: str) -> dict[str, Any]:
        result = await task.adelay(make_params(text, max_tokens=64), ask_max_wait=1.0)
        try:
            return {"text": (await result.aget(timeout=60)).text}
        except errors.RequestFailed as exc:
            return {"text": None, "error_type": exc.error_type}

    with serve_asgi(api) as url, ThreadPoolExecutor(3) as browsers:
        found = browsers.map(lambda text: fetch(f"{url}/ask?text={text}"), ("one", "two", "bad"))
        one, two, bad = [json.loads(answer.text) for answer in found]
        assert len([each for each in threading.enumerate() if each.name == "claude-batch-asks"]) == 1
    assert [one["text"], two["text"]] == ["Echo: one", "Echo: two"]
    assert bad["error_type"] == "invalid_request_error"
    assert simulator.state().totals.batches_created == 1


def test_an_answer_that_does_not_come_is_waited_for_as_long_as_said(app: Celery, simulator: Simulator) -> None:
    simulator.behave(processing_seconds=SLOW)

    async def wait() -> None:
        result = await ask.adelay(make_params("slow", max_tokens=64), ask_max_wait=0.0)
        with pytest.raises(CeleryTimeoutError):
            await result.aget(timeout=0.1)

    asyncio.run(wait())


@pytest.mark.slow
def test_no_deadline_is_missed_in_a_slow_hour(app: Celery, simulator: Simulator) -> None:
    """Batches have ended in a second so far; now each takes a minute."""
    simulator.behave(processing_seconds=1.0)
    earlier = [run_batch.delay(requests(f"job {n}", 20)) for n in range(MIN_SAMPLES)]
    assert [each.get(timeout=60)["succeeded"] for each in earlier] == [20] * MIN_SAMPLES
    simulator.behave(processing_seconds=60.0, cancel_seconds=0.5)
    store, deadlines = open_store(Settings.of(app)), (12, 20, 35, 50)
    asked = {
        ask.delay(make_params(f"{seconds} s, {n}", max_tokens=64), deadline=seconds, ask_max_wait=1.0): by
        for seconds in deadlines
        for by in [store.now() + seconds]
        for n in range(20)
    }
    found = {result: result.get(timeout=120) for result in asked}
    late = {result: result.date_done.timestamp() - by for result, by in asked.items()}
    assert max(late.values()) <= float(FAST["CLAUDE_BATCH_POLL_MAX"])
    assert {answer.source for answer in found.values()} == {"batch", "messages"}
    assert simulator.journal().paid_twice() == []
    # What it cost: between the price of batches and twice that, for prompts of about the same size.
    at_once = sum(answer.source == "messages" for answer in found.values())
    cost = sum(BatchJob(job_id, app).get(timeout=60)["cost"] or 0.0 for job_id in {each.job.id for each in asked})
    print(f"${cost:.6f}, {1 + at_once / len(found):.2f} times the price of batches; latest {max(late.values()):.1f} s")
    assert 0 < at_once < len(found)
