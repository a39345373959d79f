"""Whatever is raised anywhere between Celery's call of a step and the end of that call leaves the job where it was."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
from celery import Celery
from celery.utils import uuid

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.records import Unit
from claude_batch_tasks.simulator import Outcome, Simulator
from claude_batch_tasks.steps import message_chain
from claude_batch_tasks.tasks import finish_job
from tests.chaos.ledgers import Ledger
from tests.integration.breaks import KINDS, PLANS, SEEN
from tests.integration.rig import account_for, requests
from tests.support import STORE, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.latest, pytest.mark.workers]

#: Requests of a job, and jobs at a time.
COUNT, AT_A_TIME = 4, 12


@pytest.fixture
def breaking(
    app: Celery, start_here: Callable[..., Worker], redis_server: RedisServer, simulator: Simulator
) -> Callable[..., Any]:
    """``breaking(name, plan)``: submit a job of which one request expires twice, and then goes through Messages."""
    simulator.behave(processing_seconds=0.1, outcomes=[Outcome("expired", prompt="prompt 0 of")])
    start_here(
        simulator.url,
        app="tests.integration.breaking",
        CLAUDE_BATCH_RECOVER_AFTER="6",
        CLAUDE_BATCH_MAX_STEP_FAILURES="4",
        CHAOS_STORE=STORE,
    )

    def submit(name: str, plan: str = "", **options: Any) -> Any:
        job_id = uuid()
        if plan:
            redis_server.client().hset(PLANS, job_id, plan)
        return run_batch.apply_async((requests(name, COUNT),), {"retries": 1, **options}, task_id=job_id)

    return submit


def points(breaking: Callable[..., Any], redis_server: RedisServer) -> list[str]:
    """Every boundary that such a job passes."""
    assert breaking("clean").get(timeout=180)["succeeded"] == COUNT
    found = wait_until(lambda: redis_server.client().smembers(SEEN))
    # This job is submitted by the test, and what is no step of it is not broken off here.
    return sorted(point.decode() for point in found)  # type: ignore[union-attr]


def check(app: Celery, simulator: Simulator, jobs: dict[str, tuple[str, Any]]) -> list[str]:
    """What is wrong: each job is to be complete, and no request sent or paid for more often than it was to be."""
    wrong, deadline = [], time.monotonic() + 180
    for name, (plan, result) in jobs.items():
        try:
            job = BatchJob(result.id, app)
            summary = wait_until(lambda job=job: job.status().summary, max(deadline - time.monotonic(), 0.5))
            types = account_for(app, result.id, name, COUNT)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is this job's
            wrong.append(f"{plan}: {type(exc).__name__}: {exc}")
            continue
        # A call that was about to be made when its step was broken off may have been made: it is not made again.
        unsent = {"succeeded": COUNT - 1, "expired": 1} if plan.startswith("send_messages") else None
        if summary["state"] != "completed" or types not in ({"succeeded": COUNT}, unsent):
            wrong.append(f"{plan}: {summary['state']}, {types}")
    plans = {name: plan for name, (plan, _) in jobs.items()}
    for prompt in simulator.journal().prompts:
        number, _, name = prompt.text.removeprefix("prompt ").partition(" of ")
        sent = prompt.sent_in_batches, prompt.sent_as_messages
        right = [(2, 1), (2, 0)] if number == "0" else [(1, 0)]
        if name in plans and (sent not in right or prompt.paid > 1):
            wrong.append(f"{plans[name]}: {prompt.text!r} was sent {sent} times, and paid for {prompt.paid} times")
    return wrong


def matrix(app: Celery, simulator: Simulator, submit: Callable[..., Any], plans: list[str]) -> None:
    """A job for each plan, some at a time."""
    wrong = []
    for first in range(0, len(plans), AT_A_TIME):
        some = islice(enumerate(plans), first, first + AT_A_TIME)
        wrong += check(app, simulator, {f"job{n}": (plan, submit(f"job{n}", plan)) for n, plan in some})
    assert not wrong, f"{len(wrong)} of {len(plans)}:\n" + "\n".join(wrong)


def test_a_boundary_of_every_step_with_every_kind_of_exception(
    app: Celery, simulator: Simulator, breaking: Callable[..., Any], redis_server: RedisServer
) -> None:
    """A sample; the whole of it takes long."""
    found, kinds = points(breaking, redis_server), list(KINDS)
    steps = {point.partition(":")[0] for point in found}
    assert steps == {"run_batch", "create_batch", "poll_batch", "fetch_results", "fall_back", "send_messages",
                     "finish_job"}  # fmt: skip
    assert len(found) > 150
    matrix(app, simulator, breaking, [f"{point}|{kinds[n % len(kinds)]}|1" for n, point in enumerate(found[::5])])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_of_exception_at_every_boundary(
    kind: str, app: Celery, simulator: Simulator, breaking: Callable[..., Any], redis_server: RedisServer
) -> None:
    """At every other one, by turns: each boundary meets half of the kinds."""
    found = points(breaking, redis_server)[list(KINDS).index(kind) % 2 :: 2]
    matrix(app, simulator, breaking, [f"{point}|{kind}|1" for point in found])


class TestABatchWhoseStepAlwaysBreaksOff:
    """Here the limit is four times in a row."""

    def test_fails_with_the_reason_and_is_resumed(
        self, app: Celery, simulator: Simulator, breaking: Callable[..., Any], redis_server: RedisServer
    ) -> None:
        boundaries = dict.fromkeys(
            ("create_batch", "poll_batch", "fetch_results", "fall_back"), "before starting a thread"
        )
        jobs = {
            step: breaking(step, f"{step}: {boundary}|OSError|100")
            for step, boundary in {**boundaries, "run_batch": "after store.jobs.persist_job"}.items()
        }
        for step, result in jobs.items():
            text = f"{step} was interrupted: OSError.*4 times in a row.*resume"
            with pytest.raises(errors.StepFailed, match=text):
                result.get(timeout=180)
            assert BatchJob(result.id, app).status().state == "failed"
        redis_server.client().delete(PLANS)
        again = {step: (step, BatchJob(result.id, app).resume()) for step, result in jobs.items()}
        assert check(app, simulator, again) == []

    def test_says_how_often_its_worker_was_killed(
        self, app: Celery, simulator: Simulator, breaking: Callable[..., Any]
    ) -> None:
        result = breaking("job", "fetch_results: before api.open_results|SIGKILL|100")
        with pytest.raises(errors.StepFailed, match="fetch_results was interrupted: its worker was killed"):
            result.get(timeout=180)
        assert BatchJob(result.id, app).status().batches[0].batch_id


class TestAWorkerThatCanStartFewThreads:
    def test_completes_what_it_began(self, app: Celery, simulator: Simulator, breaking: Callable[..., Any]) -> None:
        steps = ["create_batch", "poll_batch", "fetch_results", "fall_back", "send_messages", "finish_job"]
        plans = [f"{step}: before starting a thread|RuntimeError|{times}" for step in steps for times in (1, 3)]
        jobs = {f"job{number}": (plan, breaking(f"job{number}", plan)) for number, plan in enumerate(plans)}
        assert check(app, simulator, jobs) == []


class TestAJobThatEndedWithoutItsResults:
    """As releases before this one left them: a step that could not begin was skipped."""

    def skipped(self, app: Celery, ledger: Ledger, result: Any) -> BatchJob:
        """The job, as it was when its fetch was skipped."""
        ledger.set_record(result.id, 0, state="ended", published=None, attempt=0, rounds=[], smaller=None)
        return BatchJob(result.id, app)

    def test_is_resumed_and_completed(
        self, app: Celery, start_here: Callable[..., Worker], simulator: Simulator, ledger: Ledger
    ) -> None:
        simulator.behave(processing_seconds=0.1)
        start_here(simulator.url)
        result = run_batch.delay(requests("job", COUNT))
        assert result.get(timeout=180)["state"] == "completed"
        again = self.skipped(app, ledger, result).resume()
        assert again.get(timeout=180)["succeeded"] == COUNT
        assert account_for(app, result.id, "job", COUNT) == {"succeeded": COUNT}
        assert simulator.journal().totals.batches_created == 1

    def test_is_never_completed_by_this_release(
        self, app: Celery, start_here: Callable[..., Worker], simulator: Simulator, ledger: Ledger
    ) -> None:
        simulator.behave(processing_seconds=0.1)
        start_here(simulator.url)
        result = run_batch.delay(requests("job", COUNT))
        result.get(timeout=180)
        job = self.skipped(app, ledger, result)
        # Its last message, as if nobody had taken it yet.
        app.backend.forget(result.id)
        job._store.jobs.update_job(result.id, state="running", ended_at=None, summary=None)
        # Its worker tells of the result first, and only then moves the job on.
        wait_until(lambda: job._store.records.read_position(Unit(result.id)) == 1)
        ledger.set_unit(Unit(result.id), position=-1)
        app.signature(finish_job.name, (result.id,), immutable=True).set(task_id=result.id).apply_async()
        wait_until(lambda: job.status().state == "failed")
        assert re.search(r"4 of its 4 requests have no outcome.*resume", job.status().error or "")
        job.resume()
        assert wait_until(lambda: job.status().summary)["succeeded"] == COUNT

    def test_goes_through_the_steps_that_were_skipped(
        self, app: Celery, start_here: Callable[..., Worker], simulator: Simulator
    ) -> None:
        """A worker of the earlier release published the last step's message although the fetch had not run."""
        simulator.behave(processing_seconds=0.1)
        start_here(simulator.url)
        simulator.behave(processing_seconds=3600)
        result = run_batch.delay(requests("job", COUNT))
        job = BatchJob(result.id, app)
        wait_until(lambda: job.status().batches[0].batch_id)
        job._store.schedule.remove_unit(Unit(result.id, 0))
        record: Any = job._store.jobs.read_job(result.id)
        at = message_chain.position_of(0, 3)
        message_chain.publish_chain(record, result.id, message_chain.make_steps(app, result.id, record, 0, since=at))
        simulator.advance(7200)
        assert result.get(timeout=180)["succeeded"] == COUNT
        assert simulator.journal().totals.batches_created == 1
