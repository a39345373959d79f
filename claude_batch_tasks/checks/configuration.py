"""The checks of settings and servers that a worker makes at its start, and that ``doctor`` makes among others.

Nothing here stops a worker. The ``of_`` functions decide what is a finding; ``warn`` asks the servers and logs.
"""

from __future__ import annotations

import dataclasses
import re
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import redis
from celery import Celery
from celery.app import backends
from celery.backends.base import DisabledBackend
from celery.backends.redis import RedisBackend
from celery.backends.rpc import RPCBackend
from celery.exceptions import ImproperlyConfigured
from redis.backoff import NoBackoff
from redis.retry import Retry

from claude_batch_tasks import api, transport
from claude_batch_tasks.checks import problems, silent_broker, unread_settings
from claude_batch_tasks.checks.problems import Finding
from claude_batch_tasks.checks.shared_database import neglected_prefixes
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.rules import BATCH_LIFETIME
from claude_batch_tasks.settings import (
    NAMES,
    Settings,
    default_store_url,
    redis_urls,
    spelling,
    visibility_timeout,
)
from claude_batch_tasks.settings.redis_urls import redis_address
from claude_batch_tasks.steps.message_chain import NAME
from claude_batch_tasks.store.redis.prefixing import client_class

log = get_logger(__name__)

#: The deadline, in seconds, for a server's answer; a worker's start waits for it.
PATIENCE = 2.0

#: Seconds for which a connection may be silent before a caller that waits for a job would notice.
_LONG_SILENCE = 30

#: Seconds that a step may take. Long steps are a create or a download of a large batch, and a long answer of the
#: Messages API. Any other step makes one or two calls of at most ``timeout`` seconds.
_LONG_STEP = 600
_STEP = 120
_LONG_STEPS = ("create_batch", "fetch_results", "send_messages")

#: Celery's own default; a project that has more has chosen it.
_PREFETCH = 4

#: The oldest version of a server that has all commands of the store.
_OLDEST = (6, 2)

#: The part of its memory limit from which on a server is nearly full.
_NEARLY = 0.8

#: Findings whose texts name settings already as the project writes them.
_SPELLED = {one.id for one in (problems.INVALID_SETTINGS, problems.NOT_IN_FORCE, problems.LOOKS_LIKE_OURS)}

LOSSES = {
    "store": "the ledger, prompts and results of jobs: they end without results, or their batches are not found again",
    "broker": "messages that wait: their jobs stand still until they are found lost",
    "result back end": "how jobs have ended: whoever waits in get() waits for ever",
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
        return _named(self.roles, redis_address(self.url))


def _named(roles: Sequence[str], where: str) -> str:
    *others, last = roles
    before = f"{', '.join(others)} and " if others else ""
    return f"the {before}{last}'s Redis ({where})"


def of_server(roles: Sequence[str], where: str, info: Mapping[str, Any]) -> list[Finding]:
    """Return the findings from the ``INFO`` of a Redis.

    Args:
        roles: the roles of the server: ``store``, ``broker``, ``result back end``, or several of them.
        where: the server's address.
        info: the whole answer to ``INFO``; a missing field leads to no finding.
    """
    server, loss = _named(roles, where), LOSSES[roles[0]]
    found = []
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        problem = problems.EVICTS_ALL if policy.startswith("allkeys") else problems.EVICTS_SOME
        when = "when it is full" if info.get("maxmemory") else "as soon as a maxmemory is set and reached"
        found.append(problem.found(server=server, policy=policy, when=when, loss=loss))
    if str(info.get("aof_enabled", 1)) == "0":
        found.append(problems.NO_APPEND_ONLY_FILE.found(server=server, loss=loss))
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory") or 0)
    # A server that evicts is normally full.
    if limit and policy == "noeviction" and used >= _NEARLY * limit:
        problem = problems.NEARLY_FULL if used < limit else problems.FULL
        leads = "jobs can neither be submitted nor go on"
        found.append(problem.found(server=server, used=_megabytes(used), limit=_megabytes(limit), leads=leads))
    version = str(info.get("redis_version", ""))
    if "store" in roles and "valkey_version" not in info and version and _version(version) < _OLDEST:
        found.append(problems.OLD_SERVER.found(server=server, version=version))
    if "store" in roles and info.get("redis_mode") == "cluster":
        found.append(problems.CLUSTER.found(server=server))
    if info.get("role") == "slave" and int(info.get("slave_read_only", 1)):
        setting = " and ".join(SETTINGS[role] for role in roles)
        leads = "jobs can neither be submitted nor go on"
        found.append(problems.READ_ONLY.found(server=server, setting=setting, leads=leads))
    return found


#: The exceptions of Celery and kombu for an address of an unknown kind, or of a kind whose package is not installed.
UNUSABLE = (ImportError, LookupError, ValueError, AttributeError, ImproperlyConfigured)

#: The setting that has the address of each role.
SETTINGS = {"store": "claude_batch_store_url", "broker": "broker_url", "result back end": "result_backend"}


def of_transport(guarded: bool) -> list[Finding]:
    """Return the findings about the transport of a Redis broker.

    Args:
        guarded: whether the transport is one of ``claude_batch_tasks.transport``.
    """
    return [] if guarded else [problems.ENDED_BY_RESTARTS.found()]


def of_silence(role: str, seconds: Any, setting: str) -> list[Finding]:
    """Return a finding if the app waits too long on a silent connection.

    Args:
        role: the role of the server.
        seconds: how long the app waits; None: for ever, which leads to no finding.
        setting: the setting that makes the time shorter.
    """
    limit = _number(seconds)
    if limit is None or 0 < limit <= _LONG_SILENCE:
        return []
    return [problems.SILENCE.found(role=role, seconds=limit, setting=setting)]


def of_visibility_timeout(seconds: float) -> list[Finding]:
    """Return a finding if the broker delivers an unacknowledged message again after too few seconds."""
    return [] if seconds >= _LONG_STEP else [problems.SHORT_VISIBILITY_TIMEOUT.found(seconds=seconds)]


def of_settings(conf: Mapping[str, Any]) -> list[Finding]:
    """Return the findings about the app's own Celery settings."""
    found = []
    if conf.get("worker_cancel_long_running_tasks_on_connection_loss"):
        found.append(problems.KILLED_STEPS.found())
    prefetch = _number(conf.get("worker_prefetch_multiplier"))
    if prefetch is not None and (prefetch == 0 or prefetch > _PREFETCH):
        found.append(problems.PREFETCH.found(share="all there is" if prefetch == 0 else f"{prefetch:g} messages"))
    seconds = _number(conf.get("result_expires"))
    if seconds and seconds <= BATCH_LIFETIME:
        found.append(problems.RESULTS_EXPIRE.found(hours=seconds / 3600))
    accepted = _several(conf.get("accept_content"))
    results = _several(conf.get("result_accept_content")) or accepted
    tasks = conf.get("task_serializer")
    if accepted and not any(_accepts(accepted, name) for name in ("json", tasks) if name):
        found.append(problems.NO_SERIALIZER.found(accepted=accepted, used=tasks, right=["json", *accepted]))
        tasks = None  # this finding covers the serializer of tasks
    sent = (("task_serializer", tasks, accepted), ("result_serializer", conf.get("result_serializer"), results))
    for serializer, used, taken in sent:
        if used and taken and not _accepts(taken, used):
            own = taken is results and conf.get("result_accept_content")
            more = f"{'result_accept_content' if own else 'accept_content'} = {[*taken, used]!r}"
            fix = f"{serializer} = 'json'" if used != "json" and _accepts(taken, "json") else more
            found.append(problems.NOT_ACCEPTED.found(setting=serializer, used=used, fix=fix))
    if str(conf.get("task_protocol")) == "1":
        found.append(problems.OLD_PROTOCOL.found())
    used = [conf.get("task_serializer"), conf.get("result_serializer"), *accepted, *results]
    if any(str(name).endswith(("pickle", "python-serialize")) for name in used):
        found.append(problems.PICKLE.found())
    if conf.get("task_always_eager"):
        found.append(problems.EAGER.found())
    if conf.get("task_default_queue_type") == "quorum" and not conf.get("worker_detect_quorum_queues", True):
        found.append(problems.QUORUM_UNDETECTED.found())
    return found


def of_tasks(tasks: Mapping[str, Any], limits: Mapping[str, float | None]) -> list[Finding]:
    """Return the findings about our tasks as annotations (``task_annotations``) or settings have changed them.

    Args:
        tasks: the app's tasks, by name.
        limits: the worker's ``time_limit`` and ``soft_time_limit``, for tasks without their own.
    """
    found = []
    steps = {name: task for name, task in tasks.items() if name.startswith(NAME)}
    if late := sorted(name for name, task in steps.items() if not (task.acks_late and task.reject_on_worker_lost)):
        found.append(problems.EARLY_ACKNOWLEDGED.found(tasks=some(late)))
    short: dict[str, dict[str, float]] = {}
    for name, task in sorted(steps.items()):
        least = _LONG_STEP if name.removeprefix(NAME) in _LONG_STEPS else _STEP
        for limit in ("time_limit", "soft_time_limit"):
            if (seconds := _number(getattr(task, limit) or limits.get(limit))) and seconds < least:
                short.setdefault(name, {})[limit] = seconds
    if short:
        shortest = min(min(of.values()) for of in short.values())
        right = {name: dict.fromkeys(of, 3 * _LONG_STEP) for name, of in short.items()}
        found.append(problems.TIME_LIMITS.found(tasks=some(list(short)), seconds=shortest, right=right))
    return found


def _number(value: Any) -> float | None:
    """Return a number, or a duration in seconds, as a float; None stays None."""
    return value.total_seconds() if isinstance(value, timedelta) else None if value is None else float(value)


def _several(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value or ())


def _accepts(accepted: Sequence[Any], serializer: str) -> bool:
    names = {str(name).rpartition("/")[2].removeprefix("x-") for name in accepted}
    return serializer in names or {"pickle": "python-serialize"}.get(serializer) in names


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def some(names: Sequence[str]) -> str:
    """Return the first name, how many more there are, and the verb: ``a is``, ``a and 2 more are``."""
    more = f" and {len(names) - 1} more are" if len(names) > 1 else " is"
    return f"{names[0]}{more}"


def findings(app: Celery, worker: Any = None) -> Iterator[Finding]:
    """Yield the findings about the app's servers and settings.

    A server that does not answer in time, or refuses ``INFO``, is skipped. A check that fails is a finding itself.

    Args:
        worker: the worker that starts; its command line may differ from the app's settings.
    """
    prefix = readable(app).store_prefix or ""
    found = isolated("servers", lambda: (finding for server in servers(app) for finding in _forgets(server, prefix)))
    yield from in_its_words(app, found)
    yield from static(app, worker)
    yield from in_its_words(app, isolated("silent servers", lambda: of_silent_servers(app)))


def static(app: Celery, worker: Any = None) -> Iterator[Finding]:
    """Yield the findings about the settings alone, without asking any server."""
    for check in (_settings, _unread_settings, _factories, _transport, _result_back_end, _celery_settings, _tasks):
        found = isolated(check.__name__.strip("_").replace("_", " "), partial(check, app, worker))
        yield from in_its_words(app, found)


def in_its_words(app: Celery, found: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the findings with settings spelled as the app reads them: in capitals if Django holds them."""
    for one in found:
        if one.id in _SPELLED:
            yield one
            continue
        text, hint = (spelling.in_its_words(app, words, NAMES) for words in (one.text, one.hint))
        yield one._replace(text=text, hint=hint)


def isolated(what: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield what a check finds, and a finding in place of any exception.

    Settings may have any value, and a check that fails must not hide the findings of others.
    """
    try:
        yield from check()
    except Exception as exc:  # noqa: BLE001
        # The exception's text may contain a part of an address, and so a password.
        yield problems.UNCHECKED.found(what=what, error=type(exc).__name__)


def warn(worker: Any) -> None:
    """Log the findings about a worker that starts; nothing is raised."""
    for finding in findings(worker.app, worker):
        log.log(finding.level, f"claude_batch_tasks: %s ({finding.id})", finding)  # one text for each kind


def servers(app: Celery) -> list[Server]:
    """Return the Redis servers that the app uses, each once."""
    found: dict[str, Server] = {}
    urls: dict[str, Callable[[], str | None]] = {
        "store": lambda: readable(app).store_url,
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


def readable(app: Celery) -> Settings:
    """Return the app's settings without the invalid ones; the store's address may be missing."""
    with suppress(InvalidSettings):
        return Settings.of(app)
    kept: dict[str, Any] = {}
    with suppress(InvalidSettings):
        for name, given in spelling.read_configured(app).items():
            with suppress(InvalidSettings, TypeError):
                Settings(**{**kept, name: given.value})
                kept[name] = given.value
    settings = Settings(**kept)
    with suppress(InvalidSettings):
        settings = dataclasses.replace(settings, store_url=settings.store_url or default_store_url(app))
    if settings.store_prefix is None:
        settings = dataclasses.replace(settings, store_prefix=redis_urls.key_prefix(app))
    return settings


def of_prefixes(server: Server, client: redis.Redis, ours: str) -> list[Finding]:
    """Return a finding for each other prefix in the store's database whose jobs may belong to this app."""
    try:
        found = neglected_prefixes(client, ours)
    except redis.ResponseError:  # the user may not read key names
        return []
    return [problems.OTHER_PREFIX.found(server=server.name, theirs=theirs, ours=ours) for theirs in found]


def _forgets(server: Server, prefix: str) -> list[Finding]:
    try:
        with connected(server.url) as client:
            found = of_server(server.roles, redis_address(server.url), client.info())
            return found + (of_prefixes(server, client, prefix) if "store" in server.roles else [])
    except (redis.RedisError, OSError) as exc:
        log.info("the Redis at %s does not tell how it is set up: %s", redis_address(server.url), type(exc).__name__)
        return []


def connected(url: str, prefix: str = "") -> redis.Redis:
    """Return a Redis client that waits for at most ``PATIENCE`` seconds."""
    limits = {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE, "retry": Retry(NoBackoff(), 0)}
    return redis_urls.connect_redis(url, limits, kind=client_class(prefix))


def _settings(app: Celery, worker: Any) -> Iterator[Finding]:
    try:
        Settings.of(app)
    except InvalidSettings as exc:
        yield problems.INVALID_SETTINGS.found(error=exc)


def _unread_settings(app: Celery, worker: Any) -> Iterator[Finding]:
    return unread_settings.findings(app, readable(app))


def _factories(app: Celery, worker: Any) -> Iterator[Finding]:
    for alias, factory in readable(app).client_factories.items():
        if error := api.why_unusable(factory):
            yield problems.NO_SUCH_FACTORY.found(alias=alias, factory=factory, error=error)


def _transport(app: Celery, worker: Any) -> Iterator[Finding]:
    try:
        used: Any = app.connection_for_read().get_transport_cls()
    except UNUSABLE as exc:
        error = _why_unusable(exc, app.conf.broker_read_url or app.conf.broker_url)
        yield problems.UNUSABLE_URL.found(role="broker", setting="broker_url", error=error)
        return
    if (kind := getattr(used, "driver_type", None)) in ("memory", "filesystem") and not app.conf.task_always_eager:
        yield problems.LOCAL_BROKER.found(transport=f"{kind}://")
    if kind != "redis":
        return
    yield from of_transport(issubclass(used.Channel, transport.Bounded))
    given = (app.conf.broker_transport_options or {}).get("visibility_timeout", 0)
    if isinstance(given, (int, float)):
        yield from of_visibility_timeout(visibility_timeout(app))
    else:
        yield problems.VISIBILITY_TIMEOUT_IS_NO_NUMBER.found(value=given)


def _result_back_end(app: Celery, worker: Any) -> Iterator[Finding]:
    try:
        used = result_back_end(app)
    except UNUSABLE as exc:
        yield unusable_result_back_end(app, exc)
        return
    if used is DisabledBackend:
        yield problems.NO_RESULTS.found()
    elif used is RPCBackend:
        yield problems.RPC_RESULTS.found()


def of_silent_servers(app: Celery) -> Iterator[Finding]:
    """Yield the findings about how long the app waits for servers that have fallen silent."""
    with suppress(*UNUSABLE):
        kind, seconds = app.connection_for_read().get_transport_cls().driver_type, app.conf.broker_heartbeat
        if kind == "amqp" and (seconds := silent_broker.heartbeat_of(seconds)):
            yield from of_silence("broker", 2 * seconds, "broker_heartbeat = 10")
    with suppress(*UNUSABLE):
        if issubclass(result_back_end(app), RedisBackend):
            yield from of_silence("result back end", app.conf.redis_socket_timeout, "redis_socket_timeout = 10")


def result_back_end(app: Celery) -> type:
    """Return the class of the result back end; an instance might connect."""
    by_url: Any = backends.by_url(app.conf.result_backend or "disabled", app.loader)
    used: type = by_url[0]
    return used


def unusable_result_back_end(app: Celery, exc: Exception) -> Finding:
    """Return the finding for a result back end whose kind is unknown or not installed, or whose address is invalid."""
    error = _why_unusable(exc, app.conf.result_backend)
    return problems.UNUSABLE_URL.found(role="result back end", setting="result_backend", error=error)


def _celery_settings(app: Celery, worker: Any) -> list[Finding]:
    prefetch = getattr(worker, "prefetch_multiplier", None)
    return of_settings(app.conf if prefetch is None else ChainMap({"worker_prefetch_multiplier": prefetch}, app.conf))


def _tasks(app: Celery, worker: Any) -> list[Finding]:
    limits = {
        name: getattr(worker, name, None) or app.conf[f"task_{name}"] for name in ("time_limit", "soft_time_limit")
    }
    return of_tasks(app.tasks, limits)


def masked(text: str) -> str:
    """Return a text without what stands between ``//`` and ``@`` in addresses, and without passwords after a ``?``."""
    # A password that is not quoted properly may contain both signs.
    text = re.sub(r"//\S*@", "//***@", text)
    return re.sub(r"(?i)([?&]\w*(?:pass|secret|token|key|sentinel_kwargs)\w*=)[^&\s]*", r"\1***", text)


def _why_unusable(exc: Exception, urls: Any) -> str:
    """Return what is wrong with an address.

    The text quotes nothing of an address that cannot be parsed, since that may be a part of its password.
    """
    try:
        for url in _several(urls):
            _ = urlsplit(str(url)).port
    except ValueError:
        return "it is no address; signs such as / @ [ in a password are written %2F %40 %5B"
    return f"{type(exc).__name__}: {masked(str(exc))}"
