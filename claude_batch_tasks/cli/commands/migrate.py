"""The command ``claude-batch migrate``, which makes the tables of a store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from claude_batch_tasks.cli import claude_batch, exits, output, parameters

if TYPE_CHECKING:
    from claude_batch_tasks.store.interface import Schema


@claude_batch.command()
@click.option("--check", is_flag=True, help="Change nothing; the exit code is 1 if something is left to do.")
@click.option("--sql", "as_sql", is_flag=True, help="Change nothing; print what is left to do, as SQL.")
@parameters.json_option
@click.pass_context
def migrate(ctx: click.Context, check: bool, as_sql: bool, as_json: bool) -> None:
    """Create the tables of the store, or bring them up to date.

    A store in PostgreSQL needs it once, and after an upgrade that says so; workers of the earlier release may run
    meanwhile. It takes a user who may create schemas in the database, or who owns the store's schema. The users of
    workers need fewer rights: `--sql` prints them. A Redis needs none of this.
    """
    from claude_batch_tasks.cli import common
    from claude_batch_tasks.settings import Settings, store_urls
    from claude_batch_tasks.store import open_store

    if check and as_sql:
        raise click.UsageError("--check and --sql cannot be used together")
    settings = Settings.of(common.app_of(ctx))
    schema = open_store(settings).schema
    store = f"the store ({store_urls.store_name(settings.store_url or '')})"
    if as_sql:
        click.echo("\n\n".join(_format_statements(schema)))
        return
    left = not schema.is_current()
    changed = left and not check and schema.migrate()
    if as_json:
        output.print_json({"current": not left or changed, "changed": changed})
    elif left and check:
        output.say(
            f"The tables of {store} are missing, or are those of an earlier release. Nothing was changed. "
            "Run `claude-batch migrate`."
        )
    elif not schema.describe_rights():
        output.say(f"{store[0].upper()}{store[1:]} has no tables, so there is nothing to do.")
    else:
        output.say(f"The tables of {store} {'were created or updated' if changed else 'are up to date'}.")
    if left and check:
        ctx.exit(exits.FAILED)


def _format_statements(schema: Schema) -> Iterator[str]:
    """Yield what is left to do, and which rights workers need, as the text of a file of SQL."""
    if statements := list(schema.list_statements()):
        yield "BEGIN;"
        for statement in statements:
            yield f"{statement.strip().rstrip(';')};"
        yield "COMMIT;"
    else:
        yield "-- Nothing is left to do."
    if rights := schema.describe_rights():
        yield "\n".join(line if line.startswith("--") else f"-- {line}" for line in rights.splitlines())
