"""A job that no broker takes, or that no worker picks up: what the caller is told, and within which time."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from kombu.exceptions import OperationalError

from claude_batch_tasks import BatchJob, errors, list_jobs, list_workers, run_batch, testing
from claude_batch_tasks.checks import presence
from claude_batch_tasks.embedded import free_port
from claude_batch_tasks.records import Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import open_store
from tests.factories import make_params
from tests.support import wait_until

REQUESTS = {"a": make_params("hello")}


@pytest.fixture(autouse=True)
def _reset() -> Iterator[None]:
    testing.reset()
    yield
    testing.reset()


@contextmanager
def caller(redis_url: str, store_url: str, broker: str) -> Iterator[Celery]:
    """An app whose store is there, with another broker."""
    app = Celery("caller", broker=broker, set_as_current=False)
    app.conf.update(claude_batch_store_url=store_url, result_backend=redis_url)
    app.loader.import_task_module("claude_batch_tasks.tasks")
    app.set_current()
    yield app
    app.close()


class TestABrokerThatDoesNotAnswer:
    def test_is_an_error_within_seconds_and_there_is_no_job(self, redis_url: str, store_url: str) -> None:
        address = f"redis://:secret@localhost:{free_port()}/0"
        with caller(redis_url, store_url, address) as app:
            began = time.monotonic()
            with pytest.raises(errors.BrokerUnavailable, match="The job does not exist") as caught:
                run_batch.delay(REQUESTS)
            assert time.monotonic() - began < 10
            assert isinstance(caught.value, OperationalError), "as before"
            assert "secret" not in str(caught.value)
            assert "refused" in str(caught.value)
            assert list(list_jobs(app=app)) == []

    def test_is_named_with_the_scheme_that_is_missing(self, redis_url: str, store_url: str) -> None:
        with (
            caller(redis_url, store_url, f"localhost:{free_port()}/0"),
            pytest.raises(errors.BrokerUnavailable) as caught,
        ):
            run_batch.delay(REQUESTS)
        assert "has no scheme, so Celery reads it as the host of a RabbitMQ: write" in str(caught.value)

    def test_leaves_it_open_whether_there_is_a_job_if_the_store_is_gone_too(
        self, redis_url: str, store_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with caller(redis_url, store_url, f"redis://localhost:{free_port()}/0") as app:
            store = open_store(Settings.of(app))

            def fail(*_: object, **__: object) -> None:
                raise errors.StoreUnavailable("gone")

            with monkeypatch.context() as patch:
                patch.setattr(store.jobs, "update_job", fail)
                with pytest.raises(errors.BrokerUnavailable) as caught:
                    run_batch.delay(REQUESTS)
            assert "not known whether the job exists" in str(caught.value)
            [status] = list_jobs(app=app)
            assert f"BatchJob('{status.job_id}').cancel()" in str(caught.value)
            with pytest.raises(OperationalError, match="nothing needs to be repeated"):
                BatchJob(status.job_id, app).cancel()
            job = store.jobs.read_job(status.job_id)
            assert job is not None
            assert job.cancel_requested


def test_a_job_is_sent_with_one_warning_where_no_worker_listens(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for queue in ("nightly", "nightly", "daily"):
            run_batch.apply_async((REQUESTS,), queue=queue)
    told = [record.getMessage() for record in caplog.records if "waits until a worker" in record.getMessage()]
    assert ["listen on queue 'nightly': none" in line for line in told] == [True, False]


def test_a_status_says_that_no_worker_has_picked_a_job_up(app: Celery) -> None:
    job = BatchJob(run_batch.delay(REQUESTS).id)
    delayed = BatchJob(run_batch.apply_async((REQUESTS,), countdown=60).id)
    assert job.status().waiting_for_worker is None
    store = open_store(Settings.of(app))
    store.schedule.add_units([Unit(job.id)], store.now() - 40)
    text = "No worker has picked this up for 40 s. Workers that listen on queue 'celery': none."
    assert job.status().waiting_for_worker == text
    assert {status.job_id: status.waiting_for_worker for status in list_jobs()} == {job.id: text, delayed.id: None}


def test_a_worker_reports_itself_as_long_as_it_runs(
    app: Celery, redis_url: str, store_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(presence, "REPORT_EVERY", 0.2)
    app.conf.update(claude_batch_store_url=store_url, claude_batch_poll_max=30)
    with start_worker(app, perform_ping_check=False, pool="solo", queues=["celery", "nightly"]):
        [worker] = wait_until(lambda: list_workers(app))
        assert worker.queues == ("celery", "nightly")
        assert (worker.settings, worker.pool) == ({"poll_max": "30.0"}, "solo")
        assert redis_url.startswith(str(worker.broker))
        app.control.cancel_consumer("nightly")
        wait_until(lambda: list_workers(app)[0].queues == ("celery",))
        with caplog.at_level(logging.WARNING):
            run_batch.apply_async((REQUESTS,), countdown=60)
        assert "waits until a worker" not in caplog.text
    wait_until(lambda: list_workers(app) == [])
