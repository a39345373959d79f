"""Jobs whose payloads are in an object store, with real workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Outcome, Simulator
from tests.chaos.ledgers import Ledger
from tests.integration.rig import Proxy, account_for, requests
from tests.s3_server import S3Server, environment_of, run_s3_server
from tests.support import wait_until

pytestmark = [pytest.mark.latest, pytest.mark.workers]

StartWorker = Callable[..., Worker]


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    with run_s3_server() as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server, app: Celery) -> Iterator[str]:
    """An empty bucket, which callers use."""
    with environment_of(s3_server):
        name = s3_server.make_bucket()
        app.conf.claude_batch_payload_url = f"s3://{name}/jobs"
        yield name


@pytest.fixture
def settings(s3_server: S3Server, bucket: str) -> dict[str, str]:
    """What workers have in their environment that use it too."""
    return {**s3_server.environment(), "CLAUDE_BATCH_PAYLOAD_URL": f"s3://{bucket}/jobs"}


def objects(server: S3Server, bucket: str) -> list[str]:
    return [key for key in server.list_keys(bucket) if key != "jobs/claude-batch-objects"]


@pytest.mark.every_store
def test_a_job_goes_through_workers_and_is_deleted(
    app: Celery,
    start_worker: StartWorker,
    simulator: Simulator,
    s3_server: S3Server,
    ledger: Ledger,
    bucket: str,
    settings: dict[str, str],
) -> None:
    """Two batches, of which some requests expire once, and some go through the Messages API."""
    simulator.behave(processing_seconds=0.2, outcomes=(Outcome("expired", count=5, attempts=3),))
    start_worker(simulator.url, **settings)
    result = run_batch.delay(requests("job", 40), max_requests_per_batch=20)
    summary = result.get(timeout=180)
    assert summary["state"] == "completed"
    assert account_for(app, result.id, "job", 40) == {"succeeded": 40}
    assert simulator.journal().paid_twice() == []
    job = BatchJob(result.id, app)
    assert job.result("job 7").text.rstrip(".") == "Echo: prompt 7 of job"
    assert sum(1 for _ in job.requests()) == 40
    kinds = {key.rsplit("/", 1)[1] for key in objects(s3_server, bucket) if "/index/" not in key}
    assert kinds == {"bodies", "ids", "rows", "places"}
    assert ledger.read_payload_bytes() < 40_000
    job.delete()
    assert objects(s3_server, bucket) == []


def test_workers_that_are_killed_while_they_write_leave_what_others_go_on_with(
    app: Celery,
    start_worker: StartWorker,
    simulator: Simulator,
    s3_server: S3Server,
    bucket: str,
    settings: dict[str, str],
) -> None:
    """SIGKILL in the middle of the upload of rows, and between their upload and what makes them the results."""
    simulator.behave(processing_seconds=0.2)
    result = run_batch.delay(requests("job", 60), max_requests_per_batch=30)
    for written in ("/rows", "/places"):
        with Proxy("127.0.0.1", s3_server.port) as proxy:
            proxy.hold(rf"PUT \S+{written}(\?\S*)?$", times=2)
            held = {**settings, "AWS_ENDPOINT_URL": proxy.url}
            worker = start_worker(simulator.url, **held)
            wait_until(lambda proxy=proxy: proxy.held)
            worker.stop(kill=True)
    start_worker(simulator.url, **settings)
    assert result.get(timeout=180)["state"] == "completed"
    assert account_for(app, result.id, "job", 60) == {"succeeded": 60}
    assert simulator.state().totals.batches_created == 2
    rows = [key for key in objects(s3_server, bucket) if key.endswith("/rows")]
    assert len(rows) == 2, "those of attempts that broke off are gone"
    BatchJob(result.id, app).delete()
    assert objects(s3_server, bucket) == []


@pytest.mark.parametrize("credentials", [True, False])
def test_a_worker_without_the_setting_loses_nothing(
    credentials: bool,
    app: Celery,
    start_worker: StartWorker,
    simulator: Simulator,
    s3_server: S3Server,
    settings: dict[str, str],
    tmp_path: Path,
) -> None:
    """It goes on if it finds the bucket; else its steps wait for a worker that does."""
    simulator.behave(processing_seconds=0.2)
    result = run_batch.delay(requests("job", 20))
    environment: dict[str, Any] = s3_server.environment() if credentials else {"AWS_EC2_METADATA_DISABLED": "true"}
    worker = start_worker(simulator.url, **environment)
    if not credentials:
        wait_until(lambda: "the object store at s3://" in worker.log.read_text())
        assert simulator.state().totals.batches_created == 0
        assert result.state in ("PENDING", "RETRY", "PROGRESS")
        worker.stop(kill=True)
        start_worker(simulator.url, **settings)
    assert result.get(timeout=180)["state"] == "completed"
    assert account_for(app, result.id, "job", 20) == {"succeeded": 20}
    assert simulator.state().totals.batches_created == 1


def test_an_object_store_that_is_down_is_waited_for(
    app: Celery,
    start_worker: StartWorker,
    simulator: Simulator,
    bucket: str,
    settings: dict[str, str],
    s3_server: S3Server,
) -> None:
    """The bucket is gone when the create reads from it and when the rows are to be written, and comes back."""
    simulator.behave(processing_seconds=0.2)
    result = run_batch.delay(requests("job", 20))
    kept = {
        key: s3_server.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in s3_server.list_keys(bucket)
    }
    for key in kept:
        s3_server.client.delete_object(Bucket=bucket, Key=key)
    s3_server.client.delete_bucket(Bucket=bucket)
    worker = start_worker(simulator.url, **settings)
    wait_until(lambda: "the object store at s3://" in worker.log.read_text())
    assert simulator.state().totals.batches_created == 0
    s3_server.client.create_bucket(Bucket=bucket)
    for key, data in kept.items():
        s3_server.client.put_object(Bucket=bucket, Key=key, Body=data)
    assert result.get(timeout=180)["state"] == "completed"
    assert account_for(app, result.id, "job", 20) == {"succeeded": 20}
    assert simulator.journal().paid_twice() == []
