"""Looks at many batches: listings that fail, lag or say odd things, rate limits, cancels."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, rules, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.simulator import Fault, Outcome, Simulator
from tests.integration.flights import finish, in_flight, looks, submit
from tests.integration.rig import requests
from tests.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(600)]

StartWorker = Callable[..., Worker]


def test_listings_that_do_not_work_are_not_needed(app: Celery, start_worker: StartWorker) -> None:
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=6)
        simulator.faults(Fault("list", "status", status=500))
        worker = start_worker(simulator.url)
        jobs = submit(25, poll_min=1.5, poll_max=1.5)
        finish(simulator, jobs)
        assert 1 <= len(simulator.journal().calls_to("list")) <= 3
        assert "the list call failed, so each batch is polled with a call of its own" in worker.log.read_text()


@pytest.mark.parametrize("how", [{"status": 404}, {"status": 503, "headers": {"retry-after": "2"}}])
def test_a_listing_that_fails_now_and_then_is_tried_again(
    how: dict[str, Any], app: Celery, start_worker: StartWorker
) -> None:
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=3600)
        start_worker(simulator.url)
        jobs = submit(25, poll_min=1.5, poll_max=1.5)
        wait_until(lambda: in_flight(app, jobs))
        wait_until(lambda: simulator.journal().calls_to("list", 200))
        before, lists = len(simulator.journal().calls), len(simulator.journal().calls_to("list"))
        simulator.faults(Fault("list", "status", calls=(1, 2, 4), **how))
        wait_until(lambda: len(simulator.journal().calls_to("list")) > lists + 5)
        assert {call.endpoint for call in looks(simulator, before)} == {"list"}, "and no look at each"
        assert {BatchJob(job.id, app).status().polls_404 for job in jobs} == {0}, "nor is it a batch that was not found"
        simulator.end()
        finish(simulator, jobs)


def test_a_rate_limit_that_leaves_no_room_for_listings(app: Celery, start_worker: StartWorker) -> None:
    """Each listing is refused, as where others use up what the account has; a look at one batch passes."""
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=3600)
        simulator.faults(Fault("list", "status", status=429, headers={"retry-after": "0"}))
        start_worker(simulator.url)
        jobs = submit(12, poll_min=1.5, poll_max=1.5)
        wait_until(lambda: in_flight(app, jobs))
        wait_until(lambda: simulator.journal().calls_to("list"))
        simulator.end()
        finish(simulator, jobs)
        lists = simulator.journal().calls_to("list")
        assert len(lists) == rules.LIST_CALL_TRIES
        assert all(later.at - sooner.at > 0.9 for sooner, later in itertools.pairwise(lists)), "and in no loop"


def test_a_listing_ends_where_no_call_is_left_for_its_next_page(app: Celery, start_worker: StartWorker) -> None:
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=3600)
        worker = start_worker(simulator.url)
        jobs = submit(12, poll_min=1.5, poll_max=1.5)
        wait_until(lambda: in_flight(app, jobs))
        [newest, *_] = sorted(simulator.state().batches, key=lambda batch: batch.created_at, reverse=True)
        page = {
            "id": newest.id,
            "processing_status": "in_progress",
            "request_counts": {"processing": 1},
            "created_at": datetime.fromtimestamp(newest.created_at, timezone.utc).isoformat(),
        }
        reset = datetime.fromtimestamp(time.time() + 20, timezone.utc).isoformat()
        headers = {
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": reset,
        }
        body = json.dumps({"data": [page], "has_more": True, "last_id": newest.id})
        simulator.faults(Fault("list", "status", status=200, body=body, headers=headers, times=1))
        wait_until(lambda: "Anthropic asked for fewer calls before its last page" in worker.log.read_text())
        before = len(simulator.journal().calls)
        time.sleep(3)
        assert looks(simulator, before) == []
        simulator.end()
        finish(simulator, jobs)


def test_an_account_that_goes_by_another_name(app: Celery, start_worker: StartWorker) -> None:
    """Its key was rotated, or as here its address changed: nobody lists for the old one any more."""
    with Simulator("healthy", process=True) as simulator:
        simulator.behave(processing_seconds=3600)
        worker = start_worker(simulator.url)
        jobs = submit(60, poll_min=1.5, poll_max=1.5)
        wait_until(lambda: in_flight(app, jobs))
        worker.stop(kill=True)
        start_worker(simulator.url.replace("127.0.0.1", "localhost"))
        simulator.end()
        begun = time.monotonic()
        finish(simulator, jobs)
        assert time.monotonic() - begun < 45, "and not one after the other, one each second"


def test_what_listings_do_not_show_yet_is_looked_at_by_itself(app: Celery, start_worker: StartWorker) -> None:
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=5, list_lag_seconds=3600)
        start_worker(simulator.url)
        jobs = submit(15, poll_min=1.5, poll_max=1.5)
        finish(simulator, jobs)
        assert simulator.journal().calls_to("list")
        assert {call.batch_id for call in simulator.journal().calls_to("retrieve", 200)} == {
            batch.id for batch in simulator.state().batches
        }


def test_a_status_that_nobody_knows_is_not_the_end(app: Celery, start_worker: StartWorker) -> None:
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=3600)
        start_worker(simulator.url)
        jobs = submit(12, poll_min=2, poll_max=2)
        wait_until(lambda: in_flight(app, jobs))
        page = [
            {
                "id": batch.id,
                "processing_status": "finalizing",
                "request_counts": {"processing": 1},
                "created_at": datetime.fromtimestamp(batch.created_at, timezone.utc).isoformat(),
            }
            for batch in reversed(simulator.state().batches)
        ]
        body = json.dumps({"data": page, "has_more": False})
        simulator.faults(Fault("list", "status", status=200, body=body, times=1))
        wait_until(lambda: simulator.journal().calls_to("list"))
        before = len(simulator.journal().calls)
        time.sleep(5)
        assert len(looks(simulator, before)) <= 4
        assert all(BatchJob(job.id, app).status().polls <= 6 for job in jobs)
        simulator.end()
        finish(simulator, jobs)


@pytest.mark.parametrize("endpoint", ["retrieve", "cancel"])
def test_a_rate_limit_that_one_meets_is_heeded_by_all(endpoint: Any, app: Celery, start_worker: StartWorker) -> None:
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=3600)
        start_worker(simulator.url)
        jobs = submit(6, poll_min=1.5, poll_max=1.5)
        wait_until(lambda: in_flight(app, jobs))
        simulator.faults(Fault(endpoint, "status", status=429, headers={"retry-after": "5"}, per="server", times=1))
        if endpoint == "cancel":
            BatchJob(jobs[0].id, app).cancel()
        [refused] = wait_until(lambda: simulator.journal().calls_to(endpoint, 429))
        simulator.faults(replace=True)
        run_batch.delay(requests("another", 1))
        wait_until(lambda: [call for call in simulator.journal().calls if call.at > refused.at + 3])
        after = [(round(call.at - refused.at, 2), call.endpoint) for call in simulator.journal().calls]
        # Others were on their way when the answer came, or were asked for before it was written down.
        assert not [call for call in after if 1 < call[0] < 4.9], after
        simulator.end()
        for job in jobs:
            assert job.get(timeout=180)["requests"] == 1


def test_a_listing_that_takes_long_is_the_only_one(app: Celery, start_worker: StartWorker) -> None:
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=3600)
        simulator.faults(Fault("list", "delay", seconds=5))
        start_worker(simulator.url, CLAUDE_BATCH_LEASE="2")
        jobs = submit(12, poll_min=1.5, poll_max=1.5)
        wait_until(lambda: in_flight(app, jobs))
        lists = wait_until(lambda: (found := simulator.journal().calls_to("list"))[3:] and found)
        assert all(later.at - sooner.at > 4 for sooner, later in itertools.pairwise(lists)), lists
        simulator.faults(replace=True)
        simulator.end()
        finish(simulator, jobs)


def test_a_cancel_does_not_wait_for_what_the_api_asked_to_wait(app: Celery, start_worker: StartWorker) -> None:
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=0.1, outcomes=[Outcome("expired", count=1)])
        later = {"status": 429, "headers": {"retry-after": "86400"}}
        simulator.faults(Fault("messages", "status", **later))
        start_worker(simulator.url)
        falling_back = run_batch.delay(requests("falls back", 2), retries=0)
        wait_until(lambda: simulator.journal().calls_to("messages"))
        simulator.faults(Fault("create", "status", **later))
        held_back = run_batch.delay(requests("held back", 2))
        wait_until(lambda: simulator.journal().calls_to("create", 429))
        for result, state in ((held_back, {"canceled": 2}), (falling_back, {"succeeded": 1, "expired": 1})):
            job = BatchJob(result.id, app)
            next_look = wait_until(lambda job=job: job.status().next_poll_at)
            assert next_look.timestamp() < time.time() + 610, "ten minutes, whatever the API asks for"
            job.cancel()
            assert state.items() <= result.get(timeout=180).items()


@pytest.mark.every_store
def test_a_cancel_does_not_wait_for_the_next_look(
    app: Celery, start_worker: StartWorker, redis_server: RedisServer
) -> None:
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=3600, cancel_seconds=0.2)
        start_worker(simulator.url)
        jobs = submit(2, poll_min=2, poll_max=2)
        wait_until(lambda: in_flight(app, jobs))
        BatchJob(jobs[0].id, app).cancel()
        assert jobs[0].get(timeout=180)["state"] == "canceled"
        # Nor on its message.
        BatchJob(jobs[1].id, app).cancel()
        redis_server.client().delete("celery")
        assert jobs[1].get(timeout=180)["state"] == "canceled"
