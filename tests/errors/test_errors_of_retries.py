"""Each error that passes by itself is provoked; nothing is to be done, and nothing is paid twice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from claude_batch_tasks import api, errors, run_batch
from claude_batch_tasks.lifecycle import polling
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.simulator import Fault
from claude_batch_tasks.steps import batch_task, step_task
from claude_batch_tasks.steps.rate_limit import RateLimits
from claude_batch_tasks.store import open_store
from tests.errors.conftest import REQUESTS, Eager

#: The faults after which a job's step is retried, by the error that is the reason.
FAULTS = {
    "TransientError": Fault("retrieve", "status", status=503, times=1),
    "NotFoundError": Fault("retrieve", "status", status=404, times=1),
    "CreateUnresolved": Fault("create", "drop", commit=True, times=1),
    "ResultsIncomplete": Fault("results", "cut", how="clean", at=0.5, times=1),
}

#: Those that are raised at the place that the test calls.
ELSEWHERE = {"AmbiguousError", "RateLimited", "ListCallRunning", "Waiting"}


@pytest.mark.parametrize("name", FAULTS)
def test_a_job_goes_on_by_itself(name: str, eager: Eager, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons: list[str] = []
    retry = step_task.StepTask.retry_later

    def note_reason(self: step_task.StepTask, why: Any) -> None:
        reasons.append(type(why).__name__)
        retry(self, why)

    monkeypatch.setattr(step_task.StepTask, "retry_later", note_reason)
    eager.simulator.faults(FAULTS[name])
    eager.ends(run_batch.delay(REQUESTS))
    assert name in reasons
    assert eager.simulator.journal().paid_twice() == []


def test_a_create_without_a_clear_answer_is_ambiguous(eager: Eager) -> None:
    eager.simulator.faults(Fault("create", "status", status=500, commit=True, times=1))
    client = api.get_client("default", Settings.of(eager.app).client_factories)
    body = b'{"requests":[{"custom_id":"a","params":{"model":"claude-haiku-4-5","max_tokens":9,"messages":[]}}]}'
    with pytest.raises(errors.AmbiguousError):
        api.create_batch(api.Caller(client), [body], len(body))


def test_calls_are_paused_and_go_on_after_the_pause(eager: Eager) -> None:
    store = open_store(Settings.of(eager.app))
    limits = RateLimits(store, "account")
    limits.observe_answer(0.3)
    with pytest.raises(errors.RateLimited) as caught:
        limits.check_pause()
    assert 0 < (caught.value.retry_after or 0) <= 0.3
    store.in_flight.pause_calls("account", store.now() - 1)
    RateLimits(store, "another").check_pause()


def test_one_task_lists_the_batches_for_all(eager: Eager) -> None:
    store = open_store(Settings.of(eager.app))
    assert store.in_flight.lock_list_call("account", "another", 20)
    step: Any = SimpleNamespace(
        store=store,
        account="account",
        owner="me",
        settings=Settings.of(eager.app),
        rate_limits=RateLimits(store, "account"),
    )
    with pytest.raises(errors.ListCallRunning):
        polling._make_list_call(step)


def test_a_retry_says_what_it_waits_for() -> None:
    waiting = batch_task.describe_wait("in progress: 812 of 1,000", 40.0, "next poll")
    assert isinstance(waiting, errors.Waiting)
    assert str(waiting) == "in progress: 812 of 1,000; next poll in 40 s"
