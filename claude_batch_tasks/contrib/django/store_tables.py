"""The tables of the store in a project's own database: Django's migrations make them, if the store is there.

The SQL is that of ``claude-batch migrate``. A project whose store is elsewhere gets no tables.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from django.db import router
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.operations.base import Operation

from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import HasSchema, open_store

log = get_logger(__name__)

#: The label of the Django app, by which routers are asked.
LABEL = "claude_batch"


class MigrateStore(Operation):
    """Create the store's tables, or bring them up to date, if they belong into the database that is migrated.

    Args:
        version: the version of the tables that came with the release of this migration.
    """

    def __init__(self, version: int) -> None:
        self.version = version

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change no model: the tables have none."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Run what is left to do, or collect it for ``sqlmigrate``."""
        store = find_store(schema_editor.connection.alias)
        if store is not None and schema_editor.collect_sql:
            for statement in store.schema.list_statements():
                schema_editor.execute(statement, params=None)
        elif store is not None:
            store.schema.migrate()

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Remove the tables, unless they hold anything; those of later versions go with the first.

        Raises:
            IrreversibleError: there are jobs or asks.
        """
        store = find_store(schema_editor.connection.alias) if self.version == 1 else None
        if store is not None and not schema_editor.collect_sql and (held := store.schema.drop()):
            raise IrreversibleError(
                f"the store has {held:,} jobs and asks, which would be lost; nothing was removed. Delete them, or "
                "remove the schema by hand"
            )

    def describe(self) -> str:
        """Return what ``migrate --plan`` shows."""
        return f"Create version {self.version} of the store's tables, if claude_batch_store_url names this database"


def find_store(alias: str) -> HasSchema | None:
    """Return the project's store if its tables belong into the database of an alias."""
    try:
        settings = Settings.of(configured_app())
    except InvalidSettings as exc:
        log.warning("no tables are made for a store: %s", exc)
        return None
    if settings.store_url != f"django://{alias}" or not router.allow_migrate(alias, LABEL):
        return None
    return open_store(settings)


def catch_up(
    sender: Any, using: str, verbosity: int = 1, plan: Iterable[tuple[Any, bool]] = (), stdout: Any = None, **_: Any
) -> None:
    """Make the tables after ``migrate`` where its migrations ran while the store was elsewhere."""
    if any(backwards and migration.app_label == LABEL for migration, backwards in plan):
        return
    store = find_store(using)
    if store is not None and not store.schema.is_current() and store.schema.migrate() and verbosity:
        print("  The tables of the store of claude-batch-tasks were made", file=stdout or sys.stdout)
