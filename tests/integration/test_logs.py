"""A job's lines and its failure, where logs are set up as projects do that, beside those of a plain task."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import errors, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Fault, Simulator
from tests.factories import make_params
from tests.support import wait_until

pytestmark = [pytest.mark.workers, pytest.mark.latest]

Start = Callable[..., Worker]
PROMPT, KEY = "prompt-never-to-be-seen", "sk-ant-test-key-never-to-be-seen"
REQUESTS = {"a": make_params(PROMPT, max_tokens=64)}


def failed(result: Any) -> Exception:
    """How it failed."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of whatever class
        result.get(timeout=180)
    return caught.value


def _bare(app: Celery, store_url: str) -> Celery:
    """An app that does not know this package, and sends requests in a message of its own."""
    bare = Celery("bare", broker=app.conf.broker_url, backend=app.conf.result_backend, set_as_current=False)
    bare.conf.claude_batch_store_url = store_url
    return bare


def read(path: Path) -> list[Any]:
    """What was written, a line of JSON each."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_every_line_is_in_a_log_whose_set_up_disables_loggers(
    app: Celery, simulator: Simulator, start_here: Start, tmp_path: Path
) -> None:
    worker = start_here(simulator.url, app="tests.integration.logged", LOGGED_HOW="plain")
    result = run_batch.delay(REQUESTS)
    assert result.get(timeout=180)["state"] == "completed"
    simulator.faults(Fault("create", "status", status=400))
    job = run_batch.delay(REQUESTS)
    assert isinstance(failed(job), errors.PermanentError)

    def said(job_id: str) -> str:
        return "\n".join(line for line in worker.log.read_text().splitlines() if f"job {job_id}" in line)

    for event in ("started", "created, 1 request", "ended, 1 succeeded", "fetched", "finished: completed"):
        assert event in said(result.id)
    assert "WARNING claude_batch_tasks job" in said(job.id)
    assert "finished: failed: batch 1 of 1: create: " in said(job.id)
    assert "finished: completed; 1 succeeded; $0.0" in said(result.id)
    assert said(result.id).count("finished") == said(job.id).count("finished") == 1
    assert "ERROR" not in said(job.id)  # Celery's own line is one, where that is not disabled
    assert PROMPT not in worker.log.read_text()


def test_a_failed_job_is_one_error_line_of_celerys_as_a_failed_task_is(
    app: Celery, simulator: Simulator, start_here: Start, tmp_path: Path
) -> None:
    failures = tmp_path / "failures"
    worker = start_here(simulator.url, app="tests.integration.logged", LOGGED_FAILURES=str(failures))
    simulator.faults(Fault("create", "status", status=402))
    plain, job = app.send_task("plain"), run_batch.delay(REQUESTS)
    failed(plain), failed(job)
    wait_until(lambda: len(read(failures)) == 2)
    assert sorted(read(failures)) == [
        ["claude_batch_tasks.run_batch", job.id, "PermanentError"],
        ["plain", plain.id, "ValueError"],
    ]

    def errors() -> list[str]:
        return [line for line in worker.log.read_text().splitlines() if ": ERROR/" in line]

    wait_until(lambda: len(errors()) >= 2)  # Celery writes the line after it has sent the signal
    lines = errors()
    for name, task_id in (("plain", plain.id), ("claude_batch_tasks.run_batch", job.id)):
        [line] = [line for line in lines if task_id in line]
        assert f"Task {name}[{task_id}] raised unexpected: " in line
    assert len(lines) == 2


@pytest.mark.parametrize("how", ["", "plain"])
def test_a_failed_job_is_one_event_as_a_failed_task_is(
    app: Celery, store_url: str, simulator: Simulator, start_here: Start, tmp_path: Path, how: str
) -> None:
    pytest.importorskip("sentry_sdk")
    events = tmp_path / "events"
    start_here(simulator.url, app="tests.integration.logged", LOGGED_HOW=how, LOGGED_EVENTS=str(events))
    simulator.faults(Fault("create", "status", status=402))
    ids = {}
    for name, result in (
        ("ValueError", app.send_task("plain")),
        ("PermanentError", run_batch.delay(REQUESTS)),
        ("CreateNotFound", None),
        (
            "InvalidRequests",
            _bare(app, store_url).send_task(run_batch.name, ([{"custom_id": "a", "params": {"system": PROMPT}}],)),
        ),
        (
            "InvalidRequests",
            _bare(app, store_url).send_task(run_batch.name, (), {"requests": {"a": {"system": PROMPT}}}),
        ),
    ):
        if result is None:
            simulator.reset("healthy")
            simulator.faults(Fault("create", "status", status=404))
            result = run_batch.delay(REQUESTS, fallback="off", create_not_found_limit=1)
        assert type(failed(result)).__name__ == name
        ids[result.id] = name
    seen = wait_until(lambda: len(found := read(events)) >= len(ids) and found)
    told = {event["tags"]["celery_task_id"]: event["exception"]["values"][-1]["type"] for event in seen}
    assert told == ids
    assert {event["transaction"] for event in seen} == {"plain", "claude_batch_tasks.run_batch"}
    assert len(seen) == len(ids)
    for event in seen[1:]:
        assert PROMPT not in json.dumps(event)
        assert KEY not in json.dumps(event)


def test_what_broke_a_step_off_is_no_event_and_shows_no_prompt(
    app: Celery, simulator: Simulator, start_here: Start, tmp_path: Path
) -> None:
    pytest.importorskip("sentry_sdk")
    events = tmp_path / "events"
    worker = start_here(
        simulator.url,
        app="tests.integration.logged",
        LOGGED_EVENTS=str(events),
        LOGGED_BREAKS="1",
        CLAUDE_BATCH_MAX_STEP_FAILURES="3",
    )
    result = run_batch.delay(REQUESTS)
    assert isinstance(failed(result), errors.StepFailed)
    [event] = wait_until(lambda: read(events))
    assert event["exception"]["values"][-1]["type"] == "StepFailed"
    assert PROMPT not in json.dumps(event)
    log = worker.log.read_text()
    assert log.count("was interrupted: ValueError\nTraceback") == 3
    assert "in _defect" in log
    assert PROMPT not in log
