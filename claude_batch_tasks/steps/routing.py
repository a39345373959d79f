"""Routes of a job's messages: all of them go where the message of its ``run_batch`` went."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from celery import Celery
from kombu import Exchange, Queue
from kombu.entity import binding
from kombu.utils import json

from claude_batch_tasks.records import JobRecord

RUN_BATCH = "claude_batch_tasks.run_batch"
ASK = "claude_batch_tasks.ask"

#: The options of ``apply_async`` that say where a message goes, and how it is handled there.
_DESTINATION = ("queue", "exchange", "exchange_type", "routing_key")
_ROUTE = (*_DESTINATION, "priority", "delivery_mode", "compression")

#: A name that no task has.
_NOBODY = "nobody.calls_a_task_so"

#: The prefix of RabbitMQ's exchanges for waiting messages. A message that arrived by such an exchange says nothing of
#: its route.
_DELAYED = "celery_delayed_"


def find_ask_route(app: Celery, options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the route of the pool of an ask: its own, else that of ``run_batch``.

    Args:
        options: the options of ``apply_async``.
    """
    given = _route_of({**_own_options(app, RUN_BATCH), **_own_options(app, ASK), **_without_none(options)})
    found = _look_up(app, ASK, (), {}, given)
    if found is None or found == _look_up_any(app):
        found = _look_up(app, RUN_BATCH, (), {}, given)
    return {"given": given, "found": found or {}}


def find_route(
    app: Celery, options: Mapping[str, Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Return the route of a job's ``run_batch``: the options ``given`` for it, and those ``found`` in ``task_routes``.

    Args:
        options: the options of ``apply_async``.
        args: the task's arguments, for routers that read them.
        kwargs: the task's keyword arguments.
    """
    given = _route_of({**_own_options(app, RUN_BATCH), **_without_none(options)})
    return {"given": given, "found": _look_up(app, RUN_BATCH, args, dict(kwargs or {}), given) or {}}


def find_route_of_message(delivery: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return the route of a message of ``run_batch`` that a worker received, from its delivery information."""
    delivery = delivery or {}
    exchange, key = delivery.get("exchange"), delivery.get("routing_key")
    found = {"priority": delivery["priority"]} if delivery.get("priority") else {}
    if not exchange and key:
        found["queue"] = key
    elif exchange and not str(exchange).startswith(_DELAYED):
        found |= {"exchange": exchange, "routing_key": key}
    return {"given": {}, "found": found}


def encode_route(route: Mapping[str, Mapping[str, Any]]) -> str:
    """Encode a route as JSON, in full, so that the app need not know its queues and exchanges."""
    return json.dumps(
        {kind: {name: _make_plain(value) for name, value in part.items()} for kind, part in route.items()}
    )


def queue_name(route: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the name of the queue of a route, if the route names one."""
    queue = merge_options(route).get("queue")
    name = getattr(queue, "name", queue)
    return None if name is None else str(name)


def merge_options(route: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the options that send ``run_batch`` itself."""
    return {**route["found"], **route["given"]}


def reroute_message(app: Celery, job: JobRecord, options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the route of a job whose first message is sent with other options than those it was submitted with.

    Args:
        options: the caller's options as the app's task class changed them.
    """
    route, again = _decode_route(job), find_route(app, options)
    return route if encode_route({"given": route["given"]}) == encode_route({"given": again["given"]}) else again


def follow_route(app: Celery, job: JobRecord, name: str, args: tuple[Any, ...] = ()) -> dict[str, Any]:
    """Return the options of ``apply_async`` that send a task of a job to where its ``run_batch`` went.

    A route in ``task_routes`` for the task itself comes before the route of ``run_batch``. A catch-all route such as
    ``"*"`` does not count as the task's own.
    """
    route = _decode_route(job)
    if name != RUN_BATCH and route["found"]:
        own = _look_up(app, name, args, {}, {})
        if own is not None and own != _look_up_any(app):
            return route["given"]
    return merge_options(route)


def make_portable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options in a form that a message can carry: with the names of queues and exchanges."""
    return {name: value.name if isinstance(value, (Queue, Exchange)) else value for name, value in options.items()}


def follow_unless_routed(app: Celery, job: JobRecord, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with which an application's task follows a job; the task's own options come first.

    Args:
        name: the task's name.
        options: the options of its signature.
    """
    own = _route_of({**(_look_up(app, name, (), {}, {}) or {}), **_own_options(app, name), **_without_none(options)})
    route = merge_options(_decode_route(job))
    if any(part in own for part in _DESTINATION):
        route = {part: value for part, value in route.items() if part not in _DESTINATION}
    return {part: value for part, value in route.items() if part not in own}


def _decode_route(job: JobRecord) -> dict[str, dict[str, Any]]:
    if job.route is None:
        return {"given": {"queue": job.queue} if job.queue else {}, "found": {}}
    return {
        kind: {name: _make_entity(name, value) for name, value in part.items()}
        for kind, part in json.loads(job.route).items()
    }


def _look_up(
    app: Celery, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the route of a task in ``task_routes``; None if there is none."""
    task: Any = app.tasks.get(name)
    found: Any = app.amqp.router.lookup_route(name, args, kwargs, dict(options), task)
    if not found:
        return None
    return {"queue": found} if isinstance(found, str) else _route_of(found)


def _look_up_any(app: Celery) -> dict[str, Any] | None:
    """Return the route in ``task_routes`` for a task that it cannot know."""
    with suppress(Exception):  # a router may know every name, and raise for others
        return _look_up(app, _NOBODY, (), {}, {})
    return None


def _own_options(app: Celery, name: str) -> dict[str, Any]:
    """Return the message options of the task's class and of ``task_annotations``."""
    task: Any = app.tasks.get(name)
    return _without_none(task._get_exec_options()) if task is not None else {}


def _route_of(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in _ROUTE if options.get(name) is not None}


def _without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _make_plain(value: Any) -> Any:
    return value.as_dict(recurse=True) if isinstance(value, (Queue, Exchange)) else value


def _make_entity(name: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if name == "exchange":
        return Exchange(**value)
    made = {**value, "exchange": _make_entity("exchange", value["exchange"])}
    made["bindings"] = [
        binding(**{**each, "exchange": _make_entity("exchange", each["exchange"])}) for each in value["bindings"]
    ]
    return Queue(**made)
