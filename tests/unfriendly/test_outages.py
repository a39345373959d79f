"""A store that does not answer at one single call, before or after it did what it was asked; a worker of this process.

Whatever the call: the job ends as it would have, and pays nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from kombu.exceptions import OperationalError

from claude_batch_tasks import BatchJob, api, run_batch, tasks
from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store.redis import RedisStore
from tests.unfriendly.conftest import KEY, make_app
from tests.unfriendly.server import Manners, UnfriendlyServer
from tests.unfriendly.tasks import params

pytestmark = [pytest.mark.workers, pytest.mark.timeout(120)]

#: Methods that steps call, and how often a job of this file calls each at least.
METHODS = {
    "job": 3,
    "keep": 1,
    "update_job": 2,
    "batches": 3,
    "batch": 4,
    "acquire": 5,
    "record": 5,
    "advance": 4,
    "grant": 1,
    "claim": 1,
    "settle": 1,
    "renew": 2,
    "bodies": 1,
    "params": 1,
    "write_results": 1,
    "publish": 1,
    "results": 1,
    "admit": 1,
    "eligible": 1,
    "message": 2,
    "save_outcome": 1,
    "outcomes": 1,
    "outcome": 1,
    "outcome_count": 1,
    "expire": 1,
    # These are about the account.
    "past": 3,
    "listed": 1,
    "held_back": 4,
    "note_end": 1,
}

CASES = [
    (method, nth, when)
    for method, calls in METHODS.items()
    for nth in range(1, calls + 1)
    for when in ("before", "after")
]


@pytest.fixture(scope="module")
def server() -> Iterator[UnfriendlyServer]:
    with UnfriendlyServer() as server:
        yield server


@pytest.fixture(scope="module")
def served(server: UnfriendlyServer, redis_server: Any) -> Iterator[Celery]:
    """An app with a worker of threads in this process."""
    patch = pytest.MonkeyPatch()
    patch.setenv("ANTHROPIC_BASE_URL", server.url)
    patch.setenv("ANTHROPIC_API_KEY", KEY)
    redis_server.client().flushall()
    app = make_app(
        redis_server.url,
        [f"outage{i}" for i in range(200)],
        claude_batch_poll_min=0.05,
        claude_batch_poll_max=0.1,
        claude_batch_retry_min=0.05,
        claude_batch_retry_max=0.2,
        claude_batch_create_settle=0.5,
        claude_batch_lease=0.5,
        worker_hijack_root_logger=False,
    )
    app.set_current()
    with start_worker(app, pool="threads", concurrency=8, perform_ping_check=False, shutdown_timeout=30):
        yield app
    app.close()
    patch.undo()


class Outage:
    """Fails one method's n-th call for one job id."""

    def __init__(self, method: str, nth: int, when: str) -> None:
        self.method, self.nth, self.when = method, nth, when
        self.job_id = self.account = ""
        self.seen = 0
        self.happened = False

    def due(self, args: tuple[Any, ...]) -> bool:
        ours = any(getattr(a, "job_id", a) == self.job_id for a in args[:2])
        if not ours and not (self.account and str(args[0]).startswith(self.account)):
            return False
        self.seen += 1
        if self.seen != self.nth:
            return False
        self.happened = True
        return True


@pytest.fixture(scope="module")
def outages(served: Celery) -> Iterator[list[Outage]]:
    """Every outage in force."""
    patch, active = pytest.MonkeyPatch(), list[Outage]()

    def failing(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        generator = name in ("bodies", "results", "outcomes")

        def call(self: RedisStore, *args: Any, **kwargs: Any) -> Any:
            hit = next((o for o in active if o.method == name and o.due(args)), None)
            if hit is None:
                return real(self, *args, **kwargs)
            if hit.when == "after" and not generator:
                real(self, *args, **kwargs)
            raise StoreUnavailable("the test's outage")

        return call

    for name in METHODS:
        patch.setattr(RedisStore, name, failing(name, getattr(RedisStore, name)))
    yield active
    patch.undo()


def first_expires(index: int, prompt: str) -> dict[str, Any]:
    return {"type": "expired"} if index < 2 else {"type": "succeeded"}


def test_one_call_of_the_store_fails(served: Celery, server: UnfriendlyServer, outages: list[Outage]) -> None:
    jobs = []
    for number, (method, nth, when) in enumerate(CASES):
        name = f"outage{number}"
        account = server.account(name)
        account.manners = Manners(looks=1, result=first_expires)
        outage = Outage(method, nth, when)
        requests = {f"id {i}": params(f"{name} {i}") for i in range(6)}
        task_id = f"{number:08}-{method}-{nth}-{when}"
        # Staging is the caller's; what fails there is raised to the caller.
        outage.job_id = "not yet"
        outages.append(outage)
        signature = run_batch.s(requests, client=name)
        outage.job_id = task_id if method == "keep" else "not yet"
        result = signature.apply_async(task_id=task_id, countdown=0.5)
        outage.job_id = task_id
        outage.account = api.account_name(api.client(name, Settings.of(served).client_factories))
        jobs.append((outage, account, result))
    wrong: dict[str, Any] = {}
    deadline = time.monotonic() + 45
    for _, account, result in jobs:
        try:
            summary = result.get(timeout=max(deadline - time.monotonic(), 0.5))
            rows = list(BatchJob(result.id, served).results())
            found = (
                len(rows),
                len({row.custom_id for row in rows}),
                summary["succeeded"] + summary["expired"],
                sum(row.type == "succeeded" for row in rows) == summary["succeeded"],
                max(account.paid.values()),
                account.calls["create"],
            )
            expected = (6, 6, 6, True, 1, 1)
            if found != expected:
                wrong[result.id] = found
        except Exception as exc:  # noqa: BLE001 - collected
            wrong[result.id] = f"{type(exc).__name__}: {exc}"
    assert wrong == {}
    assert sum(outage.happened for outage in outages) > len(CASES) * 0.9


def test_the_broker_refuses_a_message_of_the_fallback(
    served: Celery, server: UnfriendlyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the requests are out when the broker stops taking messages for a moment."""
    name = "outage199"
    account = server.account(name)
    account.manners = Manners(looks=0, result=lambda i, p: {"type": "expired"})
    calls = 0
    real = tasks.create_message.apply_async

    def publish(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OperationalError("the broker is gone for a moment")
        return real(*args, **kwargs)

    monkeypatch.setattr(tasks.create_message, "apply_async", publish)
    result = run_batch.delay({f"id {i}": params(f"{name} {i}") for i in range(6)}, client=name)
    assert result.get(timeout=20)["succeeded"] == 6
    assert set(account.paid.values()) == {1}


@pytest.mark.parametrize("step", ["create_batch", "poll_batch", "fetch_results", "fall_back", "finish_job"])
def test_the_broker_refuses_the_next_link(
    step: str, served: Celery, server: UnfriendlyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step is through, and the message of the next one is not taken: the job must not end there."""
    name = f"outage{190 + len(step) % 9}"
    account = server.account(name)
    account.manners = Manners(looks=0)
    task = served.tasks[f"claude_batch_tasks.{step}"]
    refused = 0
    real = task.apply_async

    def publish(*args: Any, **kwargs: Any) -> Any:
        nonlocal refused
        refused += 1
        if refused == 1:
            raise OperationalError("the broker is gone for a moment")
        return real(*args, **kwargs)

    monkeypatch.setattr(task, "apply_async", publish)
    result = run_batch.delay({f"id {i}": params(f"{name} {step} {i}") for i in range(3)}, client=name)
    assert result.get(timeout=15)["succeeded"] == 3
    assert refused > 1
    assert set(account.paid.values()) == {1}
