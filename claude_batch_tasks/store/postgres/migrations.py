"""Which release's schema this is, and what makes it, or brings one that an earlier release has made up to date.

Nothing is changed unless somebody says so (``claude-batch migrate``, or Django's ``migrate``): the database's user of a
worker need not be allowed to. Releases share a schema while one replaces the other, so it has two numbers, as the Redis
store has: ``version`` says what has been done to it; ``least`` is what a process must know to work on it at all.
"""

from __future__ import annotations

import msgspec
import psycopg

from claude_batch_tasks.errors import InvalidSettings, StoreNotMigrated, StoreTooNew
from claude_batch_tasks.store.postgres.error_texts import describe
from claude_batch_tasks.store.postgres.sources import Connected
from claude_batch_tasks.store.postgres.statements import SCHEMA, read_functions, read_tables, with_schema
from claude_batch_tasks.store.transfer.items import Mark
from claude_batch_tasks.store.transfer.marks import CLOSED, describe_mark

#: What this release makes of a schema, and which releases may work beside it: all.
VERSION, LEAST = 1, 1

#: The rights of a user who need not be the one that migrates: that of workers, and of applications.
_RIGHTS = (
    "GRANT USAGE ON SCHEMA claude_batch TO {user};",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA claude_batch TO {user};",
    "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA claude_batch TO {user};",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA claude_batch GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {user};",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA claude_batch GRANT EXECUTE ON ROUTINES TO {user};",
)

_COUNT_HELD = """\
SELECT (SELECT count(*) FROM claude_batch.jobs) + (SELECT count(*) FROM claude_batch.asks WHERE state = 'waiting')
"""

#: What those who migrate at the same time wait for.
_LOCK = 0x636C6175


def check_version(connection: Connected, schema: str, where: str, *, marked: bool = False) -> None:
    """See that a schema can be used by this release.

    Args:
        marked: also one that is marked.

    Raises:
        InvalidSettings: the database cannot hold every text.
        StoreMoved: it is marked.
        StoreTooNew: it was made by a newer release, which excludes this one; nothing was changed.
        StoreNotMigrated: it is not there, or an earlier release has made it.
    """
    _check_encoding(connection)
    try:
        row = connection.execute(
            with_schema("SELECT version, least FROM claude_batch.schema_version", schema)
        ).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as exc:
        raise describe_unmigrated(schema, where, exc) from exc
    version, least = row or (0, 0)
    if least >= CLOSED and not marked:
        found = connection.execute(with_schema("SELECT mark FROM claude_batch.mark", schema)).fetchone()
        raise describe_mark(None if found is None else msgspec.json.decode(found[0], type=Mark), where)
    if least % CLOSED > VERSION:
        raise StoreTooNew(
            f"the store at {where} was written by a newer release of claude-batch-tasks (schema {version}; this one "
            f"knows {VERSION}): upgrade it here too. Nothing was read or changed"
        )
    if version < VERSION:
        raise describe_unmigrated(schema, where, None)


def _check_encoding(connection: Connected) -> None:
    """Refuse a database of another encoding than UTF-8: labels and ids of jobs may have any character."""
    if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
        raise InvalidSettings(
            f"the store's database {connection.info.dbname!r} has the encoding {encoding}: it cannot hold every text. "
            "Make another one: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0. Nothing was read or changed"
        )


def list_statements(connection: Connected, schema: str = SCHEMA) -> list[str]:
    """Return what is left to do for a schema that this release can use, in this order; nothing if it is newer.

    Raises:
        InvalidSettings: the database cannot hold every text.
    """
    _check_encoding(connection)
    found = _read_version(connection, schema)
    if found is not None and found >= VERSION:
        return []
    statements = ["SET LOCAL check_function_bodies = off"]  # each may call those that follow
    if not _exists(connection, "to_regnamespace", with_schema("claude_batch", schema)):
        # Only then: whoever owns the schema need not be allowed to create one.
        statements.append(with_schema("CREATE SCHEMA claude_batch", schema))
    if found is None:
        statements += read_tables(schema)
    return [
        *statements,
        *read_functions(schema),
        with_schema(
            f"INSERT INTO claude_batch.schema_version (version, least) VALUES ({VERSION}, {LEAST})\n"
            "ON CONFLICT (only_row) DO UPDATE\n"
            "SET version = excluded.version, least = greatest(schema_version.least, excluded.least)",
            schema,
        ),
    ]


def migrate(connection: Connected, schema: str = SCHEMA) -> bool:
    """Create the schema, or bring it up to date, in one transaction; return whether anything was left to do.

    What a newer release has made is left as it is.

    Args:
        connection: one whose user may create schemas, or owns this one.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        statements = list_statements(connection, schema)
        for statement in statements:
            connection.execute(statement)
    return bool(statements)


def list_rights(schema: str, user: str) -> list[str]:
    """Return the statements that give a user the rights of workers and applications; the schema's owner runs them.

    Args:
        user: the name of the role, quoted if it must be.
    """
    return [with_schema(statement, schema).format(user=user) for statement in _RIGHTS]


def drop(connection: Connected, schema: str = SCHEMA) -> int:
    """Remove the schema, unless it holds jobs or asks; return how many it holds."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        if _read_version(connection, schema) is None:
            return 0
        # Nothing may be added between the count and the end.
        connection.execute(
            with_schema("LOCK TABLE claude_batch.jobs, claude_batch.asks IN ACCESS EXCLUSIVE MODE", schema)
        )
        (held,) = connection.execute(with_schema(_COUNT_HELD, schema)).fetchone() or (0,)
        if not held:
            connection.execute(with_schema("DROP SCHEMA claude_batch CASCADE", schema))
    return int(held)


def _read_version(connection: Connected, schema: str) -> int | None:
    """Return the version of the schema; None: its tables are not there."""
    if not _exists(connection, "to_regclass", with_schema("claude_batch.schema_version", schema)):
        return None
    row = connection.execute(with_schema("SELECT version FROM claude_batch.schema_version", schema)).fetchone()
    return int(row[0]) if row else 0


def _exists(connection: Connected, find: str, name: str) -> bool:
    (found,) = connection.execute(f"SELECT {find}(%s) IS NOT NULL", [name]).fetchone() or (False,)
    return bool(found)


def describe_unmigrated(schema: str, where: str, exc: Exception | None) -> StoreNotMigrated:
    """Return the error for a schema that is not there, or that an earlier release has made."""
    problem = "was made by an earlier release" if exc is None else f"does not have what is needed ({describe(exc)})"
    return StoreNotMigrated(
        f"the schema {schema!r} of the store at {where} {problem}. Nothing was read or changed. Run `claude-batch "
        "migrate` (with Django: `manage.py migrate`); workers and callers continue after that"
    )
