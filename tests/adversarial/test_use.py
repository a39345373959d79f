"""The ways an application hands over a job, in front of the same unfriendly API."""

from __future__ import annotations

import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.embedded import Worker
from tests.adversarial.conftest import SECRET, World, environment, make_app
from tests.adversarial.server import Answer, Manners, html, prompt_of, refusal
from tests.adversarial.tasks import make_requests, note, params, states
from tests.support import wait_until

pytestmark = [pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(400)]

Spare = Callable[[], str]


@pytest.fixture(autouse=True)
def _current(world: World) -> None:
    """The shared app is the current one."""
    world.app.set_current()


def prompts(name: str, count: int = 5) -> dict[str, dict[str, Any]]:
    return {f"id {i}": params(f"{SECRET} {name} {i}") for i in range(count)}


def noted(world: World, key: str) -> list[bytes]:
    return world.redis.client().lrange(f"noted:{key}", 0, -1)  # type: ignore[return-value]


def test_any_iterable_and_any_custom_id(world: World, spare: Spare) -> None:
    ids = [
        "a" * 512,
        "😀" * 512,
        "\u0000",
        "\u2028\u0085",
        "é",
        unicodedata.normalize("NFD", "é"),
        '"\\',
        "../..",
        " ",
        "\n",
        "cbt-1-1",
    ]
    requests = [{"custom_id": i, "params": params(f"prompt {n} é\u2028")} for n, i in enumerate(ids)]
    forms: list[Any] = [requests, tuple(requests), iter(requests), {r["custom_id"]: r["params"] for r in requests}]
    jobs = [(name := spare(), run_batch.delay(form, client=name)) for form in forms]
    for name, result in jobs:
        assert result.get(timeout=180)["succeeded"] == len(ids)
        job = BatchJob(result.id, world.app)
        texts = {row.custom_id: row.text for row in job.results()}
        assert texts == {i: f"Echo: prompt {n} é\u2028" for n, i in enumerate(ids)}
        assert [job.result(i).text for i in ids] == [texts[i] for i in ids]
        assert list(job.requests()) == requests
        assert set(world.server.account(name).paid.values()) == {1}


def test_what_is_wrong_is_said_at_once(world: World, spare: Spare) -> None:
    name = spare()
    keys = set(world.redis.client().scan_iter("claude_batch:*"))
    with pytest.raises(errors.InvalidSettings, match="client 'nobody'"):
        run_batch.delay(prompts(name), client="nobody")
    with pytest.raises(errors.InvalidSettings, match="did you mean poll_max"):
        run_batch.delay(prompts(name), client=name, pol_max=3)
    with pytest.raises(errors.InvalidRequests) as caught:
        run_batch.delay([{"custom_id": "a", "params": {}}] * 30, client=name)
    assert len(caught.value.problems) == 20
    assert world.server.account(name).calls == Counter()
    assert not {k for k in set(world.redis.client().scan_iter("claude_batch:*")) - keys if name.encode() in k}


def test_in_a_chain_before_and_after(world: World, spare: Spare) -> None:
    name, key = spare(), "chain"
    result = chain(
        make_requests.s(name, 9), run_batch.s(client=name, max_requests_per_batch=4), note.s(key), note.s(key)
    ).delay()
    summary = result.get(timeout=180)
    assert (summary["succeeded"], len(summary["batch_ids"])) == (9, 3)
    assert len(noted(world, key)) == 2
    assert set(world.server.account(name).paid.values()) == {1}
    assert result.parent.parent.get(timeout=1) == summary
    assert BatchJob(result.parent.parent.id, world.app).status().state == "completed"


def test_a_chain_stops_where_its_job_fails(world: World, spare: Spare) -> None:
    name, key = spare(), "broken chain"
    world.server.account(name).manners = Manners(forever={"create": refusal(400, "invalid_request_error", "no")})
    result = chain(run_batch.s(prompts(name), client=name), note.s(key)).apply_async(link_error=note.s(f"{key} error"))
    with pytest.raises(errors.PermanentError, match="400"):
        result.parent.get(timeout=180)
    with pytest.raises(errors.PermanentError, match="400"):
        result.get(timeout=180)
    wait_until(lambda: noted(world, f"{key} error"))
    assert noted(world, key) == []


def test_in_a_group_and_as_a_chord_header(world: World, spare: Spare) -> None:
    names = [spare() for _ in range(5)]
    in_group = group(run_batch.s(prompts(n), client=n, max_requests_per_batch=2) for n in names[:2]).delay()
    in_chord = chord(
        [run_batch.s(prompts(n), client=n, max_requests_per_batch=2) for n in names[2:]], states.s()
    ).delay()
    assert in_chord.get(timeout=180) == ["completed"] * 3
    assert [summary["succeeded"] for summary in in_group.get(timeout=180)] == [5, 5]
    for name in names:
        assert set(world.server.account(name).paid.values()) == {1}


def test_callbacks_fire_once(world: World, spare: Spare) -> None:
    name, bad = spare(), spare()
    world.server.account(bad).manners = Manners(forever={"create": refusal(400, "invalid_request_error", "no")})
    good = run_batch.apply_async(
        (prompts(name, 9),),
        {"client": name, "max_requests_per_batch": 3},
        link=note.s("linked"),
        link_error=note.s("not linked"),
    )
    failed = run_batch.apply_async(
        (prompts(bad, 9),),
        {"client": bad, "max_requests_per_batch": 3},
        link=note.s("not linked"),
        link_error=note.s("failed"),
    )
    good.get(timeout=180)
    with pytest.raises(errors.PermanentError):
        failed.get(timeout=180)
    wait_until(lambda: noted(world, "linked") and noted(world, "failed"))
    # Whatever else had been sent would have run before this.
    note.delay(0, "flush").get(timeout=180)
    assert len(noted(world, "linked")) == 1
    assert len(noted(world, "failed")) == 1
    assert noted(world, "not linked") == []


def test_countdown_and_revoke_before_the_start(world: World, spare: Spare) -> None:
    name, never = spare(), spare()
    began = time.time()
    later = run_batch.apply_async((prompts(name),), {"client": name}, countdown=1.5)
    revoked = run_batch.apply_async((prompts(never),), {"client": never}, countdown=2)
    revoked.revoke()
    summary = later.get(timeout=180)
    assert BatchJob(later.id, world.app).status().started_at.timestamp() - began >= 1.4  # type: ignore[union-attr]
    assert summary["succeeded"] == 5
    wait_until(lambda: revoked.state == "REVOKED")
    assert world.server.account(never).calls == Counter()


def test_progress_holds_counts_and_no_prompt(world: World, spare: Spare) -> None:
    name, gate = spare(), threading.Event()
    world.server.account(name).manners = Manners(looks=3, script={"retrieve": [None, None, Answer(429, hold=gate)]})
    result = run_batch.delay(prompts(name), client=name)
    wait_until(lambda: world.server.account(name).held)
    info, state = result.info, result.state
    gate.set()
    assert state == "PROGRESS"
    assert (info["requests"], info["processing"], info["polls"]) == (5, 5, 2)
    assert SECRET not in repr(info)
    assert result.get(timeout=180)["succeeded"] == 5


def test_cancel_while_it_runs_keeps_nothing_running(world: World, spare: Spare) -> None:
    name = spare()
    account = world.server.account(name)
    account.manners = Manners(looks=10**6)
    result = run_batch.delay(prompts(name), client=name)
    wait_until(lambda: account.calls["retrieve"])
    BatchJob(result.id, world.app).cancel()
    summary = result.get(timeout=180)
    assert (summary["state"], summary["canceled"]) == ("canceled", 5)
    BatchJob(result.id, world.app).cancel()
    assert {row.type for row in BatchJob(result.id, world.app).results()} == {"canceled"}


def test_cancel_never_reaches_a_strangers_batch(world: World, spare: Spare) -> None:
    """A batch that was only found by search may be another application's: its work must not be canceled."""
    name = spare()
    account = world.server.account(name)
    account.manners = Manners(script={"create": [Answer(500)]})
    stranger = account.add_foreign(5, age=3, looks=6)
    result = run_batch.delay(prompts(name), client=name)
    wait_until(lambda: stranger.looks)
    BatchJob(result.id, world.app).cancel()
    result.get(timeout=180)
    assert stranger.id not in account.canceled


def test_a_strangers_batch_that_never_ends_does_not_keep_a_job_from_its_own(world: World, spare: Spare) -> None:
    """The search took the likelier one; when another that it could be has ended, its first rows tell."""
    name = spare()
    account = world.server.account(name)
    # The first listing does not show ours yet, which has ended by the next.
    account.manners = Manners(script={"create": [Answer(500, acts=True)]}, looks=-1, lag=1)
    account.add_foreign(5, age=1, looks=10**6)
    for _ in range(3):
        account.add_foreign(5, age=2, looks=-1)
    result = run_batch.delay(prompts(name), client=name)
    assert result.get(timeout=180)["succeeded"] == 5
    assert account.calls["create"] == 1
    assert max(account.paid.values()) == 1


def test_cancel_during_the_fallback_waits_for_what_was_sent(world: World, spare: Spare) -> None:
    """What is already on its way through the Messages API is paid: the summary must count what a reader sees."""
    name, gate = spare(), threading.Event()
    account = world.server.account(name)
    account.manners = Manners(
        result=lambda i, prompt: {"type": "expired"},
        script={"messages": [Answer(200, b'{"type":"message","content":[]}', hold=gate)] * 2},
    )
    result = run_batch.delay(prompts(name), client=name, retries=0)
    job = BatchJob(result.id, world.app)
    wait_until(lambda: account.held)
    job.cancel()
    threading.Timer(2.0, gate.set).start()
    summary = result.get(timeout=180)
    gate.set()
    wait_until(lambda: world.redis.client().llen("celery") == 0)
    note.delay(0, "flush").get(timeout=180)
    rows = Counter(row.type for row in job.results())
    assert summary["succeeded"] >= len(account.held)
    assert rows == {n: summary[n] for n in ("succeeded", "expired") if summary[n]}


def test_the_error_names_all_it_should_and_survives_json(world: World, spare: Spare) -> None:
    name = spare()
    account = world.server.account(name)
    account.manners = Manners(
        forever={"retrieve": refusal(403, "permission_error", "not yours", request_id="req_42")}, looks=0
    )
    result = run_batch.delay(prompts(name), client=name)
    with pytest.raises(errors.PermanentError) as caught:
        result.get(timeout=180)
    error = caught.value
    assert (error.status, error.error_type, error.request_id) == (403, "permission_error", "req_42")
    assert result.state == "FAILURE"
    assert type(result.result) is errors.PermanentError
    status = BatchJob(result.id, world.app).status()
    assert status.state == "failed"
    assert status.error == str(error)


def test_one_call_per_look(world: World, spare: Spare) -> None:
    name = spare()
    account = world.server.account(name)
    account.manners = Manners(looks=4, script={"retrieve": [None, html(503), None]})
    result = run_batch.delay(prompts(name), client=name)
    result.get(timeout=180)
    assert account.calls == {"create": 1, "retrieve": 6, "results": 1}
    assert BatchJob(result.id, world.app).status().polls == 5


def test_all_batches_of_a_job_fail_at_once(world: World, spare: Spare) -> None:
    """Each batch's chain ends in its own copy of finish_job; none may leave another state over the job's end."""
    names = [spare() for _ in range(12)]
    for name in names:
        world.server.account(name).manners = Manners(forever={"create": refusal(400, "invalid_request_error", "no")})
    jobs = [
        run_batch.apply_async(
            (prompts(name, 8),),
            {"client": name, "max_requests_per_batch": 1},
            link_error=note.s("all at once"),
        )
        for name in names
    ]
    for result in jobs:
        with pytest.raises(errors.PermanentError):
            result.get(timeout=180)
    wait_until(lambda: len(noted(world, "all at once")) >= len(jobs))
    wait_until(lambda: world.redis.client().hlen("unacked") == 0 and world.redis.client().llen("celery") == 0)
    assert {world.app.AsyncResult(result.id).state for result in jobs} == {"FAILURE"}
    assert len(noted(world, "all at once")) == len(jobs)


def test_a_key_with_a_newline_is_not_told_to_anybody(world: World, tmp_path: Path, redis_url: str) -> None:
    """A key read from a file ends in a newline; the HTTP library quotes the whole header in its error."""
    secret = "sk-ant-from-a-file"
    env = environment(redis_url, world.server.url, ["newline"], ANTHROPIC_API_KEY=f"{secret}\n")
    app = make_app(redis_url, ["newline"])
    app.set_current()
    with Worker(env, tmp_path / "worker.log") as worker:
        result = run_batch.delay(prompts("newline"), client="newline", max_wait=3)
        with pytest.raises(errors.BatchTasksError) as caught:
            result.get(timeout=180)
        assert secret not in str(caught.value)
        assert secret not in worker.log.read_text()
    app.close()


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_other_pools(pool: str, world: World, tmp_path: Path, redis_url: str) -> None:
    if pool == "gevent":
        pytest.importorskip("gevent")
    name = f"pool_{pool}"
    account = world.server.account(name)
    account.manners = Manners(
        result=lambda i, p: {"type": "expired"} if i == 0 else {"type": "succeeded"},
        script={"retrieve": [Answer(404)], "create": [Answer(429)]},
    )
    app = make_app(redis_url, [name])
    app.set_current()
    env = environment(redis_url, world.server.url, [name])
    with Worker(env, tmp_path / "worker.log", options=(f"--pool={pool}", "--concurrency=4")) as worker:
        results = [run_batch.delay(prompts(f"{name} {j}"), client=name, retries=j) for j in range(3)]
        for j, result in enumerate(results):
            summary = result.get(timeout=180)
            assert (summary["succeeded"], summary["fallback"], len(summary["batch_ids"])) == (5, 1, 1 + j)
        assert "Traceback" not in worker.log.read_text()
    assert set(account.paid.values()) == {1}
    assert account.sdk_retries == 0
    app.close()


@pytest.fixture
def eager(world: World, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = "eager"
    monkeypatch.setenv("ANTHROPIC_BASE_URL", world.server.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-eager")
    app = make_app(
        redis_url,
        [name],
        task_always_eager=True,
        claude_batch_poll_min=0.1,
        claude_batch_poll_max=0.3,
        claude_batch_retry_min=0.1,
        claude_batch_retry_max=0.3,
        claude_batch_create_settle=0.5,
    )
    app.set_current()
    yield name
    app.close()


def test_eager_waits_instead_of_spinning(world: World, eager: str) -> None:
    account = world.server.account(eager)
    account.manners = Manners(
        looks=3,
        result=lambda i, p: {"type": "expired"} if i == 0 else {"type": "succeeded"},
        script={"create": [Answer(404), Answer(500, acts=True)], "results": [Answer(404)], "messages": [Answer(429)]},
    )
    before = time.monotonic()
    # The model has no price, and by default a limit holds.
    unlimited = {"client": eager, "max_fallback_cost": None}
    result = run_batch.delay(prompts(eager), retries=0, **unlimited)
    assert time.monotonic() - before > 0.3
    summary = result.get()
    assert (summary["succeeded"], summary["fallback"]) == (5, 1)
    assert account.calls["retrieve"] == 4
    assert account.calls["list"] == 4  # one finds it, and one at each look until the results confirm it
    assert set(account.paid.values()) == {1}
    account.manners = replace(account.manners, script={})
    summary = run_batch.delay(prompts(f"{eager} again"), max_requests_per_batch=3, retries=2, **unlimited).get()
    assert (summary["succeeded"], summary["fallback"], len(summary["batch_ids"])) == (5, 2, 6)
    assert set(account.paid.values()) == {1}
    account.manners = Manners(forever={"create": refusal(400, "invalid_request_error", "no")})
    with pytest.raises(errors.PermanentError, match="400"):
        run_batch.delay(prompts("again"), client=eager).get()


def test_prompt_of_reads_blocks() -> None:
    assert prompt_of({"messages": [{"content": [{"type": "text", "text": "a"}, {"text": "b"}]}]}) == "ab"
