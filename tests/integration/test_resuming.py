"""Jobs that fail, and are taken up again where they stand."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Fault, Outcome, Simulator
from tests.chaos.ledgers import Ledger
from tests.integration.flights import nothing_waits
from tests.integration.rig import account_for, requests
from tests.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.latest, pytest.mark.workers]

StartWorker = Callable[..., Worker]


class TestAJobThatGaveUpWaiting:
    @pytest.mark.every_store
    def test_goes_on_where_it_stood(
        self, app: Celery, start_worker: StartWorker, simulator: Simulator, ledger: Ledger
    ) -> None:
        simulator.behave(processing_seconds=3600)
        start_worker(simulator.url)
        result = run_batch.delay(
            requests("job", 12), max_requests_per_batch=3, max_batches_in_flight=2, max_wait=2.5, poll_max=60
        )
        begun = time.monotonic()
        with pytest.raises(errors.WaitExceeded) as caught:
            result.get(timeout=180)
        text = str(caught.value)
        assert "2 batches were not canceled: they continue" in text
        assert all(batch.id in text for batch in simulator.state().batches)
        assert "2 of the batches were never created or billed" in text
        assert f"To wait longer: BatchJob('{result.id}').resume()" in text
        assert 2 < time.monotonic() - begun < 6
        job = BatchJob(result.id, app)
        assert [batch.state for batch in job.status().batches] == ["failed"] * 4
        assert len(simulator.state().batches) == 2
        assert not simulator.journal().calls_to("cancel")
        wait_until(lambda: nothing_waits(ledger))

        simulator.behave(processing_seconds=1)
        again = job.resume(max_wait=None)
        assert (job.status().state, job.status().error) == ("running", None)
        assert again.state == "PROGRESS"
        simulator.end()
        summary = again.get(timeout=180)
        assert (summary["state"], summary["succeeded"], len(summary["batch_ids"])) == ("completed", 12, 4)
        assert account_for(app, result.id, "job", 12) == {"succeeded": 12}
        assert simulator.journal().paid_twice() == []
        assert len(simulator.journal().calls_to("create")) == 4
        wait_until(lambda: nothing_waits(ledger))

    def test_is_not_one_whose_batch_had_ended_by_then(
        self, app: Celery, start_worker: StartWorker, simulator: Simulator
    ) -> None:
        simulator.behave(processing_seconds=1.5)
        worker = start_worker(simulator.url)
        result = run_batch.delay(requests("job", 2), max_wait=3, poll_min=60, poll_max=60)
        assert result.get(timeout=180)["succeeded"] == 2
        # Also where no worker was there to look.
        result = run_batch.delay(requests("another", 2), max_wait=3, poll_min=60, poll_max=60)
        wait_until(lambda: BatchJob(result.id, app).status().batches[0].batch_id)
        worker.stop(kill=True)
        time.sleep(3)
        start_worker(simulator.url)
        assert result.get(timeout=180)["succeeded"] == 2

    @pytest.mark.parametrize(("endpoint", "status"), [("retrieve", 404), ("retrieve", 429), ("results", 404)])
    def test_is_not_one_whose_last_look_meets_what_passes(
        self, endpoint: Any, status: int, app: Celery, start_worker: StartWorker, simulator: Simulator
    ) -> None:
        simulator.behave(processing_seconds=1.5)
        start_worker(simulator.url)
        results = [run_batch.delay(requests(f"job {n}", 2), max_wait=4, poll_min=60, poll_max=60) for n in range(3)]
        wait_until(lambda: all(BatchJob(result.id, app).status().batches[0].batch_id for result in results))
        simulator.faults(Fault(endpoint, "status", status=status, headers={"retry-after": "2"}, calls=(1,)))
        assert [result.get(timeout=180)["succeeded"] for result in results] == [2, 2, 2]

    def test_keeps_outcomes_for_which_another_chance_comes_too_late(
        self, app: Celery, start_worker: StartWorker, simulator: Simulator
    ) -> None:
        simulator.behave(processing_seconds=0.1, outcomes=[Outcome("expired", count=1)])
        simulator.faults(Fault("messages", "status", status=429, headers={"retry-after": "500"}))
        start_worker(simulator.url)
        result = run_batch.delay(requests("job", 3), max_wait=4, retries=0)
        summary = result.get(timeout=180)
        assert (summary["state"], summary["succeeded"], summary["expired"]) == ("completed", 2, 1)
        assert len(simulator.journal().calls_to("messages")) == 1, "none may be made before the time it was told"

    def test_has_a_deadline_that_a_restart_does_not_move(
        self, app: Celery, start_worker: StartWorker, simulator: Simulator
    ) -> None:
        simulator.behave(processing_seconds=3600)
        worker = start_worker(simulator.url)
        result = run_batch.delay(requests("job", 2), max_wait=4, poll_min=60, poll_max=60)
        wait_until(lambda: BatchJob(result.id, app).status().batches[0].batch_id)
        begun = time.monotonic()
        worker.stop(kill=True)
        time.sleep(1)
        start_worker(simulator.url)
        with pytest.raises(errors.WaitExceeded):
            result.get(timeout=180)
        assert time.monotonic() - begun < 20

    def test_gives_up_again_when_its_new_patience_ends(
        self, app: Celery, start_worker: StartWorker, simulator: Simulator
    ) -> None:
        simulator.behave(processing_seconds=3600)
        start_worker(simulator.url)
        result = run_batch.delay(requests("job", 2), max_wait=1)
        for _ in range(3):
            with pytest.raises(errors.WaitExceeded):
                app.AsyncResult(result.id).get(timeout=180)
            BatchJob(result.id, app).resume()
        simulator.end()
        assert BatchJob(result.id, app).get(timeout=180)["succeeded"] == 2
        assert len(simulator.journal().calls_to("create")) == 1

    def test_is_taken_up_once_by_many(self, app: Celery, start_worker: StartWorker, simulator: Simulator) -> None:
        simulator.behave(processing_seconds=3600)
        start_worker(simulator.url)
        result = run_batch.delay(requests("job", 4), max_requests_per_batch=2, max_wait=1)
        with pytest.raises(errors.WaitExceeded):
            result.get(timeout=180)

        def resume(_: int) -> bool:
            try:
                BatchJob(result.id, app).resume(max_wait=600)
            except errors.JobNotResumable:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(resume, range(8))).count(True) == 1
        simulator.end()
        assert app.AsyncResult(result.id).get(timeout=180)["succeeded"] == 4
        assert simulator.journal().paid_twice() == []

    def test_runs_what_follows_it_when_it_ends(
        self, app: Celery, start_worker: StartWorker, simulator: Simulator
    ) -> None:
        simulator.behave(processing_seconds=3600)
        start_worker(simulator.url)
        keep = app.signature("celery.accumulate")
        result = run_batch.apply_async(
            (requests("job", 2),), {"max_wait": 1}, link=keep.clone().set(task_id="link-of-a-resumed-job")
        )
        with pytest.raises(errors.WaitExceeded):
            result.get(timeout=180)
        BatchJob(result.id, app).resume(max_wait=600)
        simulator.end()
        assert app.AsyncResult("link-of-a-resumed-job").get(timeout=180)[0]["job_id"] == result.id


class TestAJobThatFailedOtherwise:
    def test_searches_for_a_create_that_was_not_answered(
        self, app: Celery, start_worker: StartWorker, simulator: Simulator
    ) -> None:
        simulator.faults(Fault("create", "drop", commit=True), Fault("list", "status", status=403))
        start_worker(simulator.url)
        result = run_batch.delay(requests("job", 3))
        with pytest.raises(errors.PermanentError, match="was not answered"):
            result.get(timeout=180)
        store = BatchJob(result.id, app)._store
        unanswered = store.records.read_batch(result.id, 0).unanswered_at  # type: ignore[union-attr]
        simulator.faults(Fault("list", "status", status=500), replace=True)
        again = BatchJob(result.id, app).resume()
        wait_until(lambda: len(simulator.journal().calls_to("list", 500)) > 1)
        # It was made before then, and not before the search began anew.
        assert store.records.read_batch(result.id, 0).unanswered_at == unanswered  # type: ignore[union-attr]
        simulator.faults(replace=True)
        assert again.get(timeout=180)["succeeded"] == 3
        assert len(simulator.state().batches) == 1
        assert simulator.journal().paid_twice() == []

    def test_fetches_once_more_what_was_incomplete(
        self, app: Celery, start_worker: StartWorker, simulator: Simulator, ledger: Ledger
    ) -> None:
        simulator.faults(Fault("results", "cut", at=0.5, how="clean"))
        start_worker(simulator.url)
        result = run_batch.delay(requests("job", 6), results_limit=2)
        with pytest.raises(errors.ResultsMissing, match="in each of 2 downloads"):
            result.get(timeout=180)
        simulator.faults(Fault("results", "cut", at=0.5, how="clean", calls=(1, 1)), replace=True)
        assert BatchJob(result.id, app).resume().get(timeout=180)["succeeded"] == 6
        assert account_for(app, result.id, "job", 6) == {"succeeded": 6}
        job = BatchJob(result.id, app)
        job.delete()
        assert ledger.find_job(result.id) == []

    def test_ends_also_where_its_last_step_breaks(
        self, app: Celery, start_worker: StartWorker, simulator: Simulator, ledger: Ledger
    ) -> None:
        simulator.behave(processing_seconds=0.1, outcomes=[Outcome("expired", count=1)], messages_seconds=2)
        start_worker(simulator.url)
        result = run_batch.delay(requests("job", 4), retries=0)
        wait_until(lambda: simulator.journal().calls_to("messages"))
        ledger.damage_rows(result.id, 0, 1)
        with pytest.raises(errors.PayloadDamaged, match="was changed"):
            result.get(timeout=180)
        wait_until(lambda: nothing_waits(ledger), 5)  # the sender that woke it ends after it
        again = BatchJob(result.id, app).resume()
        assert again.get(timeout=180)["succeeded"] == 4
        assert account_for(app, result.id, "job", 4) == {"succeeded": 4}
        assert len(simulator.journal().calls_to("messages")) == 1

    @pytest.mark.parametrize("state", ["running", "completed", "revoked"])
    def test_is_the_only_one_to_be_taken_up(
        self, state: str, app: Celery, start_worker: StartWorker, simulator: Simulator
    ) -> None:
        simulator.behave(processing_seconds=3600 if state == "running" else 0.1)
        start_worker(simulator.url)
        result = run_batch.delay(requests("job", 1))
        job = BatchJob(result.id, app)
        if state == "completed":
            result.get(timeout=180)
        else:
            wait_until(lambda: job.status().batches[0].batch_id)
        if state == "revoked":
            job._store.jobs.update_job(result.id, state="revoked", ended_at=time.time())
        with pytest.raises(errors.JobNotResumable, match="has not ended" if state == "running" else state):
            job.resume()

    def test_refuses_options_that_make_no_sense(self, app: Celery) -> None:
        with pytest.raises(errors.JobNotFound):
            BatchJob("nobody", app).resume()
