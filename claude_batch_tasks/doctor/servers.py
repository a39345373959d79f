"""The checks of store, broker and result back end: whether they answer, accept our user, and keep their data."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import redis
from celery import Celery
from celery.app import backends
from celery.backends.base import DisabledBackend
from celery.backends.rpc import RPCBackend

from claude_batch_tasks.checks import configuration, connections, problems, redis_servers
from claude_batch_tasks.checks.problems import Finding, ok
from claude_batch_tasks.checks.redis_servers import STALLED, Server
from claude_batch_tasks.settings.redis_urls import database_of, redis_address
from claude_batch_tasks.store.redis.keys import PREFIX
from claude_batch_tasks.store.redis.prefixing import glob_escaped

#: Seconds by which clocks may differ that are not synchronized.
DRIFT = 10.0

_LEADS = {"store": STALLED, "broker": STALLED, "result back end": "result.get() and result.state fail"}

#: Every command that the store sends. The keys that they write are removed at the end; nothing else is left behind.
PROBES = """
SET {key} 1 PX 60000 | INCR {key} | GET {key} | GETRANGE {key} 0 1 | SETBIT {key} 7 1 | GETBIT {key} 7 | BITCOUNT {key}
| EXISTS {key} | EXPIRE {key} 60 | PEXPIRE {key} 60000 | PTTL {key} | PERSIST {key} | RENAME {key} {key} | HSET {key}:h
a 1 | HSETNX {key}:h b 1 | HGET {key}:h a | HMGET {key}:h a b | HGETALL {key}:h | HLEN {key}:h | HEXISTS {key}:h a |
HINCRBY {key}:h a 1 | HINCRBYFLOAT {key}:h a 1 | HSCAN {key}:h 0 | HDEL {key}:h a b | RPUSH {key}:l a | LPUSH {key}:l b
| LTRIM {key}:l 0 1 | LPOP {key}:l | LINDEX {key}:l 0 | LLEN {key}:l | LRANGE {key}:l 0 0 | ZADD {key}:z 1 a | ZCARD
{key}:z | ZCOUNT {key}:z 0 1 | ZSCORE {key}:z a | ZMSCORE {key}:z a | ZRANGE {key}:z 0 0 | ZRANGEBYSCORE {key}:z 0 1 |
ZREVRANGEBYSCORE {key}:z 1 0 | ZREM {key}:z b | ZREMRANGEBYSCORE {key}:z 2 3 | ZSCAN {key}:z 0 | ZPOPMIN {key}:z |
HKEYS {key}:h | SADD {key}:s a | SREM {key}:s b | PING | TIME | SCAN 0 COUNT 1 | EVALSHA 0 0 | SCRIPT LOAD return |
SCRIPT EXISTS 0 | MULTI | EXEC | INCRBY {key} 1 | LSET {key}:l 0 b | PUBLISH {key} 1 | DEL {key} |
UNLINK {key} {key}:h {key}:l {key}:z {key}:s
"""

#: Words in the error text of a failed connection, the cause, and what to do.
_CAUSES = (
    (
        ("no master found",),  # first, since the text goes on with options such as socket_timeout
        "its Sentinels do not answer, or know no master of that name",
        "Start them, or correct {setting} and master_name",
    ),
    (("refused",), "no server listens there", "Start it, or correct {setting}"),
    (
        ("name or service", "name resolution", "nodename", "getaddrinfo", "no address associated"),
        "its name cannot be resolved",
        "Correct the host in {setting}",
    ),
    (
        ("ssl", "certificate", "tls"),
        "TLS: {error}",
        "rediss:// (amqps://) in {setting} if that speaks TLS, redis:// (amqp://) if not; ssl_ca_certs=<file> for "
        "your own certificate authority",
    ),
    (
        ("timeout", "timed out", "unreachable", "no route"),
        "no answer in time",
        "Allow it in the firewall, or correct {setting}",
    ),
    (
        ("closed", "reset", "aborted", "broken pipe"),
        "it closes the connection",
        "rediss:// (amqps://) in {setting} if the server speaks TLS; else see that server's log",
    ),
    (("loading",), "it still reads its data", "Wait, and run doctor again"),
    (("",), "{error}", "See that server's log, and {setting}"),
)


def check_servers(app: Celery) -> Iterator[Finding]:
    """Check every server that the app uses."""
    settings = configuration.readable_settings(app)
    found = redis_servers.find_servers(app, settings)
    for server in found:
        yield from configuration.run_isolated(server.name, partial(_check_redis, server, settings.store_prefix or ""))
    asked = {role for server in found for role in server.roles}
    if "broker" not in asked:
        yield from configuration.run_isolated("broker", partial(_other_broker, app))
    if "result back end" not in asked:
        yield from configuration.run_isolated("result back end", partial(_other_result_back_end, app))
    yield from configuration.run_isolated("silent servers", partial(connections.of_silent_servers, app))


def no_answer(name: str, setting: str, leads: str, exc: BaseException) -> Finding:
    """Return the finding for a server that does not answer, with the cause that the client's error shows."""
    error = " ".join(f"{type(exc).__name__}: {connections.mask_passwords(str(exc))}".split())
    why, fix = next((why, fix) for words, why, fix in _CAUSES if any(word in error.lower() for word in words))
    found = {"why": why.format(error=error), "fix": fix.format(setting=setting)}
    return problems.NO_ANSWER.found(server=name, leads=leads, **found)


class Drift(NamedTuple):
    """The difference between two clocks in seconds, and its direction.

    ``ours``: ``ahead of`` or ``behind``, said of this machine's clock. ``theirs``: the same, said of the other clock.
    """

    seconds: float
    ours: str
    theirs: str


def measure_drift(theirs: float, before: float) -> Drift | None:
    """Return how this machine's clock differs from another; None if they differ by no more than ``DRIFT``.

    Args:
        theirs: the time of the other clock, in epoch seconds.
        before: the time of this machine's clock just before the other was read, in epoch seconds.
    """
    ahead = (before + time.time()) / 2 - theirs
    if abs(ahead) <= DRIFT:
        return None
    return Drift(ahead, "ahead of", "behind") if ahead > 0 else Drift(-ahead, "behind", "ahead of")


def _check_redis(server: Server, prefix: str) -> Iterator[Finding]:
    if missing := _missing_databases(server):
        yield from missing
        return
    setting, leads = redis_servers.name_settings(server.roles), _LEADS[server.roles[0]]
    about = {"server": server.name, "setting": setting, "leads": leads}
    with redis_servers.connect_client(server.url) as client:
        if (unreachable := _find_unreachable(server, client, about)) is not None:
            yield unreachable
            return
        found, info = _judge_info(server, client)
        if "store" in server.roles:
            found += redis_servers.of_prefixes(server, client, prefix)
            known = {one.id for one in found}
            found += (one for one in _find_refusals(server, client, about, prefix) if one.id not in known)
        if info:
            found += _compare_clocks(server, client)
        yield from found
        if all(one.level < logging.WARNING for one in found):
            yield ok(f"{server.name} answers" + _describe_server(info, database_of(server.url)))


def _find_unreachable(server: Server, client: Any, about: dict[str, Any]) -> Finding | None:
    """Return the finding about a server that does not let this process in; None if it does."""
    try:
        client.ping()
    except redis.exceptions.NoPermissionError:
        pass
    except redis.exceptions.AuthenticationError:
        return problems.REFUSED_PASSWORD.found(**about, scheme=urlsplit(server.url).scheme)
    except (redis.RedisError, OSError) as exc:
        return no_answer(server.name, about["setting"], about["leads"], exc)
    return None


def _judge_info(server: Server, client: Any) -> tuple[list[Finding], dict[str, Any]]:
    """Return the findings from how the server is set up, and its answer to ``INFO``; empty if the user has no right."""
    try:
        info: dict[str, Any] = client.info()
    except redis.ResponseError:
        return [ok(f"{server.name} does not permit its user to run INFO")], {}
    return redis_servers.of_server(server.roles, redis_address(server.url), info), info


def _missing_databases(server: Server) -> list[Finding]:
    found = []
    for role, url in server.urls.items():
        try:
            with redis_servers.connect_client(url) as client:
                client.ping()
        except redis.ResponseError as exc:
            if "DB index" in str(exc):
                database, about = database_of(url), {"setting": redis_servers.SETTINGS[role], "leads": _LEADS[role]}
                found.append(problems.NO_DATABASE.found(server=server.name, database=database, **about))
        except (redis.RedisError, OSError):
            break  # the next request to the server reports it
    return found


def _describe_server(info: dict[str, Any], database: int) -> str:
    if not info:
        return ""
    product = redis_servers.name_product(info)
    keys = info.get(f"db{database}", {}).get("keys", 0)
    limit = f"of {info['maxmemory'] / 1e6:,.0f} MB" if info.get("maxmemory") else "without a limit"
    return f": {product}, {keys:,} keys in database {database}, {info['used_memory'] / 1e6:,.0f} MB {limit}"


def _find_refusals(server: Server, client: Any, about: dict[str, Any], prefix: str) -> Iterator[Finding]:
    """Yield findings about what the store's user may not do, or what no user may do at present."""
    key = f"{prefix}{PREFIX}:doctor:{uuid4().hex}"
    answers = _probe_commands(client, key)
    forbidden = dict.fromkeys(name for name, answer in answers if _is_forbidden(answer))
    for _, answer in answers:
        if (found := _refused_to_all(answer, about)) is not None:
            yield found
            return
    if forbidden:
        # SUBSCRIBE is not tried: a connection that subscribes does nothing else from then on.
        names = [*forbidden, *(["SUBSCRIBE"] if "PUBLISH" in forbidden else [])]
        commands = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        rules = " ".join(f"+{name.lower()}" for name in names)
        user = urlsplit(server.url).username or "default"
        about |= {"commands": commands, "user": user, "rules": rules}
        ours = f"{glob_escaped(prefix)}{PREFIX}*"
        channels = f" &{ours}" if "PUBLISH" in forbidden else ""
        yield problems.NOT_PERMITTED.found(**about, keys=f"~{ours}{channels}")


def _refused_to_all(answer: Any, about: dict[str, Any]) -> Finding | None:
    """Return the finding from an answer that any user would get; None if there is no such problem."""
    if isinstance(answer, redis.exceptions.OutOfMemoryError):
        return problems.FULL.found(**about, used="all", limit="its maxmemory")
    if isinstance(answer, redis.exceptions.ReadOnlyError):
        return problems.READ_ONLY.found(**about)
    if "MISCONF" in str(answer):
        return problems.REFUSES_WRITES.found(**about, error="it cannot write to its disk")
    return None


def _probe_commands(client: Any, key: str) -> list[tuple[str, Any]]:
    """Send every command that the store sends, and return their names with the answers, errors among them."""
    probes = [probe.strip().format(key=key).split() for probe in PROBES.split("|")]
    options = client.connection_pool.connection_kwargs
    if options.get("db"):  # redis-py sends SELECT when it connects, and cannot connect if that is forbidden
        probes.insert(0, ["SELECT", str(options["db"])])
        options["db"] = 0
        client.connection_pool.reset()
    with client.pipeline(transaction=False) as pipe:
        for probe in probes:
            pipe.execute_command(*probe)
        answers = pipe.execute(raise_on_error=False)
    return [(probe[0], answer) for probe, answer in zip(probes, answers, strict=True)]


def _is_forbidden(answer: Any) -> bool:
    """Return whether the server's access rules refuse a command; the error for EXEC has a text of its own."""
    return isinstance(answer, redis.exceptions.NoPermissionError) or "NOPERM" in str(answer)


def _compare_clocks(server: Server, client: Any) -> Iterator[Finding]:
    before = time.time()
    try:
        seconds, microseconds = client.time()
    except redis.ResponseError:
        return
    if differs := measure_drift(seconds + microseconds / 1e6, before):
        yield problems.SERVER_CLOCK.found(server=server.name, seconds=differs.seconds, direction=differs.theirs)


def _other_broker(app: Celery) -> Iterator[Finding]:
    """Check a broker that is not Redis, or that is reached through Sentinels."""
    try:
        unconnected = quick_connection(app)
    except connections.UNUSABLE:  # the check of the settings reports it
        return
    with unconnected as connection:
        name = f"the broker ({connections.mask_passwords(connection.as_uri())})"
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, reraise_as_library_errors=False)
        except Exception as exc:  # noqa: BLE001 - of any broker's client
            if "ACCESS_REFUSED" in str(exc) or "AccessRefused" in type(exc).__name__:
                yield problems.REFUSED_PASSWORD.found(server=name, setting="broker_url", scheme="amqp", leads=STALLED)
            elif "vhost" in str(exc):
                database = f"(virtual host) {connection.virtual_host!r}"
                yield problems.NO_DATABASE.found(server=name, setting="broker_url", database=database, leads=STALLED)
            else:
                yield no_answer(name, "broker_url", STALLED, exc)
            return
        yield ok(f"{name} answers" + broker_version(connection))


def broker_version(connection: Any) -> str:
    """Return the product and version that the broker reports, as ``: RabbitMQ 3.13.1``; empty if it reports none."""
    info = getattr(connection.connection, "server_properties", None) or {}
    return f": {info['product']} {info['version']}" if "version" in info else ""


@contextmanager
def open_broker(app: Celery) -> Iterator[Any]:
    """Yield a connection to the broker, or None if it does not answer."""
    try:
        connection = quick_connection(app).ensure_connection(max_retries=1, interval_start=0)
    except Exception:  # noqa: BLE001 - of any broker's client; another check reports the cause
        yield None
        return
    with connection:
        yield connection


def quick_connection(app: Celery) -> Any:
    """Return a connection to the broker that gives up soon."""
    redis_like = app.connection_for_write().get_transport_cls().driver_type == "redis"
    # When it is closed, kombu 5.5 may wait for an answer that it has read already.
    limits = (
        {"socket_connect_timeout": redis_servers.PATIENCE, "socket_timeout": redis_servers.PATIENCE}
        if redis_like
        else {}
    )
    return app.connection_for_write(connect_timeout=redis_servers.PATIENCE, transport_options=limits)


def _other_result_back_end(app: Celery) -> Iterator[Finding]:
    """Check a result back end that is not Redis by its address.

    A database is only connected to; any other back end is asked for a result that does not exist.
    """
    try:
        used = connections.result_back_end(app)
    except connections.UNUSABLE:  # the check of the settings reports it
        return
    if used in (DisabledBackend, RPCBackend):
        return
    answered: list[Any] = []

    def ask_backend() -> None:
        try:
            if _is_database(used):
                _connect_database(app)
                answered.append(None)
                return
            backend: Any = app.backend
            answered.append(backend.get_task_meta(f"claude-batch-doctor-{uuid4().hex}"))
        except Exception as exc:  # noqa: BLE001 - of any back end's client
            answered.append(exc)

    name = f"the result back end ({connections.mask_passwords(str(app.conf.result_backend))})"
    thread = threading.Thread(target=ask_backend, daemon=True)
    thread.start()
    thread.join(3 * redis_servers.PATIENCE)
    answer = answered[0] if answered else TimeoutError("no answer in time")
    if isinstance(answer, connections.UNUSABLE):
        yield connections.unusable_result_back_end(app, answer)  # a driver is not installed
    elif isinstance(answer, Exception):
        yield no_answer(name, "result_backend", _LEADS["result back end"], answer)
    else:
        yield ok(f"{name} answers")


def _is_database(back_end: type) -> bool:
    return any(base.__module__ == "celery.backends.database" for base in back_end.__mro__)


def _connect_database(app: Celery) -> None:
    """Connect to the database of a result back end.

    The back end itself would create its tables, and would retry a missing database for longer than we wait.
    """
    from sqlalchemy import create_engine

    made: Any = backends.by_url(app.conf.result_backend, app.loader)
    engine = create_engine(made[1] or app.conf.database_url, **(app.conf.database_engine_options or {}))
    try:
        engine.connect().close()
    finally:
        engine.dispose()
