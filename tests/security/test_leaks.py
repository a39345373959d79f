"""A run in which everything fails: the API key, and the prompts, are in nothing that anybody may see."""

from __future__ import annotations

import base64
import json
import pickle
import re
import socket
import threading
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from celery import Celery
from celery.states import READY_STATES

from claude_batch_tasks import BatchJob, api, run_batch
from claude_batch_tasks.api import clients
from claude_batch_tasks.embedded import RedisServer, Worker, free_port
from claude_batch_tasks.settings import Settings
from tests.factories import make_params
from tests.integration.rig import set_up
from tests.security.clients import FAILING
from tests.security.hostile import KEY, Hostile, error, head
from tests.security.test_sealing import A, B, make_app, values
from tests.support import FAST, inherited, wait_until

pytestmark = pytest.mark.workers

PROMPT, ID = "prompt-never-to-be-seen", "id-never-to-be-seen"
BATCH = {
    "id": "msgbatch_1",
    "processing_status": "ended",
    "created_at": "2026-11-22T12:00:00Z",
    "request_counts": {"succeeded": 3},
}


def answer(trap: str, request: str) -> bytes:
    """What the API says to a request of one of ``clients.FAILING``."""
    method, path, _ = request.split(" ", 2)
    name, _, rest = path[1:].partition("/")
    if name == "echo":
        first, body = error(401, f"invalid key {KEY}, and sk-ant-another-one")
    elif name == "missing":
        first, body = error(404, f"nothing here for {KEY}")
    elif name == "broken":
        first, body = error(500, f"<html>{KEY}</html>") if method == "POST" else (head(200), lambda: iter([b"{"]))
    elif name == "redirect":
        return head(307, Location=f"{trap}/v1/messages/batches")
    elif name == "rows" and "results" in rest:
        return head(200) + f'{{"custom_id": "x", "result": "{KEY}"}}\nnonsense {PROMPT}\n'.encode()
    elif name == "rows":
        return head(200) + json.dumps({**BATCH, "results_url": f"{trap}/results"}).encode()
    elif "batches" in rest:
        first, body = error(404, "no batches here")
    else:
        first, body = error(403, f"{KEY} may not")
    return first + b"".join(body())


class Seen(NamedTuple):
    """What the jobs left behind."""

    log: str
    wire: str
    """Every command that Redis got, the bodies of messages decoded."""
    redis: redis.Redis
    app: Celery
    ids: dict[str, str]
    failures: dict[str, Exception]
    sent: list[str]
    """The heads of the requests to the API."""
    trapped: list[str]


class Monitor:
    """Keeps every command that a Redis gets."""

    def __init__(self, server: RedisServer) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port))
        self._socket.sendall(b"MONITOR\r\n")
        self._parts: list[bytes] = []
        threading.Thread(target=self._keep, daemon=True).start()

    def _keep(self) -> None:
        while part := self._socket.recv(1 << 20):
            self._parts.append(part)

    def text(self) -> str:
        """All of them so far, the bodies of messages decoded."""
        said = b"".join(self._parts).decode()
        bodies = re.findall(r'\\"body\\": \\"([A-Za-z0-9+/=]+)', said)
        assert len(bodies) > 20
        return said + "\n".join(base64.b64decode(body).decode(errors="replace") for body in bodies)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("leaks")
    with ExitStack() as stack:
        server, hostile, trap = (stack.enter_context(each) for each in (RedisServer(), Hostile(), Hostile()))
        monitor = Monitor(server)
        hostile.head = lambda request: answer(trap.url, request)
        trap.head = lambda request: head(200)
        factories = {name: f"tests.security.clients.{name}" for name in (*FAILING, "too_open")}
        store = server.url.removesuffix("/0") + "/1"
        env = {
            **inherited(),
            **FAST,
            "CLAUDE_BATCH_MAX_FALLBACK_COST": "none",  # nobody knows what claude-x costs
            "CELERY_BROKER_URL": server.url,
            "CELERY_RESULT_BACKEND": server.url,
            "CLAUDE_BATCH_STORE_URL": store,
            "CLAUDE_BATCH_ENCRYPTION_KEY": A,
            "CLAUDE_BATCH_CLIENT_FACTORIES": json.dumps(factories),
            "CLAUDE_BATCH_RETRY_MAX": "0.3",
            "ANTHROPIC_API_KEY": KEY,
            "HOSTILE_URL": hostile.url,
            "NOBODYS_URL": f"http://127.0.0.1:{free_port()}",
        }
        options = ("--concurrency=4", "--loglevel=debug", "-E")
        log = folder / "worker.log"
        # What it does with its own tasks is the app's affair.
        config = set_up(folder / "config", task_serializer="pickle", accept_content=["json"])
        env["PYTHONPATH"] = str(Path(__file__).parents[2])
        stack.enter_context(Worker(env, log, options=options, cwd=config))
        app = make_app(server.url, A)
        app.conf.update(task_always_eager=False, claude_batch_store_url=store)
        app.conf.update(claude_batch_client_factories=factories, task_serializer="pickle")
        stack.callback(app.close)
        app.set_current()
        params = make_params(PROMPT, model="claude-x", max_tokens=9)
        ids = {}
        for name in factories:
            ids[name] = run_batch.delay(
                {f"{ID} {i}": params for i in range(3)},
                client=name,
                fallback="messages" if name == "fallback" else "off",
                create_not_found_limit=2,
                results_limit=2,
                # The others end by themselves, however busy the machine is.
                max_wait=3 if name in ("broken", "refused") else 60,
            ).id
        for job_id in ids.values():
            wait_until(lambda job_id=job_id: app.backend.get_state(job_id) in READY_STATES)  # type: ignore[misc]
        ended = {name: app.backend.get_result(job_id) for name, job_id in ids.items()}
        failures = {name: result for name, result in ended.items() if isinstance(result, Exception)}
        yield Seen(log.read_text(), monitor.text(), server.client(1), app, ids, failures, hostile.seen, trap.seen)


def test_the_api_had_the_key_and_every_job_failed_but_the_one_with_a_way_out(seen: Seen) -> None:
    assert all(KEY in request for request in seen.sent)
    assert {*FAILING, "too_open"} - {*seen.failures} == {"fallback"}
    assert {name: type(exc).__name__ for name, exc in seen.failures.items()} == {
        "echo": "PermanentError",
        "missing": "BatchesUnsupported",
        "broken": "WaitExceeded",
        "redirect": "PermanentError",
        "refused": "WaitExceeded",
        "rows": "ResultsMissing",
        "too_open": "PermanentError",
    }


def test_the_key_is_in_no_log_message_event_or_result(seen: Seen) -> None:
    assert "task-failed" in seen.wire or "task-succeeded" in seen.wire
    for text in (seen.log, seen.wire):
        assert KEY not in text
        assert "sk-ant-another-one" not in text
        assert A not in text
    for key, value in values(seen.redis):
        assert KEY.encode() not in value, key


def test_prompts_and_ids_are_in_no_log_message_event_or_result(seen: Seen) -> None:
    for secret in (PROMPT, ID):
        assert secret not in seen.log
        assert secret not in seen.wire
    for key, value in values(seen.redis):
        assert PROMPT.encode() not in value, key


def test_no_object_shows_the_key(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [repr(Settings.of(seen.app)), repr(seen.app)]
    for name, exc in seen.failures.items():
        shown += [repr(exc), str(exc), repr(exc.args), "".join(traceback.format_exception(exc))]
        shown.append(repr(pickle.dumps(exc)))
        job = BatchJob(seen.ids[name], seen.app)
        shown += [repr(job), repr(job.status()), repr(job.history())]
    for name, value in {"ANTHROPIC_API_KEY": KEY, "HOSTILE_URL": "http://h"}.items():
        monkeypatch.setenv(name, value)
    clients._client.cache_clear()
    shown.append(repr(api.get_client("echo", {"echo": "tests.security.clients.echo"})))
    for text in shown:
        assert KEY not in text
        assert A not in text
        assert PROMPT not in text


def test_the_other_host_heard_nothing(seen: Seen) -> None:
    assert any("/redirect/v1/messages/batches" in request for request in seen.sent)
    assert seen.trapped == []


def test_no_message_of_ours_is_pickled_whatever_the_app_does_with_its_own(seen: Seen) -> None:
    assert "application/json" in seen.wire
    assert "application/x-python-serialize" not in seen.wire


def test_a_worker_without_the_key_leaves_the_job_to_one_that_has_it(seen: Seen) -> None:
    other = make_app(str(seen.app.conf.broker_url), B)
    other.conf.update(task_always_eager=False, claude_batch_store_url=seen.app.conf.claude_batch_store_url)
    other.conf.update(claude_batch_client_factories=dict(seen.app.conf.claude_batch_client_factories))
    other.set_current()
    params = make_params(PROMPT, model="claude-x", max_tokens=9)
    sent = len(seen.sent)
    job = BatchJob(run_batch.delay({ID: params}, client="echo", max_wait=1).id, other)
    wait_until(lambda: job.status().state == "failed")
    assert "waited longer than max_wait" in str(job.status().error)
    assert "claude_batch_encryption_key has others here" in str(job.status().error)
    assert len(seen.sent) == sent
    assert len(list(job.requests())) == 1
    job.resume()
    assert job.status().state == "running"
    other.close()
