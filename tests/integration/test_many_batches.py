"""Jobs of many batches: created, polled and fetched side by side, a bounded number at a time, each for itself."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.api import clients
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.records import Unit
from claude_batch_tasks.simulator import Fault, Simulator
from claude_batch_tasks.tasks import fetch_results, finish_job
from claude_batch_tasks.wire.batch_requests import wire_id
from tests.chaos.ledgers import Ledger
from tests.integration.rig import account_for, requests
from tests.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.latest, pytest.mark.workers]

StartWorker = Callable[..., Worker]


def most_at_once(simulator: Simulator) -> int:
    """How many batches were at work at the same moment, at most."""
    batches = simulator.state().batches
    moments = sorted([(b.created_at, 1) for b in batches] + [(b.ended_at, -1) for b in batches])
    most = now = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_are_in_flight_than_allowed(limit: int, app: Celery, start_worker: StartWorker) -> None:
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=0.4)
        start_worker(simulator.url)
        result = run_batch.delay(requests("job", 50), max_requests_per_batch=5, max_batches_in_flight=limit)
        summary = result.get(timeout=180)
        assert (summary["state"], summary["succeeded"], len(summary["batch_ids"])) == ("completed", 50, 10)
        assert most_at_once(simulator) == limit
        assert account_for(app, result.id, "job", 50) == {"succeeded": 50}
        assert simulator.journal().paid_twice() == []


@pytest.mark.every_store
def test_workers_killed_in_the_middle_lose_and_double_none(app: Celery, start_worker: StartWorker) -> None:
    """Neither the batch that a killed worker was at nor the one that was to follow it."""
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=0.3)
        result = run_batch.delay(requests("job", 60), max_requests_per_batch=5, max_batches_in_flight=2)
        for count in (2, 5, 9):
            worker = start_worker(simulator.url)
            wait_until(lambda count=count: simulator.state().totals.batches_created >= count)
            worker.stop(kill=True)
        start_worker(simulator.url)
        assert result.get(timeout=180)["succeeded"] == 60
        assert most_at_once(simulator) <= 2
        assert account_for(app, result.id, "job", 60) == {"succeeded": 60}
        assert simulator.journal().paid_twice() == []


def test_one_that_fails_does_not_lose_the_others(app: Celery, start_worker: StartWorker) -> None:
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=0.3)
        simulator.faults(Fault("retrieve", "status", status=403, per="server", calls=(2,)))
        start_worker(simulator.url)
        result = run_batch.delay(requests("job", 40), max_requests_per_batch=5, max_batches_in_flight=2)
        with pytest.raises(errors.PermanentError, match=r"batch \d of 8 failed: .*403.* 35 outcomes"):
            result.get(timeout=180)
        job = BatchJob(result.id, app)
        status = job.status()
        assert (status.state, status.succeeded) == ("failed", 35)
        assert sorted(batch.state for batch in status.batches) == ["done"] * 7 + ["failed"]
        assert len({found.custom_id for found in job.results()}) == 35
        assert status.summary is not None
        assert len(status.summary["batch_ids"]) == 8


def test_what_could_not_be_downloaded_is_not_counted(app: Celery, start_worker: StartWorker) -> None:
    """The API's own counts of a batch whose results are refused are no outcomes of the job."""
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=0.2)
        simulator.faults(Fault("results", "status", status=403, per="server", calls=(1,)))
        start_worker(simulator.url)
        result = run_batch.delay(requests("job", 15), max_requests_per_batch=5)
        with pytest.raises(errors.PermanentError, match="and 10 outcomes"):
            result.get(timeout=180)
        job = BatchJob(result.id, app)
        status = job.status()
        assert (status.succeeded, status.done, len(list(job.results()))) == (10, 10, 10)
        assert status.summary is not None
        assert status.summary["succeeded"] == 10


def test_a_cancel_begins_none_of_those_that_wait(app: Celery, start_worker: StartWorker) -> None:
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=60, cancel_seconds=0.3)
        start_worker(simulator.url)
        result = run_batch.delay(requests("job", 40), max_requests_per_batch=5, max_batches_in_flight=2)
        job = BatchJob(result.id, app)
        wait_until(lambda: [batch.state for batch in job.status().batches].count("in_progress") == 2)
        job.cancel()
        summary = result.get(timeout=180)
        assert (summary["state"], summary["canceled"], len(summary["batch_ids"])) == ("canceled", 40, 2)
        assert simulator.state().totals.batches_created == 2
        assert len(list(job.results(type="canceled"))) == 40


def test_a_job_that_waited_too_long_pays_for_no_more_of_them(app: Celery, start_worker: StartWorker) -> None:
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=60)
        start_worker(simulator.url)
        options = {"max_requests_per_batch": 5, "max_batches_in_flight": 1, "max_wait": 2}
        result = run_batch.delay(requests("job", 20), **options)
        with pytest.raises(errors.WaitExceeded, match="batch 1 of 4 and 3 more failed"):
            result.get(timeout=180)
        assert simulator.state().totals.batches_created == 1


@pytest.mark.every_store
def test_a_job_that_is_deleted_leaves_nothing(app: Celery, start_worker: StartWorker, ledger: Ledger) -> None:
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=1)
        worker = start_worker(simulator.url)
        result = run_batch.delay(requests("job", 12), max_requests_per_batch=5)
        job = BatchJob(result.id, app)
        wait_until(lambda: job.status().state == "running")
        with pytest.raises(errors.JobRunning):
            job.delete()
        assert result.get(timeout=180)["succeeded"] == 12
        assert len(list(job.results())) == 12
        wait_until(lambda: not ledger.list_due())
        job.delete()
        assert ledger.find_job(result.id) == []
        assert result.get(timeout=5)["succeeded"] == 12
        # A late copy of its last message, where nothing else remembers that the job ended well.
        result.forget()
        said = "is gone from the store; its message is ignored"
        assert said not in worker.log.read_text()
        app.signature(finish_job.name, (result.id,), immutable=True).set(task_id=result.id).apply_async()
        wait_until(lambda: said in worker.log.read_text())
        time.sleep(0.5)
        assert result.state == "PENDING"


class Trickle(BaseHTTPRequestHandler):
    """A result file that comes a line at a time, without end."""

    nonce = ""
    gone = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        number = 0
        try:
            while True:
                message = {"content": "x" * 100_000}
                row = {"custom_id": wire_id(self.nonce, number), "result": {"type": "succeeded", "message": message}}
                self.wfile.write(json.dumps(row).encode() + b"\n")
                time.sleep(0.02)
                number += 1
        except OSError:
            self.gone.set()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def trickle(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Trickle]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Trickle)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-trickle")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://127.0.0.1:{server.server_address[1]}")
    yield Trickle
    server.shutdown()
    server.server_close()


def test_a_download_that_was_taken_over_ends_and_leaves_nothing(
    app: Celery, ledger: Ledger, trickle: type[Trickle]
) -> None:
    """The lease is renewed however long it takes; once it is somebody else's, the download is given up."""
    clients._client.cache_clear()
    job_id, unit = "a-long-one", Unit("a-long-one", 0)
    record = submission.submit_job(app, job_id, requests("job", 1000), {"lease": 0.6})
    trickle.nonce = record.nonce
    store = ledger.open()
    store.jobs.update_job(job_id, state="running", started_at=time.time(), admitted=1)
    store.leases.acquire_lease(unit, 0, "test", 60)
    store.leases.write_record(unit, "test", state="ended", batch_id="msgbatch_1", created_at=time.time())
    store.leases.advance_unit(unit, "test", 0)
    states: list[str] = []
    task = app.tasks[fetch_results.name]
    thread = threading.Thread(target=lambda: states.append(task.apply((job_id, 0, 0, 0)).state))
    thread.start()
    wait_until(lambda: store.results.read_chunk(job_id, 0, 1, 1))
    begun = time.monotonic()
    assert store.leases.acquire_lease(unit, 2_000_000, "another", 60).state == "busy"
    while time.monotonic() < begun + 1.5:  # longer than the lease
        assert store.leases.acquire_lease(unit, 2_000_000, "another", 60).state == "busy"
        time.sleep(0.1)
    ledger.set_unit(unit, owner="another")
    thread.join(20)
    assert not thread.is_alive()
    assert trickle.gone.wait(10)
    assert states == ["IGNORED"]
    assert store.results.read_chunk(job_id, 0, 1, 0) == b""
