"""The Redis servers that an app uses, and the checks of how they are set up and of whose jobs they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import redis
from celery import Celery
from redis.backoff import NoBackoff
from redis.retry import Retry

from claude_batch_tasks.checks import problems
from claude_batch_tasks.checks.problems import Finding
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.settings import Settings, redis_urls
from claude_batch_tasks.settings.redis_urls import redis_address
from claude_batch_tasks.store.redis.keys import DUE, JOBS
from claude_batch_tasks.store.redis.prefixing import client_class, glob_escaped

#: The deadline, in seconds, for a server's answer; a worker's start waits for it.
PATIENCE = 2.0

#: The oldest version of a server that has all commands of the store.
_OLDEST = (6, 2)

#: The part of its memory limit from which on a server is nearly full.
_NEARLY = 0.8

#: How many pages of key names are read at most to find other prefixes, and how many names a page has.
_PAGES, _PAGE = 100, 1000

#: Seconds by which work under another prefix must be overdue before it seems that no worker does it.
_LATE = 600

#: The setting that has the address of each role.
SETTINGS = {"store": "claude_batch_store_url", "broker": "broker_url", "result back end": "result_backend"}

#: What it leads to that a store or a broker cannot be written to.
STALLED = "jobs can neither be submitted nor continue"

LOSSES = {
    "store": "the ledger, prompts and results of jobs: they end without results, or their batches are not found again",
    "broker": "waiting messages: their jobs stop until the messages are found lost",
    "result back end": "the results of ended jobs: result.get() never returns",
}


class Server(NamedTuple):
    """A Redis that the app uses, with its URL for each role: ``store``, ``broker`` or ``result back end``."""

    urls: dict[str, str]

    @property
    def roles(self) -> list[str]:
        """The roles in which the app uses the server."""
        return list(self.urls)

    @property
    def url(self) -> str:
        """The first of the server's URLs; they differ at most in the database."""
        return next(iter(self.urls.values()))

    @property
    def name(self) -> str:
        """The server's name in findings, without a password."""
        return _name_server(self.roles, redis_address(self.url))


def _name_server(roles: Sequence[str], where: str) -> str:
    *others, last = roles
    before = f"{', '.join(others)} and " if others else ""
    return f"the {before}{last}'s Redis ({where})"


def name_settings(roles: Sequence[str]) -> str:
    """Return the settings that have the address of a server."""
    return " and ".join(SETTINGS[role] for role in roles)


def name_product(info: Mapping[str, Any]) -> str:
    """Return the product and version that a server's ``INFO`` has: ``Valkey 8.1.0``."""
    name = "Valkey" if "valkey_version" in info else "Redis"
    return f"{name} {info.get('valkey_version', info.get('redis_version'))}"


def find_servers(app: Celery, settings: Settings) -> list[Server]:
    """Return the Redis servers that the app uses, each once."""
    found: dict[str, Server] = {}
    urls: dict[str, Callable[[], str | None]] = {
        "store": lambda: settings.store_url,
        "broker": lambda: redis_urls.broker_url(app, read=True),
        "result back end": lambda: redis_urls.result_backend_url(app),
    }
    for role, of_role in urls.items():
        url = None
        with suppress(InvalidSettings):  # the check of the settings reports it
            url = of_role()
        if url is not None:
            parts = urlsplit(url)
            # URLs with different passwords stay apart: one may be right and the other wrong.
            found.setdefault(parts.netloc or parts.path, Server({})).urls[role] = url
    return list(found.values())


def connect_client(url: str, prefix: str = "") -> redis.Redis:
    """Return a Redis client that waits for at most ``PATIENCE`` seconds."""
    limits = {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE, "retry": Retry(NoBackoff(), 0)}
    return redis_urls.connect_redis(url, limits, kind=client_class(prefix))


def of_server(roles: Sequence[str], where: str, info: Mapping[str, Any]) -> list[Finding]:
    """Return the findings from the ``INFO`` of a Redis.

    Args:
        roles: the roles of the server: ``store``, ``broker``, ``result back end``, or several of them.
        where: the server's address.
        info: the whole answer to ``INFO``; a missing field leads to no finding.
    """
    server, loss = _name_server(roles, where), LOSSES[roles[0]]
    found = []
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        problem = problems.EVICTS_ALL if policy.startswith("allkeys") else problems.EVICTS_SOME
        when = "when it is full" if info.get("maxmemory") else "as soon as a maxmemory is set and reached"
        found.append(problem.found(server=server, policy=policy, when=when, loss=loss))
    if str(info.get("aof_enabled", 1)) == "0":
        found.append(problems.NO_APPEND_ONLY_FILE.found(server=server, loss=loss))
    if policy == "noeviction":  # a server that evicts is normally full
        found += _of_memory(server, info)
    if "store" in roles:
        found += _of_version(server, info)
    if info.get("role") == "slave" and int(info.get("slave_read_only", 1)):
        found.append(problems.READ_ONLY.found(server=server, setting=name_settings(roles), leads=STALLED))
    return found


def _of_memory(server: str, info: Mapping[str, Any]) -> list[Finding]:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory") or 0)
    if not limit or used < _NEARLY * limit:
        return []
    problem = problems.NEARLY_FULL if used < limit else problems.FULL
    return [problem.found(server=server, used=_format_megabytes(used), limit=_format_megabytes(limit), leads=STALLED)]


def _of_version(server: str, info: Mapping[str, Any]) -> list[Finding]:
    """Return the findings about a server that cannot be the store."""
    found = []
    version = str(info.get("redis_version", ""))
    if "valkey_version" not in info and version and _parse_version(version) < _OLDEST:
        found.append(problems.OLD_SERVER.found(server=server, version=version))
    if info.get("redis_mode") == "cluster":
        found.append(problems.CLUSTER.found(server=server))
    return found


def of_prefixes(server: Server, client: redis.Redis, ours: str) -> list[Finding]:
    """Return a finding for each other prefix in the store's database whose jobs may belong to this app.

    This is likely if there is no job yet under our prefix, or if work under the other prefix is overdue.

    Args:
        client: without a prefix.
        ours: the prefix of this app.
    """
    try:
        found = _neglected_prefixes(client, ours)
    except redis.ResponseError:  # the user may not read key names
        return []
    return [problems.OTHER_PREFIX.found(server=server.name, theirs=theirs, ours=ours) for theirs in found]


def _neglected_prefixes(client: Any, ours: str) -> list[str]:
    end = DUE
    found, cursor = set[str](), 0
    for _ in range(_PAGES):
        cursor, keys = client.scan(cursor, match=f"*{glob_escaped(end)}", count=_PAGE)
        found |= {key.decode(errors="replace")[: -len(end)] for key in keys}
        if not cursor:
            break
    ours_is_new = not client.exists(f"{ours}{JOBS}")
    before = client.time()[0] - _LATE
    return [
        prefix for prefix in sorted(found - {ours}) if ours_is_new or client.zcount(f"{prefix}{end}", "-inf", before)
    ]


def _parse_version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _format_megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
