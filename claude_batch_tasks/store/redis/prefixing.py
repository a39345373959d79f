"""A Redis client all of whose keys begin with a project's prefix, so that several projects share a database."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import redis
from redis.client import Pipeline

#: Commands without a key.
_KEYLESS = {"ACL", "CLIENT", "EXEC", "INFO", "MULTI", "PING", "SCAN", "SCRIPT", "SELECT", "TIME"}

#: Commands all of whose arguments are keys.
_KEYS_ONLY = {"DEL", "EXISTS", "UNLINK"}


class _Prefixing:
    """Puts the prefix in front of each key that is sent."""

    key_prefix = ""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        command = str(args[0]).split()[0].upper()
        answer = super().execute_command(*self._with_prefix(command, list(args)), **options)  # type: ignore[misc]
        if command == "SCAN" and isinstance(answer, (tuple, list)):
            return answer[0], [key[len(self.key_prefix.encode()) :] for key in answer[1]]
        return answer

    def _with_prefix(self, command: str, args: list[Any]) -> Sequence[Any]:
        if command == "SCAN":
            patterns = [n + 1 for n, arg in enumerate(args[:-1]) if arg in (b"MATCH", "MATCH")]
            for n in patterns:
                args[n] = glob_escaped(self.key_prefix) + args[n]
            return args
        if command in ("EVAL", "EVALSHA"):
            places = range(3, 3 + int(args[2]))
        elif command in _KEYLESS:
            places = range(0)
        else:
            places = range(1, len(args) if command in _KEYS_ONLY else 2)
        for n in places:
            key = args[n]
            args[n] = self.key_prefix.encode() + key if isinstance(key, bytes) else self.key_prefix + str(key)
        return args


@functools.lru_cache(maxsize=32)
def client_class(prefix: str) -> type[redis.Redis]:
    """Return the class of a client with that prefix; without one, redis-py's."""
    if not prefix:
        return redis.Redis

    class PrefixedPipeline(_Prefixing, Pipeline):
        key_prefix = prefix

    class PrefixedRedis(_Prefixing, redis.Redis):
        key_prefix = prefix

        def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
            return PrefixedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    return PrefixedRedis


def glob_escaped(text: str) -> str:
    """Return a text in which no sign is one of a pattern."""
    return "".join(f"\\{sign}" if sign in "*?[]\\^" else sign for sign in text)
