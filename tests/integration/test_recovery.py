"""Messages that the broker lost: the ledger knows of every one, so jobs go on without them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import Celery, chord
from click.testing import CliRunner

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.cli import claude_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.lifecycle import recovery, submission
from claude_batch_tasks.simulator import Behaviour, Fault, Outcome, Scenario, Simulator
from claude_batch_tasks.store.transfer import items
from claude_batch_tasks.tasks import recover_jobs
from tests.chaos.ledgers import Ledger
from tests.integration.rig import account_for, requests
from tests.support import wait_until

pytestmark = [pytest.mark.latest, pytest.mark.workers]

#: The workers' own watch, out of the way of tests that recover by hand.
NEVER = {"CLAUDE_BATCH_RECOVER_EVERY": "3600", "CLAUDE_BATCH_RECOVER_AFTER": "3600"}


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Database 0, for results and the store; the broker has one of its own here, which tests flush."""
    redis_server.client().flushall()
    return redis_server.url


@pytest.fixture
def broker_url(redis_server: RedisServer, environment: dict[str, str]) -> str:
    url = f"redis://127.0.0.1:{redis_server.port}/1"
    environment["CELERY_BROKER_URL"] = url
    return url


@pytest.fixture
def app(redis_url: str, broker_url: str, store_setting: dict[str, str]) -> Iterator[Celery]:
    app = Celery("tests", broker=broker_url, backend=redis_url, set_as_current=False)
    app.conf.update(store_setting)
    app.loader.import_task_module("claude_batch_tasks.tasks")
    app.set_current()
    yield app
    app.close()


def named(name: str) -> dict[str, dict[str, Any]]:
    return requests(name, 6)


def check(app: Celery, simulator: Simulator, job_id: str, name: str) -> None:
    """Each of the job's requests has its own answer, and nobody's was paid twice."""
    assert account_for(app, job_id, name, 6) == {"succeeded": 6}
    assert simulator.journal().paid_twice() == []


def assert_all_expires(ledger: Ledger) -> None:
    """Nothing stays in the store without limit."""
    assert [text for text in ledger.find_leftovers((), disturbed=True) if "never expire" in text] == []


def lose_everything(redis: RedisServer) -> None:
    redis.client(1).flushdb()


@pytest.mark.parametrize("endpoint", [None, "create", "retrieve", "results", "messages"])
def test_a_broker_that_was_flushed(
    endpoint: Any, app: Celery, start_worker: Callable[..., Worker], redis_server: RedisServer
) -> None:
    """The worker is killed in a call (or there is none yet), the broker forgets everything, a new worker finds out."""
    outcomes = (Outcome("expired", count=1),) if endpoint == "messages" else ()
    behaviour = Behaviour(processing_seconds=0.3, outcomes=outcomes)
    with Simulator(Scenario("test", behaviour=behaviour)) as simulator:
        limits = {"max_requests_per_batch": 4, "retries": 0}
        jobs = {
            "one": run_batch.delay(named("one"), **limits),
            "two": run_batch.delay(named("two"), **limits, max_batches_in_flight=1),
        }
        if endpoint:
            simulator.faults(Fault(endpoint, "delay", seconds=60.0))
            worker = start_worker(simulator.url, **NEVER)
            wait_until(lambda: simulator.journal().calls_to(endpoint) or simulator.state().faults[0].fired)
            worker.stop(kill=True)
            simulator.faults(replace=True)
        lose_everything(redis_server)
        start_worker(simulator.url)
        for name, result in jobs.items():
            summary = result.get(timeout=180)
            assert summary["state"] == "completed"
            if endpoint != "messages":  # there an answer that was on its way is lost, and not asked for again
                check(app, simulator, result.id, name)
        assert simulator.journal().paid_twice() == []


@pytest.mark.every_store
def test_what_follows_the_job_follows_it_still(
    app: Celery, start_worker: Callable[..., Worker], redis_server: RedisServer
) -> None:
    """Links, the rest of a chain and the body of a chord were in the messages that are lost; the ledger has them."""
    keep = app.signature("celery.accumulate")
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=2.0)
        worker = start_worker(simulator.url, **NEVER)
        header = [run_batch.s(named(name)) for name in ("a", "b")]
        tail = (run_batch.s(named("chained")) | keep.clone(("after",))).apply_async()
        body = chord(header)(keep.clone(("body",)))
        linked = run_batch.apply_async((named("linked"),), link=keep.clone().set(task_id="the-link"))
        wait_until(lambda: len(simulator.journal().calls_to("retrieve")) >= 4)
        worker.stop(kill=True)
        lose_everything(redis_server)
        start_worker(simulator.url)
        assert [part["state"] for part in body.get(timeout=180)[0]] == ["completed"] * 2
        assert tail.get(timeout=180)[0]["state"] == "completed"
        assert linked.get(timeout=180)["succeeded"] == 6
        assert app.AsyncResult("the-link").get(timeout=180)[0]["job_id"] == linked.id
        check(app, simulator, linked.id, "linked")


def test_a_purged_queue_by_the_command(
    app: Celery, start_worker: Callable[..., Worker], broker_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claude_batch_tasks.current_app.configured_app", lambda: app)
    with Simulator("healthy") as simulator:
        result = run_batch.delay(named("one"))
        later = run_batch.apply_async((named("two"),), countdown=3600)
        assert app.control.purge() == 2
        done = CliRunner().invoke(claude_batch, ["recover"])
        assert (done.exit_code, done.output) == (0, "1 message sent again\n"), "the other is not due"
        start_worker(simulator.url, **NEVER)
        assert result.get(timeout=180)["succeeded"] == 6
        check(app, simulator, result.id, "one")
        assert BatchJob(later.id, app).status().state == "staged"
        assert "0 messages" in CliRunner().invoke(claude_batch, ["recover", "--after", "30"]).output


@pytest.mark.parametrize("retries", [0, 2])
def test_at_any_time_and_from_many_places_at_once(
    retries: int, app: Celery, start_worker: Callable[..., Worker], redis_server: RedisServer, ledger: Ledger
) -> None:
    outcomes = (Outcome("expired", count=1),)
    with Simulator(
        Scenario("test", behaviour=Behaviour(processing_seconds=(0.2, 1.5), outcomes=outcomes))
    ) as simulator:
        simulator.faults(Fault("retrieve", "status", status=404, probability=0.3))
        worker = start_worker(simulator.url, **NEVER)
        options = {"max_requests_per_batch": 4, "retries": retries}
        jobs = {f"{n}": run_batch.delay(named(f"{n}"), **options) for n in range(6)}
        with ThreadPoolExecutor(4) as pool:
            while not all(result.ready() for result in jobs.values()):
                list(pool.map(lambda _: recovery.recover_messages(app), range(4)))
                recover_jobs.delay()
                time.sleep(0.1)
        for name, result in jobs.items():
            assert result.get(timeout=1)["fallback"] == 2
            check(app, simulator, result.id, name)
        assert simulator.journal().totals.batches_created == 12 * (1 + retries)
        # The copies die out, and nothing waits any more.
        wait_until(lambda: not redis_server.client(1).exists("celery", "unacked"))
        assert ledger.list_due() == []
        assert "Traceback" not in worker.log.read_text()


def test_a_queue_that_is_merely_long(app: Celery, start_worker: Callable[..., Worker], broker_url: str) -> None:
    """Copies are sent of messages that are only late: they are few, and end by themselves."""
    with Simulator("healthy") as simulator:
        jobs = {f"{n}": run_batch.delay(named(f"{n}")) for n in range(5)}
        deadline = time.monotonic() + 3
        sent = 0
        while time.monotonic() < deadline:
            sent += recovery.recover_messages(app, after=0.2)
            time.sleep(0.05)
        assert len(jobs) <= sent <= 4 * len(jobs)
        start_worker(simulator.url, **NEVER)
        for name, result in jobs.items():
            result.get(timeout=180)
            check(app, simulator, result.id, name)
        assert simulator.journal().totals.batches_created == 5


def test_what_was_never_sent_is_not_begun(app: Celery, ledger: Ledger) -> None:
    """Whoever called died between staging and sending, and never got an id: the requests expire."""
    job_id = "never-sent"
    submission.submit_job(app, job_id, named("one"), {})
    assert recovery.recover_messages(app) == 0
    [job] = [part for part in ledger.open().transfer.export_job(job_id) if isinstance(part, items.Job)]
    assert job.remaining is not None
    assert 0 < job.remaining <= 604_800
    assert_all_expires(ledger)


def test_a_job_that_is_not_due_yet_is_not_begun(app: Celery, start_worker: Callable[..., Worker]) -> None:
    """Its countdown is longer than what a message may carry here."""
    app.conf.broker_transport_options = {"visibility_timeout": 16}
    with Simulator("healthy") as simulator:
        start_worker(simulator.url, **NEVER)
        begun = time.time()
        result = run_batch.apply_async((named("later"),), countdown=8)
        assert recovery.recover_messages(app) == 0
        result.get(timeout=180)
        [created] = simulator.journal().calls_to("create")
        assert created.at - begun > 7.5


def test_a_revoked_job_is_left_alone(app: Celery, start_worker: Callable[..., Worker], ledger: Ledger) -> None:
    with Simulator("healthy") as simulator:
        start_worker(simulator.url)
        result = run_batch.apply_async((named("one"),), countdown=2)
        result.revoke()
        wait_until(lambda: BatchJob(result.id, app).status().state == "revoked")
        assert result.state == "REVOKED"
        assert recovery.recover_messages(app) == 0
        assert_all_expires(ledger)
        assert simulator.journal().totals.batches_created == 0
        # One that is under way is forgotten when its batches have ended.
        simulator.behave(processing_seconds=2.0)
        running = run_batch.delay(named("two"))
        wait_until(lambda: simulator.journal().calls_to("retrieve"))
        running.revoke()
        wait_until(lambda: running.state == "REVOKED")
        assert BatchJob(running.id, app).status().state == "revoked"
        assert recovery.recover_messages(app) == 0


def test_a_job_whose_ledger_is_gone_says_so(app: Celery, start_worker: Callable[..., Worker], ledger: Ledger) -> None:
    with Simulator("healthy") as simulator:
        simulator.behave(processing_seconds=60.0)
        start_worker(simulator.url)
        result = (run_batch.s(named("one")) | app.signature("celery.accumulate")).apply_async()
        wait_until(lambda: simulator.journal().calls_to("retrieve"))
        ledger.lose_job(result.parent.id)
        with pytest.raises(errors.JobNotFound, match="the store lost it"):
            result.parent.get(timeout=180)
        with pytest.raises(errors.JobNotFound):
            result.get(timeout=180)
        wait_until(lambda: not ledger.list_due())


def test_a_hard_time_limit_ends_an_attempt_and_not_the_job(app: Celery, start_here: Callable[..., Worker]) -> None:
    """Whoever waits for the job is told nothing of it."""
    with Simulator("healthy") as simulator:
        simulator.faults(
            Fault("retrieve", "delay", seconds=6, times=1), Fault("create", "delay", seconds=6, times=1, commit=True)
        )
        worker = start_here(simulator.url, options=("--concurrency=2", "--time-limit=3"))
        result = run_batch.delay(requests("job", 2))
        assert result.get(timeout=180)["succeeded"] == 2
        assert worker.log.read_text().count("the step is retried") == 2
        assert len(simulator.state().batches) == 1
        assert "are stopped after 3 s" in worker.log.read_text()
