"""Which release's schema this is, and what makes it, or brings one that an earlier release has made up to date.

Nothing is changed unless somebody says so (``claude-batch migrate``, or Django's ``migrate``): the database's user of a
worker need not be allowed to. Releases share a schema while one replaces the other, so it has two numbers, as the Redis
store has: ``version`` says what has been done to it; ``least`` is what a process must know to work on it at all.
"""

from __future__ import annotations

import psycopg

from claude_batch_tasks.errors import StoreNotMigrated, StoreTooNew
from claude_batch_tasks.store.postgres.sources import Connected
from claude_batch_tasks.store.postgres.statements import SCHEMA, read_functions, read_tables, with_schema

#: What this release makes of a schema, and which releases may work beside it: all.
VERSION, LEAST = 1, 1

#: What those who migrate at the same time wait for.
_LOCK = 0x636C6175


def check_version(connection: Connected, schema: str, where: str) -> None:
    """See that a schema can be used by this release.

    Raises:
        StoreTooNew: it was made by a newer release, which excludes this one; nothing was changed.
        StoreNotMigrated: it is not there, or an earlier release has made it.
    """
    try:
        row = connection.execute(
            with_schema("SELECT version, least FROM claude_batch.schema_version", schema)
        ).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as exc:
        raise describe_unmigrated(schema, where, exc) from exc
    version, least = row or (0, 0)
    if least > VERSION:
        raise StoreTooNew(
            f"the store at {where} was written by a newer release of claude-batch-tasks (schema {version}; this one "
            f"knows {VERSION}): upgrade it here too. Nothing was read or changed"
        )
    if version < VERSION:
        raise describe_unmigrated(schema, where, None)


def migrate(connection: Connected, schema: str = SCHEMA) -> bool:
    """Create the schema, or bring it up to date, in one transaction; return whether anything was left to do.

    What a newer release has made is left as it is.

    Args:
        connection: one whose user may create schemas, or owns this one.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        # They are made in the order of their names, and call each other.
        connection.execute("SET LOCAL check_function_bodies = off")
        connection.execute(with_schema("CREATE SCHEMA IF NOT EXISTS claude_batch", schema))
        found = connection.execute("SELECT to_regclass(%s)", [with_schema("claude_batch.schema_version", schema)])
        if (found.fetchone() or (None,))[0] is None:
            version = 0
            for tables in read_tables(schema):
                connection.execute(tables)
        else:
            row = connection.execute(with_schema("SELECT version FROM claude_batch.schema_version", schema)).fetchone()
            version = row[0] if row else 0
        if version >= VERSION:
            return False
        for function in read_functions(schema):
            connection.execute(function)
        connection.execute(
            with_schema(
                "INSERT INTO claude_batch.schema_version (version, least) VALUES (%s, %s) ON CONFLICT (only_row) "
                "DO UPDATE SET version = excluded.version, least = greatest(schema_version.least, excluded.least)",
                schema,
            ),
            [VERSION, LEAST],
        )
    return True


def describe_unmigrated(schema: str, where: str, exc: Exception | None) -> StoreNotMigrated:
    """Return the error for a schema that is not there, or that an earlier release has made."""
    why = f" ({type(exc).__name__}: {exc})" if exc is not None else ""
    return StoreNotMigrated(
        f"the schema {schema!r} of the store at {where} is not there, or is that of an earlier release{why}. Nothing "
        "was read or changed. Run `claude-batch migrate` (with Django: `manage.py migrate`), then it goes on by itself"
    )
