"""The message of a task that runs again: Celery makes it from the request of the task."""

from __future__ import annotations

import pytest
from celery import Celery
from celery.app.task import Context

from claude_batch_tasks.steps import NAME


@pytest.fixture(params=["run_batch", "create_batch", "finish_job", "send_messages", "recover_jobs"])
def task(request: pytest.FixtureRequest, app: Celery) -> object:
    return app.tasks[NAME + request.param]


def test_celery_makes_it(task: object) -> None:
    request = Context(
        id="some-id",
        args=[],
        kwargs={"job_id": "some-job"},
        retries=2,
        delivery_info={"exchange": "", "routing_key": "nightly", "priority": 3},
    )
    made = task.signature_from_request(request, retries=3)  # type: ignore[attr-defined]
    assert made.kwargs == {"job_id": "some-job"}
    assert made.options["retries"] == 3
    assert made.options["queue"] == "nightly"
    assert made.options["priority"] == 3
