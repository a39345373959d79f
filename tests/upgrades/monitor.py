"""What a Redis is told to do, as its ``MONITOR`` shows it: each command, those of scripts as well."""

from __future__ import annotations

import codecs
import re
import socket
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import redis

_ARGUMENT = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)

#: Which of the arguments that follow the key are names in it.
_ALL, _FIRST, _PAIRS, _NONE = slice(None), slice(1), slice(None, None, 2), slice(0)

#: By command: the type of its key, and which of its arguments are fields or members.
_NAMES: dict[str, tuple[str, slice]] = {
    **dict.fromkeys(("HSET", "HMSET"), ("hash", _PAIRS)),
    **dict.fromkeys(("HMGET", "HDEL"), ("hash", _ALL)),
    **dict.fromkeys(("HSETNX", "HGET", "HEXISTS", "HINCRBY", "HINCRBYFLOAT"), ("hash", _FIRST)),
    **dict.fromkeys(("HGETALL", "HLEN", "HKEYS", "HSCAN"), ("hash", _NONE)),
    "ZADD": ("zset", slice(1, None, 2)),
    **dict.fromkeys(("ZREM", "ZMSCORE"), ("zset", _ALL)),
    "ZSCORE": ("zset", _FIRST),
    **dict.fromkeys(
        (
            *("ZCARD", "ZCOUNT", "ZPOPMIN", "ZRANGE", "ZRANGEBYSCORE", "ZREVRANGEBYSCORE"),
            *("ZREMRANGEBYSCORE", "ZREMRANGEBYRANK"),
        ),
        ("zset", _NONE),
    ),
    **dict.fromkeys(("SADD", "SREM"), ("set", _ALL)),
    "SMEMBERS": ("set", _NONE),
    **dict.fromkeys(("RPUSH", "LPUSH", "LPOP", "RPOP", "LTRIM", "LLEN", "LRANGE", "LINDEX", "LSET"), ("list", _NONE)),
    **dict.fromkeys(("SET", "GET", "INCRBY", "SETBIT", "GETBIT", "BITCOUNT", "GETRANGE", "STRLEN"), ("string", _NONE)),
    **dict.fromkeys(("EXPIRE", "PEXPIRE", "PERSIST", "TTL", "PTTL", "TYPE"), ("", _NONE)),
}

#: What may stand before scores in a ``ZADD``.
_OPTIONS = {"NX", "XX", "GT", "LT", "CH"}

#: Commands all of whose arguments are keys.
_OF_KEYS = {"DEL", "UNLINK", "EXISTS", "RENAME"}

#: Commands that make or change something.
WRITES = {
    *("HSET", "HMSET", "HSETNX", "HINCRBY", "HINCRBYFLOAT", "ZADD", "SADD", "RPUSH", "LPUSH"),
    *("SET", "INCRBY", "SETBIT"),
}

#: Commands without keys, and those whose keys their own commands show.
_OTHERS = {"EVAL", "EVALSHA", "SCAN", "KEYS", "PUBLISH", "SUBSCRIBE"}


class Monitor:
    """Hears all commands that a server is sent while it is entered.

    Args:
        client: of the server.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        #: Each command in capitals with its arguments, in the order in which they ran.
        self.commands: list[list[str]] = []
        self._told = threading.Condition()

    def __enter__(self) -> Monitor:
        address = self._client.connection_pool.connection_kwargs
        self._socket = socket.create_connection((address.get("host", "localhost"), address["port"]))
        self._socket.sendall(b"MONITOR\r\n")
        self._lines = self._socket.makefile("rb")
        assert self._lines.readline() == b"+OK\r\n"
        threading.Thread(target=self._hear, name="monitor", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until all is heard that was sent before."""
        last = ["ECHO", uuid.uuid4().hex]
        self._client.echo(last[1])
        with self._told:
            heard = self._told.wait_for(lambda: last in self.commands[-100:], timeout=30)
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        assert heard or error is not None

    def _hear(self) -> None:
        for line in self._lines:
            command, *args = (
                codecs.escape_decode(found)[0].decode(errors="backslashreplace") for found in _ARGUMENT.findall(line)
            )
            with self._told:
                self.commands.append([command.upper(), *args])
                self._told.notify_all()


def touched(commands: Iterable[list[str]], prefix: str) -> list[tuple[str, str, list[str]]]:
    """Return each key that begins so, with its type and the fields or members of it that commands named.

    The type is empty where no command told it, and a question where one is not known here.
    """
    kinds: dict[str, set[str]] = defaultdict(set)
    names: dict[str, set[str]] = defaultdict(set)
    for command, *args in commands:
        if not args or command in _OTHERS:
            continue
        for key in args if command in _OF_KEYS else args[:1]:
            if not key.startswith(prefix):
                continue
            kind, named = ("", _NONE) if command in _OF_KEYS else _NAMES.get(command, (f"{command}?", _NONE))
            kinds[key] |= {kind} - {""}
            rest = [arg for arg in args[1:] if arg not in _OPTIONS] if command == "ZADD" else args[1:]
            names[key].update(rest[named])
    return [(key, " or ".join(sorted(kinds[key])), sorted(names[key])) for key in sorted(kinds)]
