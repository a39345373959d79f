"""A job of which some requests failed: which, why, and a retry of only those, on real workers that are killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Outcome, Simulator
from tests.integration.rig import requests
from tests.support import wait_until

pytestmark = [pytest.mark.latest, pytest.mark.workers]

StartWorker = Callable[..., Worker]

#: What fails for good, what fails once, and what fails twice.
OUTCOMES = (
    Outcome("expired", prompt="1 of", attempts=1),
    Outcome("errored", error="overloaded_error", prompt="2 of", attempts=1),
    Outcome("errored", error="api_error", prompt="3 of", attempts=2),
    Outcome("errored", error="invalid_request_error", message="max_tokens: too many", prompt="4 of"),
    Outcome("errored", error="permission_error", prompt="5 of"),
)
COUNT = 30
FAILED = {"expired": 3, "overloaded_error": 3, "api_error": 3, "invalid_request_error": 3, "permission_error": 3}


def names(*ends: int) -> set[str]:
    """The custom_ids of the requests whose number ends with one of these digits."""
    return {f"job {number}" for number in range(COUNT) if number % 10 in ends}


def counts(job: BatchJob) -> dict[str, int]:
    return {each.type: each.count for each in job.status().failures}


def test_a_partial_job_is_retried_once_for_each_request(
    app: Celery, start_worker: StartWorker, simulator: Simulator
) -> None:
    simulator.behave(processing_seconds=1.0, outcomes=OUTCOMES)
    worker = start_worker(simulator.url)
    first = run_batch.delay(requests("job", COUNT), retries=0, fallback="off", max_requests_per_batch=16)
    summary = first.get(timeout=120)
    job = BatchJob(first.id, app)
    assert summary["failures"] == counts(job) == FAILED
    status = job.status()
    assert sum(FAILED.values()) == status.requests - status.succeeded
    examples = {each.type: (each.example, each.message) for each in status.failures}
    assert examples["expired"][0] in names(1)
    assert examples["invalid_request_error"][0] in names(4)
    assert examples["invalid_request_error"][1] == "max_tokens: too many"
    assert {each.custom_id for each in job.failures(["expired", "api_error"])} == names(1, 3)

    again = job.retry_failed(["expired", "overloaded_error", "api_error"], max_requests_per_batch=5)
    wait_until(lambda: simulator.state().totals.batches_created >= 3)
    worker.stop(kill=True)
    # What it has may be running at Anthropic: it is not sent again, and the rest may be.
    with pytest.raises(errors.NothingToRetry, match=again.id):
        job.retry_failed(["expired", "api_error"])
    start_worker(simulator.url)
    assert again.get(timeout=120)["failures"] == {"api_error": 3}
    retried = BatchJob(again.id, app)
    assert {request["custom_id"] for request in retried.requests()} == names(1, 2, 3)
    assert (retried.status().parent, job.status().retries) == (job.id, (again.id,))
    assert Counter(each.type for each in job.results(with_retries=True)) == {"succeeded": 21, "errored": 9}

    last = job.retry_failed(["api_error"])
    assert last.get(timeout=120)["failures"] == {}
    combined = {each.custom_id: each.type for each in job.results(with_retries=True, order="request")}
    assert list(combined) == [f"job {number}" for number in range(COUNT)]
    assert {name for name, outcome in combined.items() if outcome != "succeeded"} == names(4, 5)
    assert job.result("job 3", with_retries=True).text.startswith("Echo: prompt 3 of")

    journal = simulator.journal()
    assert journal.paid_twice() == []
    sent = {prompt.text: prompt.sent_in_batches for prompt in journal.prompts}
    assert Counter(sent.values()) == {1: 21, 2: 6, 3: 3}
    assert {text for text, times in sent.items() if times == 3} == {f"prompt {n} of job" for n in (3, 13, 23)}


def test_an_outcome_of_the_messages_api_replaces_that_of_the_batch(
    app: Celery, start_worker: StartWorker, simulator: Simulator
) -> None:
    simulator.behave(
        processing_seconds=0.2,
        outcomes=(
            Outcome("errored", error="invalid_request_error", prompt="1 of", via="messages"),
            Outcome("errored", error="overloaded_error", prompt="2 of", via="messages"),
            Outcome("errored", error="permission_error", prompt="4 of"),
            Outcome("expired"),
        ),
    )
    start_worker(simulator.url)
    result = run_batch.delay(requests("job", COUNT), retries=0, fallback="messages", messages_limit=2)
    summary = result.get(timeout=120)
    job = BatchJob(result.id, app)
    # What the Messages API refused as busy has the outcome of the batch.
    expected = {"invalid_request_error": 3, "expired": 3, "permission_error": 3}
    assert summary["failures"] == counts(job) == expected
    found = Counter(each.error_type or each.type for each in job.failures())
    assert found == expected
    assert sum(expected.values()) == summary["requests"] - summary["succeeded"]
    # All were answered with a refusal, so nothing of them was billed, and all may be sent again.
    simulator.behave(processing_seconds=0.2, outcomes=())
    again: Any = job.retry_failed()
    assert again.get(timeout=120)["succeeded"] == 9
    assert {each.type for each in job.results(with_retries=True)} == {"succeeded"}
    assert simulator.journal().paid_twice() == []
