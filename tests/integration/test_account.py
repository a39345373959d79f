"""A job whose worker comes back with another key: on its own account it goes on, on another it is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Fault, Simulator
from tests.adversarial.server import Answer, Manners, UnfriendlyServer
from tests.chaos.ledgers import Ledger
from tests.integration.rig import requests
from tests.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.workers]

OTHER = {"ANTHROPIC_API_KEY": "sk-ant-another-key-never-to-be-seen"}


@pytest.fixture
def unfriendly() -> Iterator[UnfriendlyServer]:
    """An API that does not say what organization a key is of, and by default takes every key for the same account."""
    with UnfriendlyServer() as server:
        yield server


def refused(result: Any) -> str:
    with pytest.raises(errors.AccountChanged) as caught:
        result.get(timeout=180)
    text = str(caught.value)
    assert "Give the workers the credential that the job was started with" in text
    assert "sk-ant" not in text
    return text


def test_an_unanswered_create_is_not_repeated_on_another_account(
    app: Celery, start_worker: Callable[..., Worker]
) -> None:
    with Simulator("healthy") as simulator:
        simulator.faults(Fault("create", "drop", commit=True), Fault("list", "status", status=503))
        worker = start_worker(simulator.url)
        result = run_batch.delay(requests("review", 5))
        wait_until(lambda: simulator.journal().calls_to("list"))
        worker.stop(kill=True)
        simulator.faults(replace=True)
        start_worker(simulator.url, **OTHER)
        text = refused(result)
        assert "was started with another credential" in text
        assert simulator.journal().totals.batches_created == 1
        assert simulator.journal().totals.paid_messages == 0


def test_a_batch_of_another_organization_is_not_taken_for_lost(
    app: Celery, start_worker: Callable[..., Worker]
) -> None:
    """Its first answer says that the organization is another: nobody waits until the 404 counts as absence."""
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=60.0)
        worker = start_worker(simulator.url)
        result = run_batch.delay(requests("review", 5))
        wait_until(lambda: BatchJob(result.id, app).status().polls)
        worker.stop(kill=True)
        start_worker(simulator.url, **OTHER)
        text = refused(result)
        assert "its organization is" in text
        assert BatchJob(result.id, app).status().batches[0].batch_id in text
        totals = simulator.journal().totals
        assert (totals.batches_created, totals.paid_messages) == (1, 0)


def test_a_batch_that_is_not_in_sight_is_not_taken_for_lost(
    app: Celery, start_worker: Callable[..., Worker], unfriendly: UnfriendlyServer
) -> None:
    """Nothing says whose the new key is: the 404s and the listings may only mean that it is another account."""
    unfriendly.account("a").manners = Manners(looks=10**6)
    factory = "CLAUDE_BATCH_CLIENT_FACTORIES"
    worker = start_worker(unfriendly.url, **{factory: '{"default": "tests.adversarial.clients.a"}'})
    result = run_batch.delay(requests("review", 5), not_found_grace=1)
    wait_until(lambda: BatchJob(result.id, app).status().polls)
    worker.stop(kill=True)
    start_worker(unfriendly.url, **OTHER, **{factory: '{"default": "tests.adversarial.clients.b"}'})
    assert "a batch that it does not show may still run" in refused(result)
    assert unfriendly.account("b").calls["create"] == unfriendly.account("b").calls["messages"] == 0
    assert unfriendly.account("b").calls["list"] >= 3


def test_a_new_key_of_the_same_account_goes_on(
    app: Celery, start_worker: Callable[..., Worker], unfriendly: UnfriendlyServer, ledger: Ledger
) -> None:
    """It sees the batch, so it is believed, also when it later does not see it."""
    account = unfriendly.account()
    account.manners = Manners(looks=6, script={"retrieve": [None, None, None, None, Answer(404), Answer(404)]})
    worker = start_worker(unfriendly.url)
    result = run_batch.delay(requests("review", 5))
    wait_until(lambda: BatchJob(result.id, app).status().polls)
    worker.stop(kill=True)
    start_worker(unfriendly.url, **OTHER)
    assert result.get(timeout=180)["succeeded"] == 5
    assert account.calls["create"] == 1
    assert b"sk-ant" not in msgspec.json.encode([*ledger.open().transfer.export_job(result.id)])


def test_an_unanswered_create_may_be_left_to_a_person(
    app: Celery, start_worker: Callable[..., Worker], unfriendly: UnfriendlyServer
) -> None:
    account = unfriendly.account()
    account.manners = Manners(script={"create": [Answer(500)]})
    start_worker(unfriendly.url)
    result = run_batch.delay(requests("review", 5), on_unresolved_create="fail")
    with pytest.raises(errors.CreateUnconfirmed, match="If the Console does not show the batch"):
        result.get(timeout=180)
    assert account.calls["create"] == 1
    assert account.calls["messages"] == 0
    assert len(list(BatchJob(result.id, app).requests())) == 5
