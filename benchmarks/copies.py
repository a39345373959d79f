"""Many jobs in a store within seconds: one is made as the package makes it, and its keys or rows are copied.

Whatever has the job's id, in a name or in a value, is copied with other ids of the same length.
"""

from __future__ import annotations

from typing import Any

import redis
from psycopg import connect, sql

#: Jobs that one call of the script copies.
_AT_ONCE = 1_000

#: Copies keys, and runs commands, once for each number from ARGV[1] to ARGV[2], put in place of the first job's number.
#: ARGV[3] is how the ids begin, ARGV[4] finds the first. Commands follow, each after the number of its parts.
_COPY = """
for number = ARGV[1], ARGV[2] do
  local other, place = ARGV[3] .. string.format('%07d', number), 5
  for _, key in ipairs(KEYS) do
    redis.call('COPY', key, (string.gsub(key, ARGV[4], other)))
  end
  while ARGV[place] do
    local command = {}
    for part = 1, ARGV[place] do
      command[part] = string.gsub(ARGV[place + part], ARGV[4], other)
    end
    redis.call(unpack(command))
    place = place + 1 + #command
  end
end
"""


def nth_id(first: str, number: int) -> str:
    """Return the id of a copy; the first one's ends in seven zeros."""
    return f"{first[:-7]}{number:07d}"


def copy_job(store_url: str, first: str, count: int) -> None:
    """Copy a job until there are so many of it."""
    if store_url.startswith("postgresql://"):
        _copy_rows(store_url, first, count)
    else:
        _copy_keys(redis.Redis.from_url(store_url, socket_timeout=60), first, count)


def _copy_keys(client: Any, first: str, count: int) -> None:
    keys = list(client.scan_iter(count=1000))
    own = [key for key in keys if first.encode() in key]
    commands = [command for key in keys if (command := _plan_entries(client, key, first.encode()))]
    parts = [part for command in commands for part in (len(command), *command)]
    for start in range(1, count, _AT_ONCE):
        last = min(start + _AT_ONCE, count) - 1
        client.eval(_COPY, len(own), *own, start, last, first[:-7], first.replace("-", "%-"), *parts)


def _plan_entries(client: Any, key: bytes, first: bytes) -> list[Any]:
    """Return the command that writes what has the job's id among the entries of a key; empty: nothing has."""
    kind = client.type(key)
    if kind == b"zset":
        members = [(repr(score), name) for name, score in client.zrange(key, 0, -1, withscores=True) if first in name]
        return [b"ZADD", key, *(part for member in members for part in member)] if members else []
    if kind == b"hash":
        fields = [field for field in client.hgetall(key).items() if any(first in part for part in field)]
        return [b"HSET", key, *(part for field in fields for part in field)] if fields else []
    if kind == b"string":
        return [b"SET", key, value, b"KEEPTTL"] if first in (value := client.get(key) or b"") else []
    if kind == b"none":  # it has expired since it was listed
        return []
    assert kind == b"list", kind
    assert not any(first in entry for entry in client.lrange(key, 0, -1)), key
    return []


def _copy_rows(url: str, first: str, count: int) -> None:
    with connect(url) as connection:
        [(job,)] = connection.execute("SELECT id FROM claude_batch.jobs WHERE job_id = %s", [first]).fetchall()
        tables: dict[str, list[tuple[str, str]]] = {}
        for table, column, kind in connection.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = 'claude_batch' ORDER BY ordinal_position"
        ):
            tables.setdefault(table, []).append((column, kind))
        for table, columns in tables.items():
            _copy_table(connection, table, columns, first, job, count)
        connection.execute(
            "SELECT setval(pg_get_serial_sequence('claude_batch.jobs', 'id'), (SELECT max(id) FROM claude_batch.jobs))"
        )
    with connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def _copy_table(connection: Any, table: str, columns: list[tuple[str, str]], first: str, job: int, count: int) -> None:
    """Copy the rows of a table that have the job's id, or its number."""
    values: list[sql.Composable] = []
    chosen: list[sql.Composable] = []
    for column, kind in columns:
        name, value = (
            sql.Identifier(column),
            sql.Composed([sql.Identifier("had"), sql.SQL("."), sql.Identifier(column)]),
        )
        if kind in ("text", "jsonb"):
            text = sql.SQL("replace({}::text, {}, {} || lpad(n::text, 7, '0'))").format(value, first, first[:-7])
            values.append(sql.SQL("({})::{}").format(text, sql.SQL(kind)))
            chosen.append(sql.SQL("strpos({}::text, {}) > 0").format(name, first))
        elif column == "job" or (table, column) == ("jobs", "id"):
            values.append(sql.SQL("{} + n").format(value))
            chosen.append(sql.SQL("{} = {}").format(name, job))
        else:
            values.append(value)
    if not chosen:
        return
    statement = sql.SQL(
        "INSERT INTO claude_batch.{table} ({names}) OVERRIDING SYSTEM VALUE SELECT {values} "
        "FROM (SELECT * FROM claude_batch.{table} WHERE {chosen}) AS had, generate_series(1, {count} - 1) AS n"
    ).format(
        table=sql.Identifier(table),
        names=sql.SQL(", ").join(sql.Identifier(column) for column, _ in columns),
        values=sql.SQL(", ").join(values),
        chosen=sql.SQL(" OR ").join(chosen),
        count=count,
    )
    connection.execute(statement)
