"""The application whose tasks are compared: a plain one, ``run_batch``, what follows them, and a record of signals."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
from celery import Celery, Task, current_task, shared_task
from celery.signals import (
    after_task_publish,
    before_task_publish,
    task_failure,
    task_internal_error,
    task_postrun,
    task_prerun,
    task_received,
    task_rejected,
    task_retry,
    task_revoked,
    task_success,
    task_unknown,
)
from celery.utils.dispatch import Signal
from kombu import Exchange, Queue

from claude_batch_tasks import errors, transport
from tests.conformance import setups

PLAIN, BATCH, ASK = "conformance.plain", "claude_batch_tasks.run_batch", "claude_batch_tasks.ask"

#: How long the slow ones take, seconds.
SLOW = 20.0

_FOLDER = os.environ.get("CONFORMANCE_FOLDER")
_lock = threading.Lock()


#: The records of this process, where it is the caller's.
here: list[dict[str, Any]] = []


def write(line: dict[str, Any]) -> None:
    """Write a record down: in a worker to a file."""
    line = {**line, "time": time.time()}
    if _FOLDER is None:
        here.append(line)
        return
    text = json.dumps(line, default=str) + "\n"
    with _lock, open(Path(_FOLDER) / "records.jsonl", "a") as file:
        file.write(text)


# -- clients


def refusing() -> anthropic.Anthropic:
    """Make the client of an account that may create nothing."""
    return anthropic.Anthropic(base_url=os.environ["CONFORMANCE_REFUSING"], api_key="sk-ant-refusing", max_retries=0)


def slow() -> anthropic.Anthropic:
    """Make the client of an account whose batches take long."""
    return anthropic.Anthropic(base_url=os.environ["CONFORMANCE_SLOW"], api_key="sk-ant-slow", max_retries=0)


def deadly() -> anthropic.Anthropic:
    """Make a client; but the first process that does so for a task is killed."""
    if current_task:  # a worker makes each once at its start
        die_once()
    return anthropic.Anthropic(api_key="sk-ant-deadly", max_retries=0)


def die_once() -> None:
    """Kill this process, unless one was killed before."""
    try:
        os.mkdir(Path(os.environ["CONFORMANCE_FOLDER"]) / f"died-{os.environ.get('CONFORMANCE_DEATH', '')}")
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


# -- tasks


@shared_task(name=PLAIN, bind=True)
def plain(self: Task[Any, Any], requests: Any, client: str = "default", on_result: Any = None) -> dict[str, Any]:
    """Take as long as a small job, and end as a job of that client would."""
    if client == "deadly":
        die_once()
    until = time.monotonic() + (SLOW if client == "slow" else 0.5)
    while time.monotonic() < until:
        time.sleep(0.05)
    if client == "refusing":
        raise errors.PermanentError("refused")
    return {"state": "completed", "requests": len(requests)}


@shared_task(name="conformance.after")
def after(*values: Any, token: str) -> str:
    """Follow what is compared; its arguments are in the record."""
    return "after"


@shared_task(name="conformance.told")
def told(request: Any, exc: Any, traceback: Any, token: str = "") -> str:
    """Hear of a failure, in the worker that met it."""
    write({"signal": "told", "token": token, "id": request.id, "task": request.task, "error": type(exc).__name__})
    return "told"


@shared_task(name="conformance.told_id")
def told_id(task_id: str) -> str:
    """Hear of a failure by its id: Celery sends this one, as it takes one argument."""
    return "told"


@shared_task(name="conformance.give")
def give(value: Any) -> Any:
    """Give back what it got."""
    return value


@shared_task(name="conformance.join")
def join(values: list[Any], token: str) -> list[str]:
    """Be a chord's body."""
    return [type(value).__name__ for value in values]


@shared_task(name="conformance.caller", bind=True)
def caller(self: Task[Any, Any], name: str, how: str, requests: Any, options: dict[str, Any]) -> Any:
    """Call a task from within one."""
    task = self.app.tasks[name]
    signature = task.s(requests)
    if how == "delay":
        return task.delay(requests).id
    if how == "apply_async":
        return task.apply_async((requests,), **options).id
    if how == "replace":
        return self.replace(signature)
    if how == "add_to_chord":
        return self.add_to_chord(signature).id
    if how == "get":
        return task.delay(requests).get(timeout=60)
    if how == "apply":
        return task.apply((requests,)).get(disable_sync_subtasks=False)
    if how == "call":
        return task(requests)
    raise ValueError(how)


# -- the record of signals

#: Who is told of what.
_receivers: list[tuple[Signal, Callable[..., None]]] = []


def _of(told: Signal) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def note(receiver: Callable[..., None]) -> Callable[..., None]:
        _receivers.append((told, receiver))
        return receiver

    return note


def listen() -> None:
    """Keep a record of signals from now on."""
    for told, receiver in _receivers:
        told.connect(receiver)


@contextmanager
def listening() -> Iterator[None]:
    """Keep a record of signals for a while."""
    listen()
    try:
        yield
    finally:
        for told, receiver in _receivers:
            told.disconnect(receiver)


def _custom(headers: Any) -> dict[str, Any]:
    return {name: value for name, value in (headers or {}).items() if not name.startswith("claude_batch_")}


@_of(task_prerun)
def _prerun(task: Any = None, task_id: Any = None, args: Any = (), kwargs: Any = None, **_: Any) -> None:
    request = task.request
    write(
        {
            "signal": "task_prerun",
            "task": task.name,
            "id": task_id,
            "shown": request.shadow or request.task,
            "root": request.root_id,
            "parent": request.parent_id,
            "group": request.group,
            "headers": _custom(request.headers),
            "delivery": dict(request.delivery_info or {}),
            "reply_to": request.reply_to,
            "retries": request.retries,
            "stamps": request.stamps,
            "stamped_headers": request.stamped_headers,
            "types": [type(value).__name__ for value in args],
            "token": (kwargs or {}).get("token"),
            "eager": request.is_eager,
            "argsrepr": getattr(request, "argsrepr", None),
        }
    )


@_of(task_postrun)
def _postrun(task: Any = None, task_id: Any = None, state: Any = None, **_: Any) -> None:
    write({"signal": "task_postrun", "task": task.name, "id": task_id, "state": state})


@_of(task_success)
def _success(sender: Any = None, result: Any = None, **_: Any) -> None:
    write({"signal": "task_success", "task": sender.name, "id": sender.request.id, "type": type(result).__name__})


@_of(task_failure)
def _failure(sender: Any = None, task_id: Any = None, exception: Any = None, **_: Any) -> None:
    write({"signal": "task_failure", "task": sender.name, "id": task_id, "type": type(exception).__name__})


@_of(task_retry)
def _retry(sender: Any = None, request: Any = None, **_: Any) -> None:
    write({"signal": "task_retry", "task": sender.name, "id": request.id})


@_of(task_revoked)
def _revoked(sender: Any = None, request: Any = None, terminated: Any = None, expired: Any = None, **_: Any) -> None:
    write(
        {
            "signal": "task_revoked",
            "task": sender.name,
            "id": request.id,
            "terminated": bool(terminated),
            "expired": bool(expired),
        }
    )


@_of(task_received)
def _received(request: Any = None, **_: Any) -> None:
    write({"signal": "task_received", "task": request.name, "id": request.id})


@_of(task_unknown)
@_of(task_rejected)
def _odd(signal: Any = None, id: Any = None, message: Any = None, **_: Any) -> None:
    write({"signal": "task_unknown or task_rejected", "id": id})


@_of(task_internal_error)
def _internal_error(sender: Any = None, task_id: Any = None, exception: Any = None, **_: Any) -> None:
    write({"signal": "task_internal_error", "task": sender.name, "id": task_id, "type": type(exception).__name__})


@_of(before_task_publish)
def _before(sender: Any = None, headers: Any = None, routing_key: Any = None, **_: Any) -> None:
    _publish("before_task_publish", sender, headers, routing_key)


@_of(after_task_publish)
def _after(sender: Any = None, headers: Any = None, routing_key: Any = None, **_: Any) -> None:
    _publish("after_task_publish", sender, headers, routing_key)


def _publish(signal: str, sender: Any, headers: Any, routing_key: Any) -> None:
    write({"signal": signal, "task": sender, "id": (headers or {}).get("id"), "routing_key": routing_key})


# -- the app


def make_app(
    broker: str, backend: str | None, store: str, names: str, conf: dict[str, Any], setup: str, set_as_current: bool
) -> Celery:
    """Make the app that a caller and its worker have.

    Args:
        names: what its queues and exchanges begin with: one RabbitMQ serves many tests.
        conf: settings that are JSON.
        setup: the name of a function in ``setups``, for all that is not.
    """
    conf = dict(conf)
    options = {name: conf.pop(name) for name in ("task_cls", "namespace") if name in conf}
    app = Celery("conformance", broker=broker, backend=backend, set_as_current=set_as_current, **options)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        include=["claude_batch_tasks.tasks"],
        control_exchange=f"{names}-control",
        event_exchange=f"{names}-events",
        event_queue_prefix=f"{names}-events",
        task_default_queue=names,
        task_default_exchange=names,
        task_default_routing_key=names,
        claude_batch_store_url=store,
        claude_batch_ask_max_wait=0.2,
        claude_batch_client_factories={
            name: f"tests.conformance.project.{name}" for name in ("refusing", "slow", "deadly")
        },
    )
    app.conf.task_queues = [
        Queue(names, Exchange(names), routing_key=names),
        Queue(f"{names}-other", Exchange(f"{names}-exchange"), routing_key=f"{names}-key", max_priority=9),
    ]
    for name, value in os.environ.items():
        if name.startswith("CLAUDE_BATCH_"):
            app.conf[name.lower()] = value
    app.conf.update(conf)
    if setup:
        getattr(setups, setup)(app)
    app.loader.import_default_modules()
    return app


if "CONFORMANCE_APP" in os.environ:
    listen()
    transport.install()
    app = make_app(**json.loads(os.environ["CONFORMANCE_APP"]), set_as_current=True)
