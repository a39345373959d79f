"""All messages of a job go to where a plain task's would: by what the call says, or by ``task_routes``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain
from celery.signals import before_task_publish
from kombu import Exchange, Queue

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.lifecycle.delivery.tracking import HEADER as DELIVERY
from claude_batch_tasks.simulator import Fault, Outcome, Simulator
from tests.integration.rig import requests
from tests.integration.routed import GOT, Tenants, topic
from tests.integration.test_brokers import RABBITMQ, MakeApp, Rabbit, make_app, rabbit
from tests.support import wait_until

__all__ = ["make_app", "rabbit"]

pytestmark = [pytest.mark.slow, pytest.mark.workers, pytest.mark.timeout(120)]

NAME = "claude_batch_tasks."


@pytest.fixture
def project(environment: dict[str, str], tmp_path: Path, simulator: Simulator) -> Iterator[Callable[..., Worker]]:
    """``project("-Q", "x", conf={...}, NAME="value")``: a worker of the project in ``routed``."""
    with ExitStack() as stack:

        def start(*options: str, conf: dict[str, Any] | None = None, **env: str) -> Worker:
            env = {**environment, "ANTHROPIC_BASE_URL": simulator.url, "ROUTED_CONF": json.dumps(conf or {}), **env}
            number = len(list(tmp_path.glob("routed-*")))
            worker = Worker(
                env,
                tmp_path / f"routed-{number}.log",
                app="tests.integration.routed",
                options=("--concurrency=2", *options),
            )
            return stack.enter_context(worker)

        yield start


def got(app: Celery) -> list[tuple[str, dict[str, Any], dict[str, Any], float]]:
    """The messages that workers ran: task, delivery information, headers, when."""
    return [tuple(json.loads(entry)) for entry in app.backend.client.lrange(GOT, 0, -1)]  # type: ignore[misc]


def deliveries(app: Celery, *names: str) -> dict[str, tuple[Any, ...]]:
    """Where each task's message came from; fails if one task's came from several places."""
    found: dict[str, set[tuple[Any, ...]]] = {}
    for task, info, *_ in got(app):
        found.setdefault(task, set()).add(tuple(info.get(name) for name in names))
    assert all(len(places) == 1 for places in found.values()), found
    return {task.removeprefix(NAME): places.pop() for task, places in found.items()}


#: Some go through another turn and the Messages API, so that every step there is runs.
ALL_STEPS = (Outcome("expired", prompt="1 of", attempts=1), Outcome("expired", prompt="2 of"))
STEPS = {"create_batch", "poll_batch", "fetch_results", "fall_back", "send_messages", "finish_job"}


@pytest.mark.parametrize(
    ("call", "conf"),
    [
        ({"queue": "q"}, {}),
        ({"queue": Queue("q", Exchange("other"), routing_key="key")}, {}),
        ({"priority": 6, "queue": "q"}, {}),
        (
            {},
            {
                "task_routes": {
                    NAME + "run_batch": {"queue": "q", "priority": 3},
                    "routed.plain": {"queue": "q", "priority": 3},
                }
            },
        ),
        ({}, {"task_routes": [[[NAME + "run_batch", {"queue": "q"}], ["routed.pl*", "q"]]]}),
        ({"priority": 3}, {"task_default_queue": "q"}),
        ({}, {"task_annotations": {NAME + "run_batch": {"queue": "q"}, "routed.plain": {"queue": "q"}}}),
    ],
    ids=["queue", "queue object", "priority", "routes", "pattern", "default queue", "annotations"],
)
def test_every_message_goes_where_a_plain_tasks_would(
    call: dict[str, Any], conf: dict[str, Any], app: Celery, simulator: Simulator, project: Callable[..., Worker]
) -> None:
    app.conf.update(conf)
    simulator.behave(processing_seconds=2, outcomes=ALL_STEPS)
    project("-Q", "q", conf=conf)
    app.signature("routed.plain", app=app).apply_async(**call)
    if "task_annotations" in conf:  # this process does not know the plain task
        app.signature("routed.plain", app=app).apply_async(queue="q")
    on_result = app.signature("routed.save")
    result = run_batch.apply_async(
        (requests("job", 10),), {"on_result": on_result, "poll_min": 1.2, "poll_max": 1.5}, **call
    )
    summary = result.get(timeout=60)
    assert (summary["state"], summary["succeeded"]) == ("completed", 10)
    wait_until(lambda: "routed.save" in {task for task, *_ in got(app)})
    came = deliveries(app, "exchange", "routing_key", "priority")
    assert came.keys() >= {"run_batch", "routed.plain", "routed.save", *STEPS}
    assert set(came.values()) == {came["routed.plain"]}


@pytest.mark.parametrize("by", ["exchange", "queue", "routes"])
def test_rabbitmqs_exchanges_and_priorities(
    by: str,
    rabbit: Rabbit,
    redis_url: str,
    store_url: str,
    make_app: MakeApp,
    simulator: Simulator,
    project: Callable[..., Worker],
) -> None:
    """The app's default queue, which Celery declares, is consumed by nobody."""
    to: dict[str, Any] = {"exchange": rabbit.name, "routing_key": "claude.now", "priority": 5}
    conf: dict[str, Any] = {"task_default_queue": rabbit.callbacks}
    if by == "queue":
        to = {"queue": topic(rabbit.name), "priority": 5}
    elif by == "routes":
        conf["task_routes"], to = {NAME + "run_batch": to, "routed.plain": to}, {}
    app = make_app(redis_url, **conf)
    simulator.behave(processing_seconds=2, outcomes=ALL_STEPS)
    env = {"CELERY_BROKER_URL": RABBITMQ, "ROUTED_TOPIC": rabbit.name, "CLAUDE_BATCH_STORE_URL": store_url}
    project("-Q", rabbit.name, conf=conf, **env)
    app.signature("routed.plain", app=app).apply_async(**to)
    options = {"on_result": app.signature("routed.save"), "poll_min": 1.2, "poll_max": 1.5}
    result = run_batch.apply_async((requests("job", 10),), options, **to)
    assert result.get(timeout=60)["succeeded"] == 10
    simulator.behave(processing_seconds=600)
    canceled = run_batch.apply_async((requests("canceled", 2),), **to)
    wait_until(lambda: BatchJob(canceled.id, app).status().batches[0].batch_id)
    BatchJob(canceled.id, app).cancel()
    wait_until(lambda: {"routed.save", NAME + "cancel_batch"} <= {task for task, *_ in got(app)})
    came = deliveries(app, "exchange", "routing_key", "priority")
    assert came.keys() >= {"run_batch", "routed.plain", "routed.save", "cancel_batch", *STEPS}
    assert set(came.values()) == {came["routed.plain"]}


def test_what_is_routed_itself_goes_there(app: Celery, simulator: Simulator, project: Callable[..., Worker]) -> None:
    """A step that ``task_routes`` names, and an ``on_result`` with a queue of its own, do not follow the job."""
    conf = {"task_routes": {NAME + "run_batch": "q", NAME + "fetch_results": "downloads"}}
    app.conf.update(conf)
    simulator.behave(processing_seconds=0.5)
    project("-Q", "q,downloads,answers", conf=conf)
    result = run_batch.delay(requests("job", 2), on_result=app.signature("routed.save").set(queue="answers"))
    assert result.get(timeout=60)["succeeded"] == 2
    wait_until(lambda: "routed.save" in {task for task, *_ in got(app)})
    came = deliveries(app, "routing_key")
    assert (came["fetch_results"], came["routed.save"]) == (("downloads",), ("answers",))
    assert {came[step] for step in ("run_batch", "create_batch", "poll_batch", "fall_back", "finish_job")} == {("q",)}


#: What tracers and a project of several tenants put on messages.
CARRIED = {
    "x_tenant": "a",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "sentry-trace": "771a43a4192642f0b136d5159a501700-2222222222222222-1",
    "nested": {"list": [1, 2]},
}


@pytest.fixture
def tenant() -> Iterator[str]:
    """The tenant that this process is in."""
    before_task_publish.connect(Tenants.mark)
    Tenants.current = "brewery"
    yield Tenants.current
    Tenants.current = "public"
    before_task_publish.disconnect(Tenants.mark)


def carried(app: Celery) -> dict[str, list[Any]]:
    """What each message had in its headers, by task."""
    found: dict[str, list[Any]] = {}
    for task, _, headers, _ in got(app):
        headers = {name: value for name, value in headers.items() if name != "claude_batch_countdown"}
        found.setdefault(task.removeprefix(NAME), []).append(headers)
    return found


@pytest.mark.parametrize("lost", [False, True], ids=["", "lost"])
def test_headers_travel_with_the_job(
    lost: bool, app: Celery, simulator: Simulator, project: Callable[..., Worker], tenant: str
) -> None:
    """Also those that a handler put in, and where the message a job begins with is lost before anyone saw it."""
    simulator.behave(processing_seconds=2, outcomes=ALL_STEPS)
    linked = app.signature("routed.linked")
    job = run_batch.s(requests("job", 10), on_result=app.signature("routed.save"), poll_min=1.2, poll_max=1.5).set(
        link=linked
    )
    app.signature("routed.plain").apply_async(headers=CARRIED)
    result = chain(job, app.signature("routed.linked")).apply_async(headers=CARRIED)
    if lost:
        app.backend.client.delete("celery")
        app.signature("routed.plain").apply_async(headers=CARRIED)
    project(ROUTED_TENANTS="1", CLAUDE_BATCH_RECOVER_AFTER="1")
    assert result.get(timeout=60) == "linked"
    wait_until(lambda: len(carried(app).get("routed.linked", [])) == 2 and "routed.save" in carried(app))
    found = carried(app)
    assert found.keys() >= {"run_batch", "routed.plain", "routed.save", *STEPS}
    # What says which requests a call of on_result is for: only such a call has it.
    assert {task for task, have in found.items() for each in have if each.pop(DELIVERY, None)} == {"routed.save"}
    expected = {**CARRIED, "_schema_name": tenant}
    assert {task: have for task, have in found.items() if any(each != expected for each in have)} == {}


def test_headers_reach_what_is_told_of_a_failure(
    app: Celery, simulator: Simulator, project: Callable[..., Worker], tenant: str
) -> None:
    simulator.faults(Fault("create", "status", status=403))
    project(ROUTED_TENANTS="1")
    told = app.signature("routed.told")
    result = run_batch.apply_async((requests("job", 2),), headers=CARRIED, link_error=told)
    with pytest.raises(errors.PermanentError):
        result.get(timeout=60)
    wait_until(lambda: "routed.told" in carried(app))
    assert carried(app)["routed.told"] == [{**CARRIED, "_schema_name": tenant}]
