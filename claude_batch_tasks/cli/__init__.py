"""The command ``claude-batch``, also ``celery -A proj claude-batch`` through Celery's plugin entry point.

Every `celery` command imports this module, so it imports only click.
"""

from __future__ import annotations

import os

import click

from claude_batch_tasks._version import __version__
from claude_batch_tasks.cli import exits
from claude_batch_tasks.cli.lazy_group import LazyGroup


@click.group(
    "claude-batch", cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=exits.DESCRIPTION
)
@click.option(
    "-A",
    "--app",
    "app_name",
    metavar="APP",
    envvar="CELERY_APP",
    help="Your Celery app, as `celery -A` takes it; default: the ready-made one, claude_batch_tasks.app.",
)
@click.version_option(__version__, "-V", "--version", prog_name="claude-batch", message="%(prog)s %(version)s")
@click.pass_context
def claude_batch(ctx: click.Context, app_name: str | None = None) -> None:
    """Run Anthropic Message Batches through Celery.

    Data goes to standard output, everything else to standard error. A JOB is the id that `submit` prints, or its first
    characters.
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main() -> None:
    """Run the ``claude-batch`` command."""
    claude_batch(prog_name="claude-batch")
