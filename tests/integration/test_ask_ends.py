"""An ask ends as a plain task does: by its own outcome, once, under its id, whatever follows it."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import ChordError, TaskRevokedError

from claude_batch_tasks import BatchJob, ask, errors
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.simulator import Outcome, Simulator
from claude_batch_tasks.store import open_store
from tests.factories import make_params
from tests.integration.rig import HEARD, ledger_of, name_servers
from tests.integration.test_delivery import stop_waiting
from tests.support import FAST, LendStore, inherited, wait_until

pytestmark = [pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(120)]

ASK = "claude_batch_tasks.ask"

#: Nobody waits long for a pool here.
SOON = {"ask_max_wait": 0.5}


def together(count: int) -> dict[str, Any]:
    """Return the options of so many asks that are to be one job, however long it takes to ask."""
    return {"ask_max_requests": count, "ask_max_wait": 60.0}


class World(NamedTuple):
    """A worker of the project in ``ending``, and a caller's app."""

    app: Celery
    simulator: Simulator


def make_env(redis: RedisServer, store_url: str, simulator: Simulator) -> dict[str, str]:
    urls = name_servers(redis.url, store_url)
    return {**inherited(), **FAST, **simulator.env, **urls, "ENDING_OUTAGE": "OperationalError::2"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, lend_store: LendStore) -> Iterator[World]:
    with RedisServer() as redis, lend_store(redis.url) as store_url, Simulator("healthy") as simulator:
        log = tmp_path_factory.mktemp("asks") / "worker.log"
        options = ("--concurrency=2", "-E")
        with Worker(make_env(redis, store_url, simulator), log, app="tests.integration.ending", options=options):
            app = Celery("asks", broker=redis.url, backend=redis.url, set_as_current=False)
            app.conf.claude_batch_store_url = store_url
            app.loader.import_task_module("claude_batch_tasks.tasks")
            yield World(app, simulator)
            stop_waiting(app)
            app.close()


@pytest.fixture
def world(shared: World) -> World:
    shared.app.set_current()
    shared.simulator.reset("healthy")
    shared.simulator.behave(processing_seconds=0.2)
    return shared


def heard(app: Any, task_id: str) -> Counter[str]:
    """How often each signal about a task was sent, and with which state."""
    entries = map(json.loads, app.backend.client.lrange(HEARD, 0, -1))
    return Counter(f"{name} {more}".strip() for name, _, about, _, _, more in entries if about == task_id)


def place_of(app: Any, task_id: str) -> Any:
    """Where an ask is."""
    return open_store(Settings.of(app)).asks.read_places([task_id])[0]


def ended(app: Any, job_id: str) -> int:
    """How many asks of a job have ended."""
    return int.from_bytes(open_store(Settings.of(app)).asks.read_ended(job_id), "big").bit_count()


def test_each_ends_by_its_own_outcome_as_soon_as_that_is_final(world: World) -> None:
    """Another one is sent again in the meantime, which takes long."""
    app, simulator = world
    simulator.behave(
        processing_seconds=600,
        outcomes=(
            Outcome("errored", error="invalid_request_error", message="no such tool", prompt="prompt 1 of"),
            Outcome("expired", prompt="prompt 2 of", attempts=1),
            Outcome("canceled", prompt="prompt 3 of"),
        ),
    )
    options = {"retries": 1, "fallback": "off", **together(8)}
    results = [ask.delay(make_params(f"prompt {n} of it"), **options) for n in range(8)]
    wait_until(lambda: simulator.journal(prompts=False).batches)
    simulator.end()
    assert results[0].get(timeout=60).text.rstrip(".") == "Echo: prompt 0 of it"
    job = results[0].job
    with pytest.raises(errors.RequestFailed, match="no such tool") as failed:
        results[1].get(timeout=60)
    assert (failed.value.job_id, failed.value.custom_id) == (job.job_id, results[1].id)
    assert (failed.value.outcome, failed.value.error_type) == ("errored", "invalid_request_error")
    with pytest.raises(errors.RequestFailed) as failed:
        results[3].get(timeout=60)
    assert failed.value.outcome == "canceled"
    for number in (4, 5, 6, 7):
        assert results[number].get(timeout=60).text.rstrip(".") == f"Echo: prompt {number} of it"
    assert not results[2].ready()
    assert job.status().state not in ("completed", "failed")
    wait_until(lambda: ended(app, job.job_id) == 7)
    wait_until(lambda: len(simulator.journal(prompts=False).batches) == 2)
    simulator.end()
    assert results[2].get(timeout=60).source == "resubmitted"
    wait_until(lambda: job.status().state == "completed")
    wait_until(lambda: ended(app, job.job_id) == 8)
    assert len(app.backend.get(app.backend.get_key_for_task(results[0].id))) < 1024


def test_what_follows_it_is_sent_once_and_gets_its_answer(world: World) -> None:
    """Chain, chord, link and errback; signals of each ask as of any task."""
    app, simulator = world
    simulator.behave(outcomes=(Outcome("errored", error="invalid_request_error", prompt="bad"),))
    follow, add = app.signature("ending.follow"), app.signature("ending.add", args=(5,))
    chained = chain(ask.s(make_params("one"), **SOON), add).delay()
    gathered = chord([ask.s(make_params(f"part {n}"), **SOON) for n in range(3)], follow).delay()
    linked = ask.apply_async((make_params("linked"),), SOON, link=app.signature("ending.plain"))
    failing = ask.apply_async((make_params("bad"),), SOON, link_error=app.signature("ending.told"))
    broken = chord([ask.s(make_params(text), **SOON) for text in ("good", "bad")], follow).delay()
    assert chained.get(timeout=60) == 5
    assert gathered.get(timeout=60) == "followed"
    assert linked.get(timeout=60).complete
    [child] = linked.children
    assert child.get(timeout=60) == {"state": "completed"}
    with pytest.raises(errors.RequestFailed):
        failing.get(timeout=60)
    with pytest.raises((ChordError, errors.RequestFailed)):
        broken.get(timeout=60)
    wait_until(lambda: heard(app, failing.id)["postrun FAILURE"])
    assert heard(app, linked.id) == {"prerun": 1, "success": 1, "postrun SUCCESS": 1}
    assert heard(app, failing.id) == {"prerun": 1, "failure RequestFailed": 1, "postrun FAILURE": 1}


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_none_twice_and_leaves_none(
    app: Any, redis_server: RedisServer, store_url: str, simulator: Simulator, tmp_path: Path
) -> None:
    """Each has a task that follows it, so that ending takes long enough to be killed in the middle."""
    simulator.behave(processing_seconds=0.2)

    def start() -> Worker:
        env = make_env(redis_server, store_url, simulator)
        worker = Worker(env, tmp_path / "worker.log", app="tests.integration.ending")
        worker.start()
        return worker

    worker = start()
    follow, count = app.signature("ending.follow"), 120
    results = [ask.apply_async((make_params(f"prompt {n}"),), together(count), link=follow) for n in range(count)]
    job_id = results[0].job.job_id
    for _ in range(2):
        before = ended(app, job_id)
        wait_until(lambda before=before: ended(app, job_id) > min(before + 10, count - 1))
        os.killpg(worker.pid, signal.SIGKILL)
        worker = start()
    for number, result in enumerate(results):
        assert result.get(timeout=90).text.rstrip(".") == f"Echo: prompt {number}"
    wait_until(lambda: ended(app, job_id) == count)
    assert BatchJob(job_id, app).status().requests == count
    # The ask at which a worker was killed may have been in the middle.
    often = [heard(app, result.id)["prerun"] for result in results]
    assert min(often) >= 1
    assert sum(often) <= count + 3
    # A message that the killed worker had taken comes back after an hour; so this asks what was sent.
    assert all(len(result.children) == 1 for result in results)
    worker.stop(kill=True)


def test_revoked_before_it_is_sent(world: World) -> None:
    """By its result, by the workers, and by its own expiry; a chord of which it is a part fails."""
    app, simulator = world
    late = {"ask_max_wait": 3.0, "pool": "revoked"}
    kept = ask.delay(make_params("kept"), **late)
    by_result = ask.delay(make_params("revoked"), **late)
    by_workers = ask.delay(make_params("also revoked"), **late)
    stamped = ask.s(make_params("revoked by its stamp"), **late)
    stamped.stamp(mark="revoked")
    by_stamp = stamped.delay()
    too_late = ask.apply_async((make_params("expires"),), late, expires=0.5)
    parts = group(ask.s(make_params(f"part {n}"), **late) for n in range(2))
    gathered = chord(parts.tasks, app.signature("ending.follow")).delay()
    assert by_result.cancel()
    app.control.revoke(by_workers.id)
    app.control.revoke_by_stamped_headers({"mark": ["revoked"]})
    app.control.revoke(gathered.parent.children[0].id)
    for result in (by_result, by_workers, by_stamp, too_late):
        with pytest.raises(TaskRevokedError):
            result.get(timeout=60)
        wait_until(lambda result=result: place_of(app, result.id).state == "revoked")
    wait_until(lambda: app.backend.get_state(gathered.id) == "FAILURE")
    assert kept.get(timeout=60).complete
    sent = [request.prompt for call in simulator.journal().calls for request in getattr(call, "requests", ())]
    assert not any("revoked" in text or "expires" in text for text in sent)
    assert kept.job.status().requests == 2
    assert not kept.cancel()


def test_revoked_too_late(world: World) -> None:
    """It is paid for, and ends with its answer."""
    app, simulator = world
    simulator.behave(processing_seconds=3)
    result = ask.delay(make_params("too late"), **SOON)
    wait_until(lambda: simulator.journal(prompts=False).batches)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask.AsyncResult(result.id).get, 60)
        assert app.control.revoke(result.id, reply=True, timeout=30, limit=1)
        assert result.state == "PROGRESS"
        wait_until(lambda: app.backend.get_state(result.id) == "PENDING")
        assert waiting.result().complete
    wait_until(lambda: place_of(app, result.id).state == "succeeded")
    assert ask.AsyncResult(result.id).get(timeout=60).complete


def test_terminated_while_it_is_in_a_batch(world: World) -> None:
    """It ends at once, and nothing follows it; its pool-mates get their answers."""
    app, simulator = world
    simulator.behave(processing_seconds=6)
    ended_one = chain(ask.s(make_params("terminated"), **together(2)), app.signature("ending.follow")).delay()
    kept = ask.delay(make_params("kept"), **together(2))
    wait_until(lambda: simulator.journal(prompts=False).batches)
    result = ended_one.parent
    result.revoke(terminate=True)
    wait_until(lambda: result.state == "REVOKED")
    assert kept.state == "PROGRESS"
    with pytest.raises(TaskRevokedError):
        result.get(timeout=60)
    assert kept.get(timeout=60).complete
    job = kept.job
    wait_until(lambda: job.status().state == "completed")
    assert ended(app, job.job_id) == 2
    assert place_of(app, result.id).state == app.backend.get_state(result.id).lower() == "revoked"
    assert app.backend.get_state(ended_one.id) != "SUCCESS"
    assert heard(app, result.id)["revoked"] == 1
    assert heard(app, result.id)["prerun"] == 0


def test_an_ask_whose_place_the_store_has_lost_ends_all_the_same(world: World) -> None:
    app, simulator = world
    simulator.behave(processing_seconds=600)
    results = [ask.delay(make_params(f"prompt {n}"), **SOON) for n in range(2)]
    wait_until(lambda: simulator.journal(prompts=False).batches)
    job = results[0].job
    ledger_of(app).forget_ask(results[0].id)
    simulator.end()
    assert [ask.AsyncResult(result.id).get(timeout=60).complete for result in results] == [True] * 2
    wait_until(lambda: ended(app, job.job_id) == 2)
    assert place_of(app, results[0].id).state == "succeeded"


def test_asks_of_a_job_that_fails_end_and_end_once_more_when_it_is_resumed(world: World) -> None:
    app, simulator = world
    simulator.behave(processing_seconds=6)
    results = [ask.delay(make_params(f"prompt {n}"), max_wait=2, **together(3)) for n in range(3)]
    for result in results:
        with pytest.raises(errors.RequestFailed, match="max_wait") as failed:
            result.get(timeout=60)
        assert failed.value.outcome is None
    job = results[0].job
    wait_until(lambda: job.status().state == "failed")
    job.resume(max_wait=600)
    wait_until(lambda: all(place_of(app, result.id).state == "succeeded" for result in results))
    assert [ask.AsyncResult(result.id).get(timeout=60).complete for result in results] == [True] * 3


def test_asks_of_a_canceled_job_end(world: World) -> None:
    _, simulator = world
    simulator.behave(processing_seconds=600, cancel_seconds=0.2)
    results = [ask.delay(make_params(f"prompt {n}"), **together(3)) for n in range(3)]
    job = results[0].job
    wait_until(lambda: simulator.journal(prompts=False).batches)
    job.cancel()
    for result in results:
        with pytest.raises(errors.RequestFailed) as failed:
            result.get(timeout=60)
        assert failed.value.outcome == "canceled"


def test_events_tell_of_each_ask_if_the_worker_sends_events(world: World) -> None:
    app, simulator = world
    simulator.behave(outcomes=(Outcome("errored", error="invalid_request_error", prompt="bad"),))
    told: dict[str, list[str]] = {}
    over = threading.Event()

    def receive() -> None:
        with app.connection_for_read() as connection:
            state = app.events.State()

            def note(event: dict[str, Any]) -> None:
                state.event(event)
                if event.get("name") == ASK:
                    told[event["uuid"]] = [state.tasks[event["uuid"]].name, state.tasks[event["uuid"]].state]

            receiver = app.events.Receiver(connection, handlers={"*": note})
            while not over.is_set():
                try:
                    receiver.capture(limit=None, timeout=0.5, wakeup=False)
                except (TimeoutError, OSError):
                    continue

    listening = threading.Thread(target=receive, daemon=True)
    listening.start()
    good, bad = (ask.delay(make_params(text), **SOON) for text in ("good", "bad"))
    try:
        wait_until(lambda: told.get(good.id) == [ASK, "SUCCESS"])
        wait_until(lambda: told.get(bad.id) == [ASK, "FAILURE"])
    finally:
        over.set()
        listening.join(5)


def test_an_outage_of_the_broker_makes_no_failure_of_an_answer(world: World) -> None:
    """What follows is sent when it can be; what can never be sent is why the ask fails."""
    app, _ = world
    app.backend.client.delete("ending:tries")
    late = chain(ask.s(make_params("late"), **SOON), app.signature("ending.last")).delay()
    never = ask.apply_async((make_params("never"),), SOON, link=app.signature("ending.add"))
    assert late.get(timeout=60) == "last"
    assert late.parent.get(timeout=60).complete
    with pytest.raises(TypeError, match="has its answer"):
        never.get(timeout=60)
    assert int(app.backend.client.get("ending:tries")) == 3


def test_answers_of_the_messages_api_end_asks_one_by_one(world: World) -> None:
    app, simulator = world
    simulator.behave(outcomes=(Outcome("errored", error="invalid_request_error", prompt="bad", via="messages"),))
    results = [ask.delay(make_params(text), ask_mode="messages", **together(3)) for text in ("good", "bad", "fine")]
    assert [results[n].get(timeout=60).source for n in (0, 2)] == ["messages", "messages"]
    with pytest.raises(errors.RequestFailed) as failed:
        results[1].get(timeout=60)
    assert failed.value.error_type == "invalid_request_error"
    job = results[0].job
    wait_until(lambda: job.status().state == "completed")
    wait_until(lambda: ended(app, job.job_id) == 3)
    assert not simulator.journal(prompts=False).batches


def test_what_an_ask_reserves_of_a_limit_becomes_what_it_cost(world: World) -> None:
    app, _ = world
    window, store = 86_400.0, open_store(Settings.of(app))
    options = {"ask_max_cost": 5.0, "ask_cost_window": window, "pool": "priced", **together(4)}
    results = [ask.delay(make_params(f"prompt {n}", max_tokens=1000), **options) for n in range(4)]
    reserved = store.asks.read_cost("priced", window)
    results[0].get(timeout=60)
    job = results[0].job
    wait_until(lambda: job.status().state == "completed")
    cost = sum(attempt.cost for result in results for attempt in result.get(timeout=60).attempts)
    assert 0 < cost < reserved / 1e9
    assert store.asks.read_cost("priced", window) == pytest.approx(cost * 1e9, abs=4)


def test_asks_of_a_job_that_is_revoked_end(world: World) -> None:
    app, simulator = world
    simulator.behave(processing_seconds=600)
    result = ask.delay(make_params("revoked with its job"), **SOON)
    wait_until(lambda: simulator.journal(prompts=False).batches)
    app.control.revoke(result.job.job_id)
    with pytest.raises(errors.RequestFailed, match="its job was revoked"):
        result.get(timeout=60)
    wait_until(lambda: ended(app, result.job.job_id) == 1)
