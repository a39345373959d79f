"""Repairs under faults: whatever happens to their batch, what was paid is there, and nothing is sent otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, RequestResult, errors, run_batch
from claude_batch_tasks.simulator import Answer, Fault, Simulator
from tests.factories import make_params
from tests.integration.rig import forget_account, open_world
from tests.support import LendStore, wait_until

pytestmark = [pytest.mark.workers, pytest.mark.latest]

OTHER = "claude-sonnet-4-5"

#: Every tenth of twenty requests is refused at first.
REFUSED = Answer(prompt="0$", attempts=1, refusal="cyber", text="I")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, lend_store: LendStore) -> Iterator[tuple[Celery, Simulator]]:
    """A worker with two processes that all of these tests share."""
    with open_world(tmp_path_factory.mktemp("repairs") / "worker.log", lend_store) as found:
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
    simulator.behave(processing_seconds=0.2, answers=(REFUSED,))
    return simulator


def make_requests(count: int = 20, **params: Any) -> dict[str, dict[str, Any]]:
    return {f"{i}": {**make_params(f"prompt {i}", max_tokens=64), **params} for i in range(count)}


def end_job(app: Celery, simulator: Simulator, result: Any) -> tuple[dict[str, Any], dict[str, RequestResult]]:
    """Return summary and results of a job when it has ended; its counts and money agree with the simulator's."""
    summary = result.get(timeout=180)
    rows = {row.custom_id: row for row in BatchJob(result.id, app).results()}
    check_counts(summary, rows)
    assert simulator.journal().paid_twice() == []
    return summary, rows


def check_counts(summary: Any, rows: dict[str, RequestResult]) -> None:
    assert len(rows) == summary["requests"]
    types = Counter(row.type for row in rows.values())
    names = ("succeeded", "errored", "expired", "canceled")
    assert {name: types[name] for name in names} == {name: summary[name] for name in names}
    assert Counter(row.incomplete for row in rows.values() if row.incomplete) == summary["incomplete"]


def repairs_of(row: RequestResult) -> list[tuple[str, str]]:
    return [(each.kind, each.stop_reason or each.error_type or each.type) for each in row.attempts]


def messages_sent(simulator: Simulator) -> list[str]:
    return [prompt.text for prompt in simulator.journal().prompts if prompt.sent_as_messages]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, "invalid_request_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
    ],
)
def test_a_repair_that_cannot_be_created_leaves_the_answer(
    app: Celery, simulator: Simulator, status: int, error: str
) -> None:
    simulator.behave(answers=(Answer(prompt="t 5$", type="expired", via="batch"), REFUSED))
    simulator.faults(Fault("create", "status", status=status, error=error, calls=tuple(range(2, 100))))
    result = run_batch.delay(make_requests(), refusal_model=OTHER, create_not_found_limit=2)
    summary, rows = end_job(app, simulator, result)
    assert (summary["state"], summary["incomplete"], summary["repairs"]) == ("completed", {"refusal": 2}, {})
    assert repairs_of(rows["10"]) == [("first", "refusal")]
    assert rows["10"].text == "I"
    assert str(status) in (rows["10"].note or "")
    assert BatchJob(result.id, app).result("10").note == rows["10"].note
    assert rows["1"].note is None
    # A job whose account is refused stops, and keeps what it has.
    assert (summary["fallback"], rows["5"].type) == ((0, "expired") if status == 403 else (1, "succeeded"))
    assert messages_sent(simulator) == ["prompt 5"] * summary["fallback"]
    assert repairs_of(rows["5"])[0] == ("first", "expired")


def test_a_repair_whose_create_is_not_answered_is_found(app: Celery, simulator: Simulator) -> None:
    simulator.faults(Fault("create", "drop", commit=True, calls=(2,)))
    summary, rows = end_job(app, simulator, run_batch.delay(make_requests(), refusal_model=OTHER))
    assert (summary["incomplete"], summary["repairs"], summary["succeeded"]) == ({}, {"refusal_model": 2}, 20)
    assert repairs_of(rows["0"]) == [("first", "refusal"), ("refusal_model", "end_turn")]
    assert simulator.state().totals.batches_created == 2


@pytest.mark.parametrize("outcome", [{"type": "expired"}, {"error": "overloaded_error"}, {"error": "api_error"}])
def test_a_failed_repair_is_repeated_and_never_a_message(
    app: Celery, simulator: Simulator, outcome: dict[str, Any]
) -> None:
    ended = outcome.get("error", "expired")
    simulator.behave(
        answers=(
            Answer(prompt="0$", attempts=(2, 3), **outcome),
            Answer(prompt="t 10$", attempts=(4,), **outcome),
            Answer(prompt="t 5$", via="batch", **outcome),  # fails each time, and may become a message
            REFUSED,
        )
    )
    result = run_batch.delay(make_requests(), refusal_model=OTHER, retries=2)
    summary, rows = end_job(app, simulator, result)
    assert (summary["succeeded"], summary["incomplete"], summary["fallback"]) == (20, {"refusal": 1}, 1)
    assert summary["repairs"] == {"refusal_model": 2}
    failed = [("refusal_model", ended), ("resubmission", ended)]
    assert repairs_of(rows["0"]) == [("first", "refusal"), *failed, ("resubmission", "end_turn")]
    assert rows["0"].attempts[-1].model == "claude-sonnet-4-5-20250929"
    assert repairs_of(rows["10"]) == [("first", "refusal"), *failed, ("resubmission", ended)]
    assert (rows["10"].text, rows["10"].incomplete, rows["10"].error) == ("I", "refusal", None)
    assert repairs_of(rows["5"])[-1] == ("messages", "end_turn")
    assert messages_sent(simulator) == ["prompt 5"]


def test_an_incomplete_message_is_counted_and_not_repaired(app: Celery, simulator: Simulator) -> None:
    simulator.behave(
        answers=(
            Answer(prompt="0$", via="batch", type="expired"),
            Answer(prompt="0$", via="messages", stop_reason="max_tokens", text="Half"),
        )
    )
    result = run_batch.delay(make_requests(), max_tokens_limit=1000, retries=1)
    summary, rows = end_job(app, simulator, result)
    assert (summary["incomplete"], summary["repairs"], summary["fallback"]) == ({"max_tokens": 2}, {}, 2)
    assert repairs_of(rows["0"])[-1] == ("messages", "max_tokens")
    assert simulator.state().totals.batches_created == 2


def test_repairs_that_are_canceled_leave_the_answers(app: Celery, simulator: Simulator) -> None:
    result = run_batch.delay(make_requests(), refusal_model=OTHER)
    wait_until(lambda: simulator.journal().calls_to("results", 200))
    simulator.behave(processing_seconds=600, cancel_seconds=0.2)
    wait_until(lambda: simulator.state().totals.batches_created == 2)
    BatchJob(result.id, app).cancel()
    summary, rows = end_job(app, simulator, result)
    assert (summary["state"], summary["succeeded"], summary["incomplete"]) == ("canceled", 20, {"refusal": 2})
    assert repairs_of(rows["0"]) == [("first", "refusal"), ("refusal_model", "canceled")]
    assert rows["0"].text == "I"


def test_repairs_are_not_created_after_a_cancel(app: Celery, simulator: Simulator) -> None:
    simulator.faults(Fault("create", "status", status=404, calls=tuple(range(2, 100))))
    result = run_batch.delay(make_requests(), refusal_model=OTHER, create_not_found_limit=1000)
    wait_until(lambda: len(simulator.journal().calls_to("create", 404)) >= 1)
    # A create that had begun by then must fail as well.
    BatchJob(result.id, app).cancel()
    summary, rows = end_job(app, simulator, result)
    assert (summary["state"], summary["succeeded"], summary["incomplete"]) == ("canceled", 20, {"refusal": 2})
    assert repairs_of(rows["0"]) == [("first", "refusal")]
    assert simulator.state().totals.batches_created == 1


def test_repairs_that_are_lost_leave_the_answers(app: Celery, simulator: Simulator) -> None:
    simulator.behave(answers=(Answer(prompt="t 5$", type="expired", via="batch"), REFUSED))
    result = run_batch.delay(make_requests(), refusal_model=OTHER, not_found_grace=1, listings=2)
    wait_until(lambda: simulator.journal().calls_to("results", 200))
    simulator.behave(processing_seconds=600)
    wait_until(lambda: simulator.state().totals.batches_created == 2)
    simulator.forget(max(simulator.state().batches, key=lambda batch: batch.number).id)
    summary, rows = end_job(app, simulator, result)
    assert (summary["succeeded"], summary["incomplete"], summary["fallback"]) == (20, {"refusal": 2}, 1)
    assert repairs_of(rows["0"])[0] == ("first", "refusal")
    assert "its next batch was lost" in (rows["0"].note or "")
    assert messages_sent(simulator) == ["prompt 5"]


def test_a_deadline_leaves_no_time_for_repairs(app: Celery, simulator: Simulator) -> None:
    simulator.behave(answers=(Answer(prompt="t 5$", type="expired", via="batch"), REFUSED))
    result = run_batch.delay(make_requests(), refusal_model=OTHER, deadline=600)
    summary, rows = end_job(app, simulator, result)
    assert (summary["incomplete"], summary["repairs"], summary["fallback"]) == ({"refusal": 2}, {}, 1)
    assert "not end before the deadline" in (rows["0"].note or "")
    assert simulator.state().totals.batches_created == 1
    assert messages_sent(simulator) == ["prompt 5"]


def test_repairs_are_within_the_cost_of_the_job(app: Celery, simulator: Simulator) -> None:
    """There is money for the batch, and none for another that costs five times as much."""
    simulator.behave(answers=(Answer(attempts=1, refusal=True, text="I"),))
    summary, rows = end_job(
        app, simulator, run_batch.delay(make_requests(), refusal_model="claude-opus-4-5", max_cost=0.0003)
    )
    assert (summary["succeeded"], summary["incomplete"], summary["repairs"]) == (20, {"refusal": 20}, {})
    assert summary["cost"] <= 0.0003
    assert rows["0"].text == "I"
    assert "max_cost" in (rows["0"].note or "")
    assert simulator.state().totals.batches_created == 1
    assert messages_sent(simulator) == []


@pytest.mark.redis_store("keys that it loses one by one")
@pytest.mark.parametrize("kind", ["rows", "pieces", "eligible", "again"])
def test_rows_that_the_store_lost_are_downloaded_again(app: Celery, simulator: Simulator, kind: str) -> None:
    """Between the fetch and the repair, and again between the repair's create and its fetch."""
    simulator.behave(answers=(Answer(prompt="t 5$", attempts=1, type="expired"), REFUSED))
    simulator.faults(Fault("create", "status", status=404, calls=tuple(range(2, 100))))
    result = run_batch.delay(make_requests(), refusal_model=OTHER, create_not_found_limit=1000)
    wait_until(lambda: len(simulator.journal().calls_to("create", 404)) >= 1)
    assert app.backend.client.delete(f"claude_batch:{{{result.id}}}:batch:0:{kind}:1") == 1
    simulator.faults(replace=True)
    wait_until(lambda: simulator.state().totals.batches_created == 2)
    summary, rows = end_job(app, simulator, result)
    assert (summary["succeeded"], summary["incomplete"], summary["repairs"]) == (20, {}, {"refusal_model": 2})
    assert repairs_of(rows["0"]) == [("first", "refusal"), ("refusal_model", "end_turn")]
    assert repairs_of(rows["5"]) == [("first", "expired"), ("resubmission", "end_turn")]


@pytest.mark.redis_store("keys that it loses one by one")
def test_rows_that_are_lost_while_the_repair_runs_are_downloaded_again(app: Celery, simulator: Simulator) -> None:
    simulator.behave(answers=(Answer(prompt="0$", pauses=1, text="one two three four"),))
    result = run_batch.delay(make_requests())
    wait_until(lambda: simulator.journal().calls_to("results", 200))
    simulator.behave(processing_seconds=600)
    wait_until(lambda: simulator.state().totals.batches_created == 2)
    keys = app.backend.client.keys(f"claude_batch:{{{result.id}}}:batch:0:*:1")
    assert app.backend.client.delete(*keys) >= 4
    simulator.end()
    summary, rows = end_job(app, simulator, result)
    assert (summary["succeeded"], summary["incomplete"], summary["repairs"]) == (20, {}, {"continue": 2})
    assert rows["0"].text == "one two three four"


def test_repairs_that_take_too_long_can_be_waited_for_again(app: Celery, simulator: Simulator) -> None:
    result = run_batch.delay(make_requests(), refusal_model=OTHER, max_wait=4000)
    job = BatchJob(result.id, app)
    wait_until(lambda: simulator.journal().calls_to("results", 200))
    simulator.behave(processing_seconds=6)
    wait_until(lambda: simulator.state().totals.batches_created == 2)
    job._store.jobs.update_job(result.id, options={"max_wait": 1, "refusal_model": OTHER})
    with pytest.raises(errors.WaitExceeded):
        result.get(timeout=180)
    assert (job.status().succeeded, job.status().incomplete) == (20, {"refusal": 2})
    summary, rows = end_job(app, simulator, job.resume(max_wait=60))
    assert (summary["incomplete"], summary["repairs"]) == ({}, {"refusal_model": 2})
    assert repairs_of(rows["0"]) == [("first", "refusal"), ("refusal_model", "end_turn")]
    assert simulator.state().totals.batches_created == 2


def test_repairs_are_made_of_a_job_that_is_resumed_with_them(app: Celery, simulator: Simulator) -> None:
    """It failed for another reason, before anything was known of its answers."""
    simulator.behave(processing_seconds=6)
    result = run_batch.delay(make_requests(), max_wait=1)
    with pytest.raises(errors.WaitExceeded):
        result.get(timeout=180)
    summary, rows = end_job(app, simulator, BatchJob(result.id, app).resume(max_wait=7200, refusal_model=OTHER))
    assert (summary["incomplete"], summary["repairs"]) == ({}, {"refusal_model": 2})
    assert rows["0"].complete
