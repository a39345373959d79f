"""An application learns of answers and of what happens to its jobs without asking."""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.simulator import Fault, Outcome, Simulator
from tests.integration.listening import SAVED, TOLD, save
from tests.integration.rig import name_servers, requests
from tests.support import FAST, LendStore, inherited, wait_until

pytestmark = [pytest.mark.latest, pytest.mark.workers]

LISTENING = ("--concurrency=2", "--include=tests.integration.listening")


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, lend_store: LendStore
) -> Iterator[tuple[Worker, Celery, Simulator]]:
    """A worker that all of these tests share."""
    with RedisServer() as redis, lend_store(redis.url) as store_url, Simulator("healthy") as simulator:
        env = {**inherited(), **FAST, **simulator.env, **name_servers(redis.url, store_url)}
        with Worker(env, tmp_path_factory.mktemp("hooks") / "worker.log", options=LISTENING) as worker:
            app = Celery("hooks", broker=redis.url, backend=redis.url, set_as_current=False)
            app.conf.update(result_expires=3600, claude_batch_store_url=store_url)
            app.loader.import_task_module("claude_batch_tasks.tasks")
            yield worker, app, simulator
            gc.collect()
            app.close()


@pytest.fixture
def app(world: tuple[Worker, Celery, Simulator]) -> Celery:
    """Of these tests, told nothing yet."""
    _, app, _ = world
    app.set_current()
    app.backend.client.delete(SAVED, TOLD)
    return app


@pytest.fixture
def simulator(world: tuple[Worker, Celery, Simulator]) -> Simulator:
    _, _, simulator = world
    simulator.reset("healthy")
    return simulator


def kept(app: Celery, name: str) -> list[Any]:
    return [json.loads(entry) for entry in app.backend.client.lrange(name, 0, -1)]


def saved(app: Celery) -> Counter[str]:
    return Counter(custom_id for _, ids, _ in kept(app, SAVED) for custom_id in ids)


def outcomes(app: Celery) -> Counter[tuple[str, str]]:
    return Counter((type, source) for _, _, rows in kept(app, SAVED) for type, source in rows.values())


class TestOnResult:
    def test_is_called_with_every_id_when_its_outcome_is_final(self, app: Celery, simulator: Simulator) -> None:
        simulator.behave(
            processing_seconds=0.3,
            outcomes=(Outcome("expired", prompt="1 of", attempts=1), Outcome("expired", prompt="2 of")),
        )
        result = run_batch.delay(requests("job", 2500), max_requests_per_batch=1500, on_result=save.s("answers"))
        job = BatchJob(result.id, app)
        wait_until(lambda: len(saved(app)) >= 2000)
        assert job.status().state == "running"
        result.get(timeout=180)
        wait_until(lambda: len(saved(app)) == 2500)
        assert set(saved(app).values()) == {1}
        assert outcomes(app) == {
            ("succeeded", "batch"): 2000,
            ("succeeded", "resubmitted"): 250,
            ("succeeded", "messages"): 250,
        }
        assert {table for table, _, _ in kept(app, SAVED)} == {"answers"}
        assert max(len(ids) for _, ids, _ in kept(app, SAVED)) <= 1000

    def test_is_called_for_what_has_no_answer_too(self, app: Celery, simulator: Simulator) -> None:
        simulator.behave(
            processing_seconds=0.2,
            outcomes=(
                Outcome("expired", prompt="1 of"),
                Outcome("errored", error="invalid_request_error", prompt="2 of"),
            ),
        )
        options = {"retries": 0, "max_fallback_requests": 1, "on_result": save.s("answers")}
        run_batch.delay(requests("job", 30), **options).get(timeout=180)
        wait_until(lambda: len(saved(app)) == 30)
        assert outcomes(app) == {
            ("succeeded", "batch"): 24,
            ("errored", "batch"): 3,
            ("expired", "batch"): 2,
            ("succeeded", "messages"): 1,
        }

    def test_finds_the_outcomes_of_all_ids_it_is_called_with(self, app: Celery, simulator: Simulator) -> None:
        """Also in the moment in which the batch is about to end."""
        simulator.behave(processing_seconds=0.2, outcomes=(Outcome("expired"),))
        run_batch.delay(requests("job", 12_000), retries=0, fallback="off", on_result=save.s("answers")).get(
            timeout=180
        )
        wait_until(lambda: len(saved(app)) == 12_000)
        assert outcomes(app) == {("expired", "batch"): 12_000}

    def test_is_not_called_for_what_failed_but_when_the_job_was_resumed(
        self, app: Celery, simulator: Simulator
    ) -> None:
        simulator.behave(processing_seconds=4)
        result = run_batch.delay(requests("job", 20), max_wait=1, on_result=save.s("answers"))
        with pytest.raises(errors.WaitExceeded):
            result.get(timeout=180)
        BatchJob(result.id, app).resume(max_wait=60).get(timeout=180)
        wait_until(lambda: len(saved(app)) == 20)
        assert outcomes(app) == {("succeeded", "batch"): 20}

    @pytest.mark.parametrize("wrong", [print, "listening.save", {"name": "x"}, save.s(object())])
    def test_must_be_a_signature_that_json_can_carry(self, wrong: Any, app: Celery) -> None:
        with pytest.raises(errors.InvalidSettings, match="on_result"):
            run_batch.delay(requests("job", 2), on_result=wrong)


class TestSignals:
    def test_tell_what_happens_to_a_job(self, app: Celery, simulator: Simulator, world: Any) -> None:
        simulator.behave(processing_seconds=0.3, outcomes=(Outcome("expired", prompt="1 of", attempts=1),))
        for endpoint in ("create", "retrieve", "results"):
            simulator.faults(Fault(endpoint, "status", status=404, per="server", calls=(1,)))
        result = run_batch.delay(requests("job", 20))
        summary = result.get(timeout=180)
        told = kept(app, TOLD)
        assert {more["job_id"] for _, _, more in told} == {result.id}
        first, second = summary["batch_ids"]
        by_name: dict[str, list[Any]] = {}
        for name, task, more in told:
            del more["job_id"]
            by_name.setdefault(name, []).append((task, more))
        created = [
            {"batch": 0, "number": 1, "batch_id": id_, "requests": n, "round": r}
            for id_, n, r in [(first, 20, 0), (second, 2, 1)]
        ]
        assert by_name["batch_created"] == [("create_batch", more) for more in created]
        ended = [{"succeeded": 18, "expired": 2}, {"succeeded": 2}]
        for name, task in (("batch_ended", "poll_batch"), ("results_published", "fetch_results")):
            assert [(task, {**more, "counts": None}) for _, more in by_name[name]] == [
                (task, {"batch": 0, "number": 1, "batch_id": id_, "counts": None, "round": r})
                for id_, r in [(first, 0), (second, 1)]
            ]
            assert [{n: c for n, c in more["counts"].items() if c} for _, more in by_name[name]] == ended
        assert [more["endpoint"] for _, more in by_name["not_found_seen"]] == ["create", "retrieve", "results"]
        assert [more["batch_id"] for _, more in by_name["not_found_seen"]] == [None, first, first]
        assert all(more["request_id"] for _, more in by_name["not_found_seen"])
        assert by_name["job_finished"] == [
            ("finish_job", {"state": "completed", "summary": summary, "error": None}),
        ]
        wait_until(lambda: "a receiver that is broken" in world[0].log.read_text())

    def test_tell_of_a_job_that_failed(self, app: Celery, simulator: Simulator) -> None:
        simulator.faults(Fault("create", "status", status=403))
        result = run_batch.delay(requests("job", 20))
        with pytest.raises(errors.PermanentError):
            result.get(timeout=180)
        [(name, _, more)] = kept(app, TOLD)
        assert (name, more["state"]) == ("job_finished", "failed")
        assert "403" in more["error"]
