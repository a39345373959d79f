"""What a Redis that is the store says of itself, and what its user may not do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import redis

from claude_batch_tasks.records import ServerProblem, ServerReport
from claude_batch_tasks.settings import redis_reports
from claude_batch_tasks.store.redis.connection import Connection
from claude_batch_tasks.store.redis.keys import DUE, JOBS, PREFIX
from claude_batch_tasks.store.redis.prefixing import glob_escaped

#: The oldest version of a server that has all commands of the store.
OLDEST = (6, 2)

#: How many pages of key names are read at most to find other prefixes, and how many names a page has.
_PAGES, _PAGE = 100, 1000

#: Seconds by which work under another prefix must be overdue before it seems that no worker does it.
_LATE = 600

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


class RedisInspection:
    """``interface.Inspection`` on a Redis server.

    Args:
        connect: makes a client that soon gives up, with connections of its own and without a prefix.
    """

    def __init__(self, connection: Connection, connect: Callable[[], redis.Redis]) -> None:
        self._connection = connection
        self._connect = connect
        self._prefix = connection.prefix

    def inspect_server(self, *, thorough: bool) -> ServerReport:
        with self._connect() as server:
            report, info = redis_reports.report_server(server)
            if report.problems and not info:
                return report
            found = [*report.problems, *judge_version(info)]
            try:
                found += self._find_prefixes(server)
                if thorough:
                    known = {each.kind for each in found}
                    found += (each for each in self._find_refusals(server) if each.kind not in known)
            except (redis.RedisError, OSError) as exc:
                found.append(redis_reports.no_answer(exc))
        return report._replace(problems=tuple(found))

    def leave_mark(self, token: str, ttl: float) -> None:
        try:
            with self._connect() as server:
                server.set(self._mark(token), "1", px=int(ttl * 1000))
        except (redis.RedisError, OSError) as exc:
            raise self._connection.unavailable(exc) from exc

    def has_mark(self, token: str) -> bool:
        try:
            with self._connect() as server:
                return bool(server.exists(self._mark(token)))
        except (redis.RedisError, OSError) as exc:
            raise self._connection.unavailable(exc) from exc

    def _mark(self, token: str) -> str:
        return f"{self._prefix}{PREFIX}:doctor:{token}"

    def _find_prefixes(self, server: Any) -> list[ServerProblem]:
        """Return a problem for each other prefix in the database whose jobs may belong to this app.

        This is likely if there is no job yet under our prefix, or if work under the other prefix is overdue.
        """
        try:
            found = self._neglected_prefixes(server)
        except redis.ResponseError:  # the user may not read key names
            return []
        return [ServerProblem("OTHER_PREFIX", {"theirs": theirs, "ours": self._prefix}) for theirs in found]

    def _neglected_prefixes(self, server: Any) -> list[str]:
        found, cursor = set[str](), 0
        for _ in range(_PAGES):
            cursor, keys = server.scan(cursor, match=f"*{glob_escaped(DUE)}", count=_PAGE)
            found |= {key.decode(errors="replace")[: -len(DUE)] for key in keys}
            if not cursor:
                break
        ours_is_new = not server.exists(f"{self._prefix}{JOBS}")
        before = server.time()[0] - _LATE
        return [
            prefix
            for prefix in sorted(found - {self._prefix})
            if ours_is_new or server.zcount(f"{prefix}{DUE}", "-inf", before)
        ]

    def _find_refusals(self, server: Any) -> Iterator[ServerProblem]:
        """Yield what the store's user may not do, or what no user may do at present."""
        user = server.connection_pool.connection_kwargs.get("username") or "default"
        answers = _probe_commands(server, f"{self._prefix}{PREFIX}:doctor:{uuid4().hex}")
        forbidden = dict.fromkeys(name for name, answer in answers if _is_forbidden(answer))
        for _, answer in answers:
            if (found := refused_to_all(answer)) is not None:
                yield found
                return
        if forbidden:
            # SUBSCRIBE is not tried: a connection that subscribes does nothing else from then on.
            names = [*forbidden, *(["SUBSCRIBE"] if "PUBLISH" in forbidden else [])]
            ours = f"{glob_escaped(self._prefix)}{PREFIX}*"
            channels = f" &{ours}" if "PUBLISH" in forbidden else ""
            rules = " ".join(f"+{name.lower()}" for name in names)
            commands = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
            fix = f"ACL SETUSER {user} ~{ours}{channels} {rules}"
            yield ServerProblem("NOT_PERMITTED", {"commands": commands, "fix": fix})


def refused_to_all(answer: Any) -> ServerProblem | None:
    """Return the problem in an answer that any user would get; None if there is none."""
    if isinstance(answer, redis.exceptions.OutOfMemoryError):
        return ServerProblem("FULL", {"used": "all", "limit": "its maxmemory"})
    if isinstance(answer, redis.exceptions.ReadOnlyError):
        return ServerProblem("READ_ONLY")
    if "MISCONF" in str(answer):
        return ServerProblem("REFUSES_WRITES", {"error": "it cannot write to its disk"})
    return None


def judge_version(info: Mapping[str, Any]) -> list[ServerProblem]:
    """Return the problems of a server that cannot be the store."""
    found = []
    version = str(info.get("redis_version", ""))
    if "valkey_version" not in info and version and _parse_version(version) < OLDEST:
        values = {"version": version, "least": "6.2", "fix": "Redis 6.2 or newer, or Valkey"}
        found.append(ServerProblem("OLD_SERVER", values))
    if info.get("redis_mode") == "cluster":
        found.append(ServerProblem("CLUSTER"))
    return found


def _parse_version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _probe_commands(server: Any, key: str) -> list[tuple[str, Any]]:
    """Send every command that the store sends, and return their names with the answers, errors among them."""
    probes = [probe.strip().format(key=key).split() for probe in PROBES.split("|")]
    options = server.connection_pool.connection_kwargs
    if options.get("db"):  # redis-py sends SELECT when it connects, and cannot connect if that is forbidden
        probes.insert(0, ["SELECT", str(options["db"])])
        options["db"] = 0
        server.connection_pool.reset()
    with server.pipeline(transaction=False) as batch:
        for probe in probes:
            batch.execute_command(*probe)
        answers = batch.execute(raise_on_error=False)
    return [(probe[0], answer) for probe, answer in zip(probes, answers, strict=True)]


def _is_forbidden(answer: Any) -> bool:
    """Return whether the server's access rules refuse a command; the error for EXEC has a text of its own."""
    return isinstance(answer, redis.exceptions.NoPermissionError) or "NOPERM" in str(answer)
