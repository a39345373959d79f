"""A store that does not answer at one single call, before or after it did what it was asked; a worker of this process.

Whatever the call: the job ends as it would have, and pays nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, shared_task
from celery.contrib.testing.worker import start_worker
from kombu.exceptions import OperationalError

from claude_batch_tasks import BatchJob, api, run_batch, tasks
from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import open_store
from tests.adversarial.conftest import KEY, make_app
from tests.adversarial.server import NO_KEY, Manners, UnfriendlyServer, refusal
from tests.adversarial.tasks import params

pytestmark = [pytest.mark.workers, pytest.mark.timeout(400)]

#: Methods that steps call, and how often a job of this file calls each at least.
METHODS = {
    "jobs.read_job": 4,
    "jobs.persist_job": 1,
    "jobs.update_job": 2,
    "records.read_batches": 3,
    "records.read_batch": 6,
    "leases.acquire_lease": 8,
    "leases.write_record": 12,
    "leases.advance_unit": 8,
    "schedule.add_units": 2,
    "budget.reserve_quota": 1,
    "batch_ids.claim_id": 2,
    "jobs.set_once": 1,
    "leases.renew_lease": 2,
    "payloads.read_bodies": 3,
    "payloads.read_custom_ids": 2,
    "results.write_rows": 2,
    "results.publish_rows": 2,
    "results.read_rows": 2,
    "schedule.start_next_batch": 1,
    "results.read_eligible": 4,
    "budget.reserve_cost": 2,
    "budget.record_cost": 2,
    "message_queue.add_requests": 1,
    "records.read_sender": 2,
    "message_queue.list_abandoned": 2,
    "message_queue.list_due": 3,
    "payloads.find_chunk": 1,
    "message_queue.take_request": 3,
    "message_queue.renew_calls": 1,
    "message_queue.count_refusals": 1,
    "message_queue.put_back": 1,
    "message_queue.save_outcome": 2,
    "message_queue.record_answer": 3,
    "message_queue.count_unfinished": 3,
    "schedule.wake_units": 1,
    "results.read_outcomes": 2,
    "results.read_announced": 2,
    "results.mark_announced": 1,
    "message_queue.drop_waiting": 1,
    "jobs.expire_job": 1,
    # These are about the account.
    "in_flight.past_durations": 4,
    "in_flight.find_listed": 1,
    "in_flight.paused_until": 6,
    "in_flight.add_duration": 2,
    # And this a courtesy.
    "history.append_event": 4,
}

#: Requests that may keep their outcome when this fails: nobody knows any more whether it was sent, or was refused.
#: What is dropped is what a stopped job would have sent next.
LOSES = {
    ("message_queue.take_request", "after"): 1,
    ("message_queue.count_refusals", "before"): 1,
    ("message_queue.count_refusals", "after"): 1,
    ("message_queue.put_back", "before"): 1,
    ("message_queue.drop_waiting", "before"): 2,
    ("message_queue.drop_waiting", "after"): 2,
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
        [f"outage{i}" for i in range(400)],
        claude_batch_poll_min=0.05,
        claude_batch_poll_max=0.1,
        claude_batch_retry_min=0.05,
        claude_batch_retry_max=0.2,
        claude_batch_create_settle=0.5,
        claude_batch_lease=0.5,
        claude_batch_prices={"claude-x": {"input_mtok": 1, "output_mtok": 5}},
        worker_hijack_root_logger=False,
    )
    app.set_current()
    with start_worker(app, pool="threads", concurrency=8, perform_ping_check=False, shutdown_timeout=30):
        yield app
    app.close()
    patch.undo()


class Outage:
    """Fails one method's n-th call for one job id, and some after it."""

    def __init__(self, method: str, nth: int, when: str, calls: int = 1) -> None:
        self.method, self.failing, self.when = method, range(nth, nth + calls), when
        self.job_id = self.account = ""
        self.seen = 0
        self.happened = False

    def due(self, args: tuple[Any, ...]) -> bool:
        named = (part for arg in args[:2] for part in (arg if isinstance(arg, list) else [arg]))
        ours = any(getattr(part, "job_id", part) == self.job_id for part in named)
        if not ours and not (self.account and str(args[0]).startswith(self.account)):
            return False
        self.seen += 1
        if self.seen not in self.failing:
            return False
        self.happened = True
        return True


@pytest.fixture(scope="module")
def outages(served: Celery) -> Iterator[list[Outage]]:
    """Every outage in force."""
    patch, active = pytest.MonkeyPatch(), list[Outage]()

    def failing(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        generator = name in ("payloads.read_bodies", "results.read_rows", "results.read_outcomes")

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            hit = next((o for o in active if o.method == name and o.due(args)), None)
            if hit is None:
                return real(self, *args, **kwargs)
            if hit.when == "after" and not generator:
                real(self, *args, **kwargs)
            raise StoreUnavailable("the test's outage")

        return call

    store = open_store(Settings.of(served))
    for name in METHODS:
        part, method = name.split(".")
        owner = _owner_of(getattr(store, part), method)
        patch.setattr(owner, method, failing(name, getattr(owner, method)))
    yield active
    patch.undo()


def _owner_of(part: Any, method: str) -> type:
    """Return the class that has a method of a part of the store; a part with objects leaves others to the ledger's."""
    return type(part) if hasattr(type(part), method) else _owner_of(part._part, method)


def first_expires(index: int, prompt: str) -> dict[str, Any]:
    return {"type": "expired"} if index < 2 else {"type": "succeeded"}


@shared_task(name="tests.outages.taken", ignore_result=True)
def taken(job_id: str, custom_ids: list[str]) -> None:
    """Whoever is told of final outcomes."""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("half", [1, 0])
def test_one_call_of_the_store_fails(
    half: int, served: Celery, server: UnfriendlyServer, outages: list[Outage]
) -> None:
    """Two of six requests expire, in a smaller batch again, and go through the Messages API, which is busy at first."""
    jobs = []
    outages.clear()
    # Every other call, before and after by turns.
    cases = [case for case in enumerate(CASES) if (case[1][1] + (case[1][2] == "after")) % 2 == half]
    busy = refusal(429, "rate_limit_error", "slow down", retry_after_ms="150")
    for number, (method, nth, when) in cases:
        name = f"outage{number}"
        account = server.account(name)
        drops = method == "message_queue.drop_waiting"
        script, at_once = {"messages": [NO_KEY if drops else busy]}, 1 if drops else 8
        account.manners = Manners(looks=1, result=first_expires, script=script, message_seconds=0.3)
        outage = Outage(method, nth, when)
        requests = {f"id {i}": params(f"{name} {i}") for i in range(6)}
        task_id = f"{number:08}-{method}-{nth}-{when}"
        # Staging is the caller's; what fails there is raised to the caller.
        outage.job_id = "not yet"
        outages.append(outage)
        limits = {"max_cost": 1.0, "max_fallback_cost": 1.0, "max_messages_in_flight": at_once}
        signature = run_batch.s(requests, client=name, retries=1, on_result=taken.s(), **limits)
        outage.job_id = task_id if method == "jobs.persist_job" else "not yet"
        result = signature.apply_async(task_id=task_id, countdown=0.5)
        outage.job_id = task_id
        outage.account = api.account_name(api.get_client(name, Settings.of(served).client_factories))
        jobs.append((outage, account, result))
    wrong: dict[str, Any] = {}
    deadline = time.monotonic() + 240
    for outage, account, result in jobs:
        try:
            summary = result.get(timeout=max(deadline - time.monotonic(), 0.5))
            rows = list(BatchJob(result.id, served).results())
            found = (
                len(rows),
                len({row.custom_id for row in rows}),
                summary["succeeded"] + summary["expired"],
                sum(row.type == "succeeded" for row in rows) == summary["succeeded"],
                summary["expired"] <= LOSES.get((outage.method, outage.when), 0),
                max(account.paid.values()),
                account.calls["create"],
            )
            expected = (6, 6, 6, True, True, 1, 2)
            if found != expected:
                wrong[result.id] = found
        except Exception as exc:  # noqa: BLE001 - collected
            wrong[result.id] = f"{type(exc).__name__}: {exc}"
    assert wrong == {}
    assert sum(outage.happened for outage in outages) > len(cases) * 0.9
    if half:
        assert {outage.method for outage in outages if outage.happened} == set(METHODS)


@pytest.mark.parametrize("nth", [1, 3, 5, 7])
def test_a_record_cannot_be_read_for_a_while(
    nth: int, served: Celery, server: UnfriendlyServer, outages: list[Outage]
) -> None:
    """Nor can it be for the line in the log that says so."""
    name = f"outage{370 + nth}"
    account = server.account(name)
    account.manners = Manners(looks=1, result=first_expires)
    outage = Outage("records.read_batch", nth, "before", calls=6)
    outage.job_id = f"record-{nth}"
    outages.append(outage)
    requests = {f"id {i}": params(f"{name} {i}") for i in range(3)}
    result = run_batch.apply_async((requests,), {"client": name, "retries": 1}, task_id=outage.job_id)
    assert result.get(timeout=180)["requests"] == 3
    assert outage.happened
    assert max(account.paid.values()) == 1


def test_the_broker_refuses_a_message_of_the_fallback(
    served: Celery, server: UnfriendlyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the requests are out when the broker stops taking messages for a moment."""
    name = "outage399"
    account = server.account(name)
    account.manners = Manners(looks=0, result=lambda i, p: {"type": "expired"})
    calls = 0
    real = tasks.send_messages.apply_async

    def publish(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OperationalError("the broker is gone for a moment")
        return real(*args, **kwargs)

    monkeypatch.setattr(tasks.send_messages, "apply_async", publish)
    result = run_batch.delay({f"id {i}": params(f"{name} {i}") for i in range(6)}, client=name, retries=0)
    assert result.get(timeout=180)["succeeded"] == 6
    assert calls > 3
    assert set(account.paid.values()) == {1}


#: The steps, and of those that a smaller batch goes through too, the second time.
LINKS = [
    *((step, 1) for step in ("create_batch", "poll_batch", "fetch_results", "fall_back", "finish_job")),
    *((step, 2) for step in ("create_batch", "poll_batch", "fetch_results", "fall_back")),
]


@pytest.mark.parametrize(("step", "nth"), LINKS)
def test_the_broker_refuses_the_next_link(
    step: str, nth: int, served: Celery, server: UnfriendlyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step is through, and the message of the next one is not taken: the job must not end there."""
    name = f"outage{380 + LINKS.index((step, nth))}"
    account = server.account(name)
    account.manners = Manners(
        looks=-1, result=lambda i, p: {"type": "expired" if len(account.own) < nth else "succeeded"}
    )
    task = served.tasks[f"claude_batch_tasks.{step}"]
    published = 0
    real = task.apply_async

    def publish(*args: Any, **kwargs: Any) -> Any:
        nonlocal published
        published += 1
        if published == nth:
            raise OperationalError("the broker is gone for a moment")
        return real(*args, **kwargs)

    monkeypatch.setattr(task, "apply_async", publish)
    result = run_batch.delay({f"id {i}": params(f"{name} {step} {i}") for i in range(3)}, client=name, retries=1)
    summary = result.get(timeout=15)
    assert (summary["succeeded"], len(summary["batch_ids"])) == (3, nth)
    assert published > nth
    assert set(account.paid.values()) == {1}
