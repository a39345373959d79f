"""Each error with which a job ends is provoked, and what its entry advises works and pays nothing twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anthropic
import pytest

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.lifecycle import polling
from claude_batch_tasks.simulator import Fault
from tests.errors.conftest import REQUESTS, Eager


def without_batches() -> Any:
    """Return a client of a platform that has no Message Batches."""
    return anthropic.AnthropicBedrock(aws_region="us-east-1", aws_access_key="a", aws_secret_key="b")


def failed(kind: type[errors.BatchTasksError], **options: Any) -> BatchJob:
    """Return a job that has failed with that error."""
    result = run_batch.delay(REQUESTS, **options)
    with pytest.raises(kind) as caught:
        result.get(timeout=60)
    assert type(caught.value) is kind
    text = str(caught.value)
    assert text.startswith(f"job {result.id}"), text
    assert "resume(" in text or "paid" in text, "what to do"
    return BatchJob(result.id)


def ends(eager: Eager, job: BatchJob, **options: Any) -> None:
    job.resume(**options)
    assert job.get(timeout=60)["succeeded"] == len(REQUESTS)


def refused(eager: Eager, monkeypatch: pytest.MonkeyPatch) -> None:
    eager.simulator.faults(Fault("create", "status", status=402, error="billing_error", times=1))
    ends(eager, failed(errors.PermanentError))


def no_batches(eager: Eager, monkeypatch: pytest.MonkeyPatch) -> None:
    with eager.setting("claude_batch_client_factories", {"default": f"{__name__}.without_batches"}):
        job = failed(errors.BatchesUnsupported)
    ends(eager, job)


def create_not_found(eager: Eager, monkeypatch: pytest.MonkeyPatch) -> None:
    eager.simulator.faults(Fault("create", "status", status=404, times=2))
    ends(eager, failed(errors.CreateNotFound, create_not_found_limit=2, fallback="off"))


def unconfirmed(eager: Eager, monkeypatch: pytest.MonkeyPatch) -> None:
    eager.simulator.faults(Fault("create", "drop", times=1))
    job = failed(errors.CreateUnconfirmed, on_unresolved_create="fail")
    ends(eager, job, on_unresolved_create="resubmit")


def another_account(eager: Eager, monkeypatch: pytest.MonkeyPatch) -> None:
    eager.simulator.behave(processing_seconds=2)
    job = failed(errors.WaitExceeded, max_wait=0.5)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-another")
    job.resume(max_wait=60)
    with pytest.raises(errors.AccountChanged) as caught:
        job.get(timeout=60)
    assert "Give the workers the credential" in str(caught.value)
    monkeypatch.setenv("ANTHROPIC_API_KEY", eager.simulator.env["ANTHROPIC_API_KEY"])
    ends(eager, job, max_wait=60)


def lost(eager: Eager, monkeypatch: pytest.MonkeyPatch) -> None:
    eager.simulator.behave(list_lag_seconds=1e9)
    eager.simulator.faults(Fault("retrieve", "status", status=404, before=8.0))
    job = failed(errors.BatchLost, not_found_grace=0, fallback="off", retries=0)
    eager.simulator.behave(list_lag_seconds=0)
    eager.simulator.faults(replace=True)
    ends(eager, job)


def archived(eager: Eager, monkeypatch: pytest.MonkeyPatch) -> None:
    eager.simulator.behave(retention_seconds=0.01)
    job = failed(errors.BatchArchived, fallback="off", retries=0)
    assert "submitting them again pays for them a second time" in str(job.status().error)


def too_long(eager: Eager, monkeypatch: pytest.MonkeyPatch) -> None:
    eager.simulator.behave(processing_seconds=2)
    ends(eager, failed(errors.WaitExceeded, max_wait=0.5), max_wait=60)


def short_file(eager: Eager, monkeypatch: pytest.MonkeyPatch) -> None:
    eager.simulator.faults(Fault("results", "cut", how="clean", at=0.5, times=2))
    ends(eager, failed(errors.ResultsMissing, results_limit=2))


def interrupted(eager: Eager, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(polling, "poll_or_list", lambda *_: 1 / 0)
        job = failed(errors.StepFailed, max_step_failures=2)
    ends(eager, job)


WALK: dict[str, Callable[[Eager, pytest.MonkeyPatch], None]] = {
    "PermanentError": refused,
    "BatchesUnsupported": no_batches,
    "CreateNotFound": create_not_found,
    "CreateUnconfirmed": unconfirmed,
    "AccountChanged": another_account,
    "BatchLost": lost,
    "BatchArchived": archived,
    "WaitExceeded": too_long,
    "ResultsMissing": short_file,
    "StepFailed": interrupted,
}


@pytest.mark.parametrize("name", WALK)
def test_the_advice_works_and_pays_nothing_twice(name: str, eager: Eager, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    WALK[name](eager, monkeypatch)
    assert eager.simulator.journal().paid_twice() == []
    assert time.monotonic() - began < 60
