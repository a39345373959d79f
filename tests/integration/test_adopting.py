"""Jobs made of batches created elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import anthropic
import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, adopt, errors, run_batch
from claude_batch_tasks.api import clients
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Fault, Simulator
from tests.chaos.ledgers import Ledger
from tests.integration.flights import nothing_waits
from tests.integration.rig import requests
from tests.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.workers]

StartWorker = Callable[..., Worker]
KEY = "sk-ant-test-key-never-to-be-seen"


def elsewhere(simulator: Simulator, ids: list[str]) -> str:
    """A batch that somebody else made, with the account's key."""
    client = anthropic.Anthropic(api_key=KEY, base_url=simulator.url)
    params: Any = {"model": "claude-haiku-4-5", "max_tokens": 64}
    made = client.messages.batches.create(
        requests=[
            {"custom_id": name, "params": {**params, "messages": [{"role": "user", "content": f"of {name}"}]}}
            for name in ids
        ]
    )
    return made.id


class TestABatchCreatedElsewhere:
    @pytest.mark.every_store
    def test_becomes_a_job(self, app: Celery, start_worker: StartWorker, simulator: Simulator, ledger: Ledger) -> None:
        ids = [f"row_{number}-x" for number in range(25)]
        simulator.behave(processing_seconds=1.5)
        start_worker(simulator.url)
        batch_id = elsewhere(simulator, ids)
        job = adopt(batch_id, app=app)
        assert (job.status().state, job.status().requests) == ("running", 0)
        with pytest.raises(errors.BatchTasksError, match=job.id):
            adopt(batch_id, app=app)
        summary = job.get(timeout=180)
        assert (summary["state"], summary["requests"], summary["succeeded"]) == ("completed", 25, 25)
        assert summary["batch_ids"] == [batch_id]
        results = {row.custom_id: row.text for row in job.results()}
        assert results == {name: f"Echo: of {name}" for name in ids}
        assert [row.custom_id for row in job.results(order="request")] == [row.custom_id for row in job.results()]
        for name in ids[:3]:
            assert job.result(name).text == f"Echo: of {name}"
        with pytest.raises(errors.RequestNotFound):
            job.result("row_25-x")
        with pytest.raises(errors.RequestsUnknown):
            job.requests()
        wait_until(lambda: nothing_waits(ledger))
        assert len(simulator.journal().calls_to("create")) == 1
        job.delete()
        assert ledger.find_job(job.id) == []

    @pytest.mark.parametrize("how", ["cut", "duplicates", "404"])
    def test_is_read_as_carefully_as_one_of_ours(
        self, how: str, app: Celery, start_worker: StartWorker, simulator: Simulator
    ) -> None:
        simulator.behave(processing_seconds=0.1)
        if how == "duplicates":
            simulator.behave(results={"duplicates": 3})
        elif how == "cut":
            simulator.faults(Fault("results", "cut", at=0.6, how="clean", calls=(1, 2)))
        else:
            simulator.faults(*(Fault(name, "status", status=404, calls=(1, 2)) for name in ("retrieve", "results")))
        start_worker(simulator.url)
        job = adopt(elsewhere(simulator, ["a", "b", "c", "d", "e"]), app=app)
        assert job.get(timeout=180)["succeeded"] == 5
        assert sorted(row.custom_id for row in job.results()) == ["a", "b", "c", "d", "e"]

    def test_that_is_nowhere_ends_the_job(self, app: Celery, start_worker: StartWorker, simulator: Simulator) -> None:
        start_worker(simulator.url)
        job = adopt("msgbatch_nowhere", app=app)
        with pytest.raises(errors.BatchLost, match="was never seen and is missing from 3 complete list calls"):
            job.get(timeout=180)

    def test_can_be_canceled_and_given_up_and_taken_up_again(
        self, app: Celery, start_worker: StartWorker, simulator: Simulator
    ) -> None:
        simulator.behave(processing_seconds=3600, cancel_seconds=0.1)
        start_worker(simulator.url)
        job = adopt(elsewhere(simulator, ["a", "b"]), app=app, max_wait=1.5)
        with pytest.raises(errors.WaitExceeded) as caught:
            job.get(timeout=180)
        assert ".requests()" not in str(caught.value)
        job.resume(max_wait=600)
        job.cancel()
        summary = job.get(timeout=180)
        assert (summary["state"], summary["canceled"]) == ("canceled", 2)

    @pytest.mark.parametrize("how", ["cut", "counts"])
    def test_that_is_shown_without_rows_or_requests_is_not_complete(
        self, how: str, app: Celery, start_worker: StartWorker, simulator: Simulator
    ) -> None:
        simulator.behave(processing_seconds=0.1)
        start_worker(simulator.url)
        batch_id = elsewhere(simulator, ["a", "b"])
        if how == "cut":
            simulator.faults(Fault("results", "cut", at=0.0, how="clean"))
        else:
            shown = {"id": batch_id, "processing_status": "ended", "created_at": "2026-11-01T00:00:00Z"}
            simulator.faults(Fault("retrieve", "status", status=200, body=json.dumps(shown), times=1))
        job = adopt(batch_id, app=app, results_limit=2)
        if how == "cut":
            with pytest.raises(errors.ResultsMissing, match="0 of 2 results"):
                job.get(timeout=180)
            with pytest.raises(errors.InvalidSettings, match="fallback"):
                job.resume(fallback="messages")
            simulator.faults(replace=True)
            job.resume()
        assert job.get(timeout=180)["succeeded"] == 2

    def test_has_custom_ids_of_any_kind(self, app: Celery, start_worker: StartWorker, simulator: Simulator) -> None:
        ids = ['quote"d', "back\\slash", "ümläut 😀", "line\nbreak", "\ud83d lone", "x" * 3000]
        batch_id = elsewhere(simulator, ["a"] * 1)
        rows = [{"custom_id": name, "result": {"type": "canceled"}} for name in ids]
        body = "".join(json.dumps(row) + "\n" for row in rows)
        counts = {"processing": 0, "canceled": len(ids)}
        shown = {"id": batch_id, "processing_status": "ended", "created_at": "2026-11-01T00:00:00Z"}
        simulator.faults(
            Fault("retrieve", "status", status=200, body=json.dumps({**shown, "request_counts": counts})),
            Fault("results", "status", status=200, body=body),
        )
        start_worker(simulator.url)
        job = adopt(batch_id, app=app)
        assert job.get(timeout=180)["canceled"] == len(ids)
        assert [row.custom_id for row in job.results()] == ids
        for name in ids:
            assert job.result(name).custom_id == name

    def test_of_a_job_of_ours_stays_that_jobs(
        self, app: Celery, start_worker: StartWorker, simulator: Simulator
    ) -> None:
        start_worker(simulator.url)
        result = run_batch.delay(requests("job", 1))
        [batch_id] = result.get(timeout=180)["batch_ids"]
        with pytest.raises(errors.BatchTasksError, match=f"BatchJob\\('{result.id}'\\)"):
            adopt(batch_id, app=app)
        BatchJob(result.id, app).delete()
        assert adopt(batch_id, app=app).get(timeout=180)["succeeded"] == 1

    @pytest.mark.parametrize("status", ["in_progress", "ended"])
    def test_may_be_shown_without_its_counts(
        self, status: str, app: Celery, start_worker: StartWorker, simulator: Simulator
    ) -> None:
        simulator.behave(processing_seconds=0.1)
        batch_id = elsewhere(simulator, ["a", "b"])
        shown = {"id": batch_id, "processing_status": status, "created_at": "2026-11-01T00:00:00Z"}
        counts = None if status == "in_progress" else {"processing": 0, "succeeded": 0}
        body = json.dumps({**shown, "request_counts": counts})
        simulator.faults(Fault("retrieve", "status", status=200, body=body, times=3 if counts is None else 0))
        start_worker(simulator.url)
        job = adopt(batch_id, app=app, results_limit=3)
        if status == "ended":
            with pytest.raises(errors.ResultsMissing, match="without its requests"):
                job.get(timeout=180)
        else:
            assert job.get(timeout=180)["succeeded"] == 2

    def test_is_that_of_one_job(
        self, app: Celery, start_worker: StartWorker, simulator: Simulator, ledger: Ledger
    ) -> None:
        batch_id = elsewhere(simulator, ["a", "b"])
        jobs = [adopt(batch_id, app=app)]
        # As where the first died before it had written down whose the batch is.
        ledger.forget_owner(batch_id)
        jobs.append(adopt(batch_id, app=app))
        start_worker(simulator.url)
        with pytest.raises(errors.BatchTasksError, match=f"belongs to job {jobs[1].id}"):
            jobs[0].get(timeout=180)
        assert jobs[1].get(timeout=180)["succeeded"] == 2

    def test_may_be_what_a_job_of_ours_searches_for(
        self, app: Celery, start_worker: StartWorker, simulator: Simulator
    ) -> None:
        """The answer to a create is lost, and somebody who sees the batch in the Console is faster than the search."""
        simulator.behave(processing_seconds=3600)
        simulator.faults(Fault("create", "drop", commit=True), Fault("list", "status", status=500))
        start_worker(simulator.url)
        result = run_batch.delay(requests("job", 3))
        [batch] = wait_until(lambda: simulator.state().batches)
        adopted = adopt(batch.id, app=app)
        wait_until(lambda: adopted.status().requests)
        simulator.faults(replace=True)
        # Longer than it takes to conclude that a batch was never made.
        wait_until(lambda: len(simulator.journal().calls_to("list", 200)) > 8)
        simulator.end()
        assert result.get(timeout=180)["batch_ids"] == [batch.id]
        assert adopted.get(timeout=180)["succeeded"] == 3
        assert len(simulator.journal().calls_to("create", 200)) == 0
        assert len(simulator.state().batches) == 1

    @pytest.mark.parametrize("batch_id", ["", "batch_1", "msgbatch_", "msgbatch_1/results", "msgbatch_1?x=y", None, 5])
    def test_has_an_id_that_looks_like_one(self, batch_id: Any, app: Celery) -> None:
        with pytest.raises(ValueError, match="msgbatch_"):
            adopt(batch_id, app=app)

    def test_takes_options_as_a_job_does(self, app: Celery, ledger: Ledger) -> None:
        for options in ({"poll_maxx": 5}, {"fallback": "messages"}, {"client": "nobody"}):
            with pytest.raises(errors.InvalidSettings):
                adopt("msgbatch_1", app=app, **options)
        assert list(ledger.open().jobs.job_ids()) == []


def test_without_a_worker_nothing_has_to_be_imported_first(
    environment: dict[str, str], simulator: Simulator, redis_url: str, store_url: str
) -> None:
    simulator.behave(processing_seconds=0.1)
    program = f"""
from celery import Celery
from claude_batch_tasks import BatchJob, adopt

app = Celery("own", broker="{redis_url}", backend="{redis_url}")
app.conf.task_always_eager = True
app.conf.claude_batch_store_url = "{store_url}"
print(adopt("{elsewhere(simulator, ["a", "b"])}", app=app, poll_min=0.1).get()["succeeded"])
"""
    env = {**environment, "ANTHROPIC_BASE_URL": simulator.url}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout == "2\n", done.stderr


def test_without_a_worker_they_run_here_and_now(
    app: Celery, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients._client.cache_clear()  # another test's, whose server is gone
    app.conf.update(task_always_eager=True, task_store_eager_result=True)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", simulator.url)
    simulator.behave(processing_seconds=0.1)
    job = adopt(elsewhere(simulator, ["a", "b"]), app=app, poll_min=0.1)
    assert job.get()["succeeded"] == 2
    assert sorted(row.custom_id for row in job.results()) == ["a", "b"]
    simulator.behave(processing_seconds=3600)
    job = adopt(elsewhere(simulator, ["a", "b"]), app=app, poll_min=0.1, max_wait=0.5)
    with pytest.raises(errors.WaitExceeded):
        job.get()
    simulator.end()
    assert job.resume(max_wait=60).get()["succeeded"] == 2
    assert job.status().state == "completed"
    clients._client.cache_clear()
