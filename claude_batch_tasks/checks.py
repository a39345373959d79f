"""What a worker warns of at its start: servers that may forget, and what a lost connection would do to it.

Nothing here stops a worker. The ``of_`` functions decide; ``warn`` asks and logs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import celery
import redis
from celery import Celery
from redis.backoff import NoBackoff
from redis.retry import Retry

from claude_batch_tasks import transport
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.settings import Settings, redis_address, redis_url

log = logging.getLogger(__name__)

#: Seconds a server may take to answer; a worker's start waits for it.
_PATIENCE = 2.0
_LOSSES = {
    "store": "the ledger, prompts and results of jobs: they end without results, or their batches are not found again",
    "broker": "messages that wait: their jobs stand still until they are found lost",
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


def of_settings(conf: Mapping[str, Any]) -> list[Finding]:
    """What the app's own Celery settings give reason to warn of."""
    name = "worker_cancel_long_running_tasks_on_connection_loss"
    if not conf.get(name):
        return []
    return [
        Finding(
            logging.WARNING,
            "when the connection to the broker is lost, the steps of jobs that run are killed, a create among them has "
            f"to be searched for, and a job's result may for a while say REVOKED. They may run twice: {name} = False",
        )
    ]


def findings(app: Celery) -> list[Finding]:
    """Ask the app's servers; one that does not answer in time, or refuses ``INFO``, is passed over."""
    servers: dict[str, tuple[str, list[str]]] = {}
    for role, url in (("store", Settings.of(app).store_url), ("broker", _broker_url(app))):
        if url is not None:
            _, roles = servers.setdefault(redis_address(url), (url, []))
            roles.append(role)
    found = [finding for where, (url, roles) in servers.items() for finding in of_server(roles, where, _info(url))]
    used: Any = app.connection_for_read().get_transport_cls()
    if getattr(used, "driver_type", None) == "redis":
        found += of_transport(celery.VERSION, issubclass(used.Channel.QoS, transport.QoS))
    return found + of_settings(app.conf)


def warn(app: Celery) -> None:
    """Log what there is to warn of; never raises."""
    try:
        for level, text in findings(app):
            log.log(level, "claude_batch_tasks: %s", text)
    except Exception:
        log.info("the servers could not be checked", exc_info=True)


def _broker_url(app: Celery) -> str | None:
    urls: Any = app.conf.broker_read_url or app.conf.broker_url
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
