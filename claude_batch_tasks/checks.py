"""What a worker warns of at its start: servers that may forget, and settings that would hurt.

Nothing here stops a worker. The ``of_`` functions decide; ``warn`` asks and logs.
"""

from __future__ import annotations

import logging
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import celery
import redis
from celery import Celery
from redis.backoff import NoBackoff
from redis.retry import Retry

from claude_batch_tasks import transport
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.line import NAME
from claude_batch_tasks.policy import BATCH_LIFETIME
from claude_batch_tasks.settings import Settings, redis_address, redis_url, visibility_timeout

log = logging.getLogger(__name__)

#: Seconds a server may take to answer; a worker's start waits for it.
_PATIENCE = 2.0

#: Seconds that a create or a download of a large batch may take, or a long answer of the Messages API; and any other
#: step, which makes a call or two of at most ``timeout`` seconds.
_LONG_STEP = 600
_STEP = 120
_LONG_STEPS = ("create_batch", "fetch_results", "create_message")

#: Celery's own default; more is somebody's choice.
_PREFETCH = 4

_LOSSES = {
    "store": "the ledger, prompts and results of jobs: they end without results, or their batches are not found again",
    "broker": "messages that wait: their jobs stand still until they are found lost",
    "result back end": "how jobs have ended: whoever waits in get() waits for ever",
}


class Finding(NamedTuple):
    """One warning: how loud, and its text."""

    level: int
    text: str


def of_server(roles: Sequence[str], where: str, info: Mapping[str, Any]) -> list[Finding]:
    """What the ``INFO`` of a Redis gives reason to warn of.

    Args:
        roles: what it is used as: ``store``, ``broker`` or both.
        where: its address.
        info: the sections ``memory`` and ``persistence``; what is missing is not warned of.
    """
    name, loss = f"the {' and '.join(roles)}'s Redis ({where})", _LOSSES[roles[0]]
    found = []
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        every = policy.startswith("allkeys")
        when = "when it is full" if info.get("maxmemory") else "as soon as a maxmemory is set and reached"
        what = loss if every else f"keys that have an expiry, and with them may go {loss}"
        text = f"{name} evicts ({policy}): {when}, it drops {what}. In its redis.conf: maxmemory-policy noeviction"
        found.append(Finding(logging.ERROR if every else logging.WARNING, text))
    if str(info.get("aof_enabled", 1)) == "0":
        text = f"{name} has no append-only file: with a restart it forgets {loss}. In its redis.conf: appendonly yes"
        found.append(Finding(logging.WARNING, text))
    return found


def of_transport(version: Sequence[Any], guarded: bool) -> list[Finding]:
    """What a Redis broker's transport gives reason to warn of.

    Args:
        version: Celery's.
        guarded: whether it is one of ``claude_batch_tasks.transport``.
    """
    # Since 5.7.0 Celery closes a lost connection a second time (Consumer.on_connection_error_after_connected); 5.6.3
    # with kombu 5.7.0 does not, and survives.
    if guarded or tuple(version[:2]) != (5, 7):
        return []
    return [
        Finding(
            logging.WARNING,
            "a worker of Celery 5.7 ends when its Redis broker restarts while it holds a message, and what it held "
            "waits for the visibility_timeout. Beside Celery(...): claude_batch_tasks.transport.install()",
        )
    ]


def of_visibility_timeout(seconds: float) -> list[Finding]:
    """What the seconds after which the broker hands out an unacknowledged message again give reason to warn of."""
    if seconds >= _LONG_STEP:
        return []
    return [
        Finding(
            logging.WARNING,
            f"visibility_timeout is {seconds:g} s: a step that takes longer (a large create or download may take "
            "minutes) is handed out again while it runs. Its copies end, and nothing is sent or paid twice; tasks of "
            "your own may run twice. broker_transport_options = {'visibility_timeout': 2400}",
        )
    ]


def of_settings(conf: Mapping[str, Any]) -> list[Finding]:
    """What the app's own Celery settings give reason to warn of."""
    found = []
    name = "worker_cancel_long_running_tasks_on_connection_loss"
    if conf.get(name):
        found.append(
            "when the connection to the broker is lost, the steps of jobs that run are killed, a create among them has "
            f"to be searched for, and a job's result may for a while say REVOKED. They may run twice: {name} = False"
        )
    prefetch = _number(conf.get("worker_prefetch_multiplier"))
    if prefetch is not None and (prefetch == 0 or prefetch > _PREFETCH):
        share = "all there is" if prefetch == 0 else f"{prefetch:g} messages"
        found.append(
            f"each process of a worker takes {share} in advance, which wait behind one long download while other "
            "workers are idle: worker_prefetch_multiplier = 1"
        )
    seconds = _number(conf.get("result_expires"))
    if seconds and seconds <= BATCH_LIFETIME:
        found.append(
            f"results expire after {seconds / 3600:g} h, and a batch may take 24 h: who asks later than that after a "
            f"job's end waits for ever. result_expires = {7 * 86_400}"
        )
    accepted = _several(conf.get("accept_content"))
    results = _several(conf.get("result_accept_content")) or accepted
    for serializer, taken in (("task_serializer", accepted), ("result_serializer", results)):
        if (used := conf.get(serializer)) and taken and not _accepts(taken, used):
            own = taken is results and conf.get("result_accept_content")
            more = f"{'result_accept_content' if own else 'accept_content'} = {[*taken, used]!r}"
            fix = f"{serializer} = 'json'" if used != "json" and _accepts(taken, "json") else more
            found.append(f"{serializer} = {used!r} is not accepted by the workers: {fix}")
    used = [conf.get("task_serializer"), conf.get("result_serializer"), *accepted, *results]
    if any(str(name).endswith(("pickle", "python-serialize")) for name in used):
        found.append(
            "pickle lets whoever can write to the broker or the result back end run code in workers: "
            "task_serializer = result_serializer = 'json', accept_content = ['json']"
        )
    return [Finding(logging.WARNING, text) for text in found]


def of_tasks(tasks: Mapping[str, Any], limits: Mapping[str, float | None]) -> list[Finding]:
    """What annotations (``task_annotations``) or settings made of our tasks gives reason to warn of.

    Args:
        tasks: by name.
        limits: the worker's ``time_limit`` and ``soft_time_limit``, for tasks without their own.
    """
    found = []
    steps = {name: task for name, task in tasks.items() if name.startswith(NAME)}
    if late := sorted(name for name, task in steps.items() if not (task.acks_late and task.reject_on_worker_lost)):
        found.append(
            f"{_some(late)} acknowledged before the work is done: when a worker dies, jobs stand still until that is "
            "found out. Leave acks_late and reject_on_worker_lost out of task_annotations, or set both to True"
        )
    short: dict[str, dict[str, float]] = {}
    for name, task in sorted(steps.items()):
        least = _LONG_STEP if name.removeprefix(NAME) in _LONG_STEPS else _STEP
        for limit in ("time_limit", "soft_time_limit"):
            if (seconds := _number(getattr(task, limit) or limits.get(limit))) and seconds < least:
                short.setdefault(name, {})[limit] = seconds
    if short:
        shortest = min(min(of.values()) for of in short.values())
        right = {name: dict.fromkeys(of, 3 * _LONG_STEP) for name, of in short.items()}
        found.append(
            f"{_some(list(short))} stopped after {shortest:g} s. A large create or download may take minutes, any step "
            f"a minute or two: it is begun again and again, and a create searched for. task_annotations = {right!r}"
        )
    return [Finding(logging.WARNING, text) for text in found]


def _number(value: Any) -> float | None:
    """A number, or a duration in seconds, however it is given."""
    return value.total_seconds() if isinstance(value, timedelta) else None if value is None else float(value)


def _several(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value or ())


def _accepts(accepted: Sequence[Any], serializer: str) -> bool:
    names = {str(name).rpartition("/")[2].removeprefix("x-") for name in accepted}
    return serializer in names or {"pickle": "python-serialize"}.get(serializer) in names


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more are" if len(names) > 1 else " is"
    return f"{names[0]}{more}"


def findings(app: Celery, worker: Any = None) -> Iterator[Finding]:
    """What the app's servers and settings give reason to warn of.

    A server that does not answer in time, or refuses ``INFO``, is passed over; what cannot be checked is a finding.

    Args:
        worker: the one that starts, whose command line may say otherwise than the app's settings.
    """
    for check in (_servers, _transport, _settings, _tasks):
        try:
            yield from check(app, worker)
        except Exception as exc:  # noqa: BLE001 - settings may be anything, and one of them hides no others
            # Its text may hold a part of an address, and that a password.
            what = check.__name__.strip("_")
            yield Finding(logging.WARNING, f"the {what} could not be checked: {type(exc).__name__}")


def warn(worker: Any) -> None:
    """Log what a worker that starts has to warn of; never raises."""
    for level, text in findings(worker.app, worker):
        log.log(level, "claude_batch_tasks: %s", text)


def _servers(app: Celery, worker: Any) -> list[Finding]:
    servers: dict[str, tuple[str, list[str]]] = {}
    urls = {
        "store": Settings.of(app).store_url,
        "broker": app.conf.broker_read_url or app.conf.broker_url,
        "result back end": app.conf.result_backend,
    }
    for role, given in urls.items():
        if (url := _redis_url(given)) is not None:
            _, roles = servers.setdefault(redis_address(url), (url, []))
            roles.append(role)
    return [finding for where, (url, roles) in servers.items() for finding in of_server(roles, where, _info(url))]


def _transport(app: Celery, worker: Any) -> list[Finding]:
    used: Any = app.connection_for_read().get_transport_cls()
    if getattr(used, "driver_type", None) != "redis":
        return []
    found = of_transport(celery.VERSION, issubclass(used.Channel.QoS, transport.QoS))
    given = (app.conf.broker_transport_options or {}).get("visibility_timeout", 0)
    if not isinstance(given, (int, float)):
        text = f"visibility_timeout is {given!r}, and must be a number of seconds: the worker will not run. "
        return [*found, Finding(logging.ERROR, text + "broker_transport_options = {'visibility_timeout': 2400}")]
    return found + of_visibility_timeout(visibility_timeout(app))


def _settings(app: Celery, worker: Any) -> list[Finding]:
    prefetch = getattr(worker, "prefetch_multiplier", None)
    return of_settings(app.conf if prefetch is None else ChainMap({"worker_prefetch_multiplier": prefetch}, app.conf))


def _tasks(app: Celery, worker: Any) -> list[Finding]:
    limits = {
        name: getattr(worker, name, None) or app.conf[f"task_{name}"] for name in ("time_limit", "soft_time_limit")
    }
    return of_tasks(app.tasks, limits)


def _redis_url(urls: Any) -> str | None:
    url = str(urls[0] if isinstance(urls, (list, tuple)) and urls else urls).split(";")[0]
    try:
        return redis_url(url)
    except InvalidSettings:
        return None


def _info(url: str) -> dict[str, Any]:
    limits = {"socket_timeout": _PATIENCE, "socket_connect_timeout": _PATIENCE, "retry": Retry(NoBackoff(), 0)}
    try:
        with redis.Redis.from_url(url, **limits) as client:
            return {**client.info("memory"), **client.info("persistence")}
    except (redis.RedisError, OSError) as exc:
        log.info("the Redis at %s does not tell how it is set up: %s", redis_address(url), type(exc).__name__)
        return {}
