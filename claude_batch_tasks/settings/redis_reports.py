"""What a Redis says of itself, whatever the app uses it for: whether it answers, and whether it keeps its data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from claude_batch_tasks.records import ServerProblem, ServerReport
from claude_batch_tasks.settings import redis_urls

#: The deadline, in seconds, for a server's answer; a worker's start waits for it.
ANSWER_TIMEOUT = 2.0

#: The part of its memory limit from which on a server is nearly full.
_NEARLY = 0.8


def connect_client(url: str) -> redis.Redis:
    """Return a Redis client that waits for at most ``ANSWER_TIMEOUT`` seconds."""
    timeouts = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), ANSWER_TIMEOUT)
    return redis_urls.connect_redis(url, {**timeouts, "retry": Retry(NoBackoff(), 0)})


def inspect_redis(url: str) -> ServerReport:
    """Return what the Redis at a URL says of itself."""
    with connect_client(url) as client:
        return report_server(client)[0]


def report_server(client: Any) -> tuple[ServerReport, Mapping[str, Any]]:
    """Return what a server says of itself, and its answer to ``INFO``; empty, if it gave none."""
    if (problem := _find_unreachable(client)) is not None:
        return ServerReport(problems=(problem,)), {}
    try:
        info: dict[str, Any] = client.info()
    except redis.ResponseError:
        return ServerReport(notes=("does not permit its user to run INFO",)), {}
    except (redis.RedisError, OSError) as exc:
        return ServerReport(problems=(no_answer(exc),)), {}
    database = client.connection_pool.connection_kwargs.get("db") or 0
    state = _describe_state(info, database)
    return ServerReport(name_product(info), state, _measure_ahead(client), (), tuple(judge_info(info))), info


def no_answer(exc: BaseException) -> ServerProblem:
    """Return the problem of a server that does not answer."""
    return ServerProblem("NO_ANSWER", {"error": f"{type(exc).__name__}: {exc}"})


def judge_info(info: Mapping[str, Any]) -> list[ServerProblem]:
    """Return the problems that the answer to ``INFO`` shows; a missing field shows none."""
    found = []
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        kind = "EVICTS_ALL" if policy.startswith("allkeys") else "EVICTS_SOME"
        when = "when it is full" if info.get("maxmemory") else "as soon as a maxmemory is set and reached"
        found.append(ServerProblem(kind, {"policy": policy, "when": when}))
    if str(info.get("aof_enabled", 1)) == "0":
        found.append(ServerProblem("NO_APPEND_ONLY_FILE"))
    if policy == "noeviction":  # a server that evicts is normally full
        found += _judge_memory(info)
    if info.get("role") == "slave" and int(info.get("slave_read_only", 1)):
        found.append(ServerProblem("READ_ONLY"))
    return found


def name_product(info: Mapping[str, Any]) -> str:
    """Return the product and version that a server's ``INFO`` has: ``Valkey 8.1.0``."""
    name = "Valkey" if "valkey_version" in info else "Redis"
    return f"{name} {info.get('valkey_version', info.get('redis_version'))}"


def _find_unreachable(client: Any) -> ServerProblem | None:
    """Return the problem of a server that does not let this process in; None if it does."""
    try:
        client.ping()
    except redis.exceptions.NoPermissionError:
        pass
    except redis.exceptions.AuthenticationError:
        return ServerProblem("REFUSED_PASSWORD", {"scheme": _scheme(client.connection_pool)})
    except redis.ResponseError as exc:
        if "DB index" in str(exc):
            return ServerProblem("NO_DATABASE", {"database": client.connection_pool.connection_kwargs.get("db")})
        return no_answer(exc)
    except (redis.RedisError, OSError) as exc:
        return no_answer(exc)
    return None


def _scheme(pool: Any) -> str:
    if isinstance(pool, SentinelConnectionPool):
        return "sentinel"
    return "rediss" if issubclass(pool.connection_class, redis.SSLConnection) else "redis"


def _judge_memory(info: Mapping[str, Any]) -> list[ServerProblem]:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory") or 0)
    if not limit or used < _NEARLY * limit:
        return []
    kind = "NEARLY_FULL" if used < limit else "FULL"
    return [ServerProblem(kind, {"used": f"{used / 1e6:,.0f} MB", "limit": f"{limit / 1e6:,.0f} MB"})]


def _describe_state(info: Mapping[str, Any], database: int) -> str:
    keys = info.get(f"db{database}", {}).get("keys", 0)
    limit = f"of {info['maxmemory'] / 1e6:,.0f} MB" if info.get("maxmemory") else "without a limit"
    return f"{keys:,} keys in database {database}, {info.get('used_memory', 0) / 1e6:,.0f} MB {limit}"


def _measure_ahead(client: Any) -> float | None:
    before = time.time()
    try:
        seconds, microseconds = client.time()
    except (redis.RedisError, OSError):
        return None
    return (before + time.time()) / 2 - float(seconds + microseconds / 1e6)
