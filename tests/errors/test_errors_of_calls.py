"""Each error of a call is provoked, and what its entry advises works and pays nothing twice."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import anthropic
import pytest

from claude_batch_tasks import BatchJob, adopt, ask, errors, list_jobs, list_pools, run_batch, testing
from claude_batch_tasks.embedded import free_port
from claude_batch_tasks.jobs.job_ids import find_job_id
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.simulator import Outcome
from claude_batch_tasks.store import open_store
from claude_batch_tasks.store.redis import schema
from claude_batch_tasks.store.transfer.items import Mark
from tests.errors.conftest import REQUESTS, Eager
from tests.factories import make_params
from tests.postgres_server import PostgresServer, why_missing


def raised(kind: type[errors.BatchTasksError], call: Callable[[], Any]) -> errors.BatchTasksError:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return caught.value


def wrong_setting(eager: Eager) -> None:
    raised(errors.InvalidSettings, lambda: run_batch.delay(REQUESTS, max_wait="soon"))
    assert list(list_jobs()) == []
    eager.ends(run_batch.delay(REQUESTS, max_wait=600))


def wrong_requests(eager: Eager) -> None:
    error = raised(errors.InvalidRequests, lambda: run_batch.delay({"a": {"model": "claude-haiku-4-5"}}))
    assert "nothing was stored or sent" in str(error).lower()
    assert list(list_jobs()) == []
    eager.ends(run_batch.delay(REQUESTS))


def no_answer(eager: Eager) -> None:
    refused = Outcome("errored", error="invalid_request_error", message="not this one", prompt="first")
    eager.simulator.behave(processing_seconds=0.1, outcomes=(refused,))
    result = ask.delay(make_params("first"))
    error = raised(errors.RequestFailed, result.get)
    assert isinstance(error, errors.RequestFailed)
    assert (error.outcome, error.error_type, error.custom_id) == ("errored", "invalid_request_error", result.id)
    assert "not this one" in str(error)
    assert result.job.result(result.id).error_message == "not this one"
    assert ask.delay(make_params("second")).get().complete


def no_budget(eager: Eager) -> None:
    with eager.not_eager(eager.redis_url):
        error = raised(errors.BudgetSpent, lambda: ask.delay(make_params("first"), ask_max_cost=1e-9))
        assert isinstance(error, errors.BudgetSpent)
        assert error.retry_after is not None
        assert 0 < error.retry_after <= 86_400
        assert "nothing was stored or sent" in str(error)
        assert list_pools() == []
        ask.delay(make_params("first"), ask_max_cost=5.0)
        [found] = list_pools()
        assert found.waiting == 1


def no_broker(eager: Eager) -> None:
    with eager.not_eager(f"redis://localhost:{free_port()}/0"):
        error = raised(errors.BrokerUnavailable, lambda: run_batch.delay(REQUESTS))
        assert "The job does not exist" in str(error)
        assert list(list_jobs()) == []
    with eager.not_eager(eager.redis_url):
        run_batch.delay(REQUESTS)
        assert len(list(list_jobs())) == 1


def no_store(eager: Eager) -> None:
    with eager.setting("claude_batch_store_url", f"redis://localhost:{free_port()}/0"):
        error = raised(errors.StoreUnavailable, lambda: run_batch.delay(REQUESTS))
        assert "nothing was sent or paid" in str(error)
    assert list(list_jobs()) == []
    eager.ends(run_batch.delay(REQUESTS))


def newer_store(eager: Eager) -> None:
    key = "claude_batch:schema"
    eager.redis.zadd(key, {"version": 99, "least": 99})
    testing.reset()
    error = raised(errors.StoreTooNew, lambda: run_batch.delay(REQUESTS))
    assert "Nothing was read or changed" in str(error)
    eager.redis.delete(key)
    eager.ends(run_batch.delay(REQUESTS))


def store_without_tables(eager: Eager) -> None:
    if why := why_missing():
        pytest.skip(why)
    with PostgresServer() as server, eager.setting("claude_batch_store_url", server.make_database()):
        error = raised(errors.StoreNotMigrated, lambda: run_batch.delay(REQUESTS))
        assert "Nothing was read or changed. Run `claude-batch migrate`" in str(error)
        open_store(Settings.of(eager.app)).schema.migrate()
        eager.ends(run_batch.delay(REQUESTS))
        testing.reset()


def moved_store(eager: Eager) -> None:
    schema.set_mark(eager.redis, Mark(state="moved", other="postgresql://db/jobs", at=0.0))
    testing.reset()
    error = raised(errors.StoreMoved, lambda: run_batch.delay(REQUESTS))
    assert "were moved to postgresql://db/jobs on 1970-01-01" in str(error)
    schema.set_mark(eager.redis, None)
    eager.ends(run_batch.delay(REQUESTS))


def no_key(eager: Eager) -> None:
    key = base64.b64encode(b"k" * 32).decode()
    with eager.setting("claude_batch_encryption_key", key):
        job = BatchJob(eager.ends(run_batch.delay(REQUESTS)))
        assert len(list(job.results())) == 2
    error = raised(errors.KeyMissing, lambda: list(BatchJob(job.id).results()))
    assert "give all callers and workers the same keys" in str(error)
    with eager.setting("claude_batch_encryption_key", key):
        assert len(list(BatchJob(job.id).results())) == 2


def no_job(eager: Eager) -> None:
    job = BatchJob(eager.ends(run_batch.delay(REQUESTS)))
    [batch_id] = job.status().summary["batch_ids"]  # type: ignore[index]
    eager.redis.flushall()
    error = raised(errors.JobNotFound, job.status)
    assert job.id in str(error)
    adopted = adopt(batch_id)
    assert adopted.get(timeout=60)["succeeded"] == 2


def short_prefix(eager: Eager) -> None:
    ids = [run_batch.apply_async(({name: params},), task_id=f"nightly-{name}").id for name, params in REQUESTS.items()]
    error = raised(errors.AmbiguousJobId, lambda: find_job_id("nigh"))
    assert isinstance(error, errors.AmbiguousJobId)
    assert sorted(error.candidates) == ids
    assert find_job_id("nightly-b") == ids[1]


def no_request(eager: Eager) -> None:
    job = BatchJob(eager.ends(run_batch.delay(REQUESTS)))
    raised(errors.RequestNotFound, lambda: job.result("nobody"))
    assert job.result("a").type == "succeeded"


def running_job(eager: Eager) -> None:
    with eager.not_eager(eager.redis_url):
        job = BatchJob(run_batch.delay(REQUESTS).id)
        store = open_store(Settings.of(eager.app))
        store.jobs.update_job(job.id, state="running")
        error = raised(errors.JobRunning, job.delete)
        assert "cancel()" in str(error)
        job.cancel()
        store.jobs.update_job(job.id, state="canceled", ended_at=store.now())
        job.delete()
        assert list(list_jobs()) == []


def completed_job(eager: Eager) -> None:
    job = BatchJob(eager.ends(run_batch.delay(REQUESTS)))
    error = raised(errors.JobNotResumable, job.resume)
    assert "completed" in str(error)
    assert len(list(job.results())) == 2


def nothing_failed(eager: Eager) -> None:
    job = BatchJob(eager.ends(run_batch.delay(REQUESTS)))
    error = raised(errors.NothingToRetry, job.retry_failed)
    assert "all succeeded" in str(error)
    assert {result.custom_id for result in job.results(with_retries=True)} == set(REQUESTS)


def no_hook(eager: Eager) -> None:
    job = BatchJob(eager.ends(run_batch.delay(REQUESTS)))
    raised(errors.NotDeliverable, job.redeliver)
    assert len(list(job.results())) == 2


def adopted_job(eager: Eager) -> None:
    with anthropic.Anthropic(base_url=eager.simulator.url, api_key="sk-ant-simulated", max_retries=0) as client:
        sent: list[Any] = [{"custom_id": name, "params": params} for name, params in REQUESTS.items()]
        batch_id = client.messages.batches.create(requests=sent).id
    job = adopt(batch_id)
    job.get(timeout=60)
    raised(errors.RequestsUnknown, lambda: list(job.requests()))
    assert {result.custom_id for result in job.results()} == set(REQUESTS)


def damaged_value(eager: Eager) -> None:
    with eager.setting("claude_batch_encryption_key", base64.b64encode(b"k" * 32).decode()):
        job = BatchJob(eager.ends(run_batch.delay(REQUESTS)))
        [rows] = [key for key in eager.redis.keys("*") if b":rows:" in key]
        value = eager.redis.lindex(rows, 0)
        eager.redis.lset(rows, 0, value[:-1] + bytes([value[-1] ^ 1]))
        raised(errors.PayloadDamaged, lambda: list(job.results()))
        eager.redis.lset(rows, 0, value)
        assert len(list(job.results())) == 2


WALK: dict[str, Callable[[Eager], None]] = {
    "InvalidSettings": wrong_setting,
    "InvalidRequests": wrong_requests,
    "RequestFailed": no_answer,
    "BudgetSpent": no_budget,
    "BrokerUnavailable": no_broker,
    "StoreUnavailable": no_store,
    "StoreTooNew": newer_store,
    "StoreNotMigrated": store_without_tables,
    "StoreMoved": moved_store,
    "KeyMissing": no_key,
    "JobNotFound": no_job,
    "AmbiguousJobId": short_prefix,
    "RequestNotFound": no_request,
    "JobRunning": running_job,
    "JobNotResumable": completed_job,
    "NothingToRetry": nothing_failed,
    "NotDeliverable": no_hook,
    "RequestsUnknown": adopted_job,
    "PayloadDamaged": damaged_value,
}


@pytest.mark.parametrize("name", WALK)
def test_the_advice_works_and_pays_nothing_twice(name: str, eager: Eager) -> None:
    WALK[name](eager)
    assert eager.simulator.journal().paid_twice() == []
