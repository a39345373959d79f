"""What a PostgreSQL that is the store says of itself, and what its user may not do."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import psycopg

from claude_batch_tasks.errors import InvalidSettings, StoreUnavailable
from claude_batch_tasks.records import ServerProblem, ServerReport
from claude_batch_tasks.store.postgres.connection import Part, answering
from claude_batch_tasks.store.postgres.error_texts import describe
from claude_batch_tasks.store.postgres.migrations import check_version, list_rights
from claude_batch_tasks.store.postgres.sources import Connected
from claude_batch_tasks.store.postgres.wakeups import is_pooled

#: The oldest version that has all that the store uses.
_OLDEST = 13

#: The part of a server's connections from which on new ones may soon be refused.
_NEARLY = 0.9

#: Milliseconds for a query; what is not answered by then is not known.
_ANSWER_MILLISECONDS = 5000

#: What a lost or wrong setting is worth, and the statement that repairs it.
_DURABILITY = {
    "fsync": "ALTER SYSTEM SET fsync = on, then SELECT pg_reload_conf()",
    "full_page_writes": "ALTER SYSTEM SET full_page_writes = on, then SELECT pg_reload_conf()",
    "synchronous_commit": 'ALTER ROLE "{user}" SET synchronous_commit = on, then restart what uses the store',
}


class PostgresInspection(Part):
    """``interface.Inspection`` on a PostgreSQL server."""

    queries = "inspection"

    def inspect_server(self, *, thorough: bool) -> ServerReport:
        try:
            with self._connection.source.listen() as server:
                return self._report(server, thorough=thorough)
        except (psycopg.Error, OSError) as exc:
            return ServerReport(problems=(_why_unreachable(exc),))

    @answering
    def leave_mark(self, token: str, ttl: float) -> None:
        self._connection.call("set_flag", f"doctor:{token}", b"", ttl)

    @answering
    def has_mark(self, token: str) -> bool:
        return bool(self._fetch_value("has_flag", flag=f"doctor:{token}"))

    def _report(self, server: Connected, *, thorough: bool) -> ServerReport:
        server.execute(f"SET statement_timeout = {_ANSWER_MILLISECONDS}")
        version = server.info.server_version // 10000
        product = f"PostgreSQL {(server.info.parameter_status('server_version') or str(version)).split()[0]}"
        before = time.time()
        found: Any = server.execute(self._sql["describe_server"], {"schema": self._connection.schema}).fetchone()
        *state, now = found
        return ServerReport(
            product,
            f"schema {self._connection.schema} with {state[0] / 1e6:,.0f} MB, {state[1]} of {state[2]} connections",
            (before + time.time()) / 2 - float(now),
            tuple(self._notes(server)),
            tuple(self._problems(server, version, *state[1:], thorough=thorough)),
        )

    def _notes(self, server: Connected) -> Iterator[str]:
        if is_pooled(server):
            yield "is reached through a pooler. If that works by transactions, workers ask every second what is due"

    def _problems(
        self, server: Connected, version: int, used: int, limit: int, *, thorough: bool
    ) -> Iterator[ServerProblem]:
        if version < _OLDEST:
            values = {"version": version, "least": _OLDEST, "fix": f"PostgreSQL {_OLDEST} or newer"}
            yield ServerProblem("OLD_SERVER", values)
        if self._value(server, "is_read_only"):
            yield ServerProblem("READ_ONLY")
        for name, value in server.execute(self._sql["unsafe_settings"]):
            fix = _DURABILITY[name].format(user=server.info.user)
            yield ServerProblem("UNSAFE_COMMITS", {"name": name, "value": value, "fix": fix})
        if used >= _NEARLY * limit:
            yield ServerProblem("FEW_CONNECTIONS", {"used": used, "limit": limit})
        try:
            check_version(server, self._connection.schema, self._connection.source.where)
        except (InvalidSettings, StoreUnavailable) as exc:
            yield ServerProblem("NOT_MIGRATED", {"error": exc})
            return
        except psycopg.errors.InsufficientPrivilege:
            yield self._not_permitted(server, "anything in its schema")
            return
        if tables := self._value(server, "tables_without_vacuum"):
            yield ServerProblem("NO_AUTOVACUUM", {"tables": tables})
        if thorough and (missing := self._value(server, "missing_rights")):
            yield self._not_permitted(server, missing)

    def _value(self, server: Connected, query: str) -> Any:
        row = server.execute(self._sql[query], {"schema": self._connection.schema}).fetchone()
        return None if row is None else row[0]

    def _not_permitted(self, server: Connected, what: str) -> ServerProblem:
        rights = " ".join(list_rights(self._connection.schema, f'"{server.info.user}"'))
        return ServerProblem("NOT_PERMITTED", {"commands": what, "fix": rights})


def _why_unreachable(exc: Exception) -> ServerProblem:
    text = describe(exc)
    if "authentication failed" in text or "no password supplied" in text or "pg_hba.conf" in text:
        return ServerProblem("REFUSED_PASSWORD", {"scheme": "postgresql"})
    if missing := re.search(r'database "([^"]*)" does not exist', text):
        return ServerProblem("NO_DATABASE", {"database": repr(missing[1])})
    return ServerProblem("NO_ANSWER", {"error": f"{type(exc).__name__}: {text}"})
