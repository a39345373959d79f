"""The command ``claude-batch``, also ``celery -A proj claude-batch`` through Celery's plugin entry point.

Every `celery` command imports this module. So the modules of the subcommands are imported only when one is called.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import click

from claude_batch_tasks.cli import exits

#: The module in this package that registers each command; help lists them in this order.
_HOME = {
    "submit": "submit_commands",
    "estimate": "submit_commands",
    "list": "read_commands",
    "status": "read_commands",
    "watch": "watching",
    "results": "results",
    "cancel": "change_commands",
    "resume": "change_commands",
    "delete": "change_commands",
    "adopt": "change_commands",
    "recover": "change_commands",
    "doctor": "doctor",
    "report": "doctor",
    "demo": "local",
    "simulator": "local",
}


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_HOME)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _HOME:
            importlib.import_module(f"{__name__}.{_HOME[cmd_name]}")
        return super().get_command(ctx, cmd_name)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        params = super().get_params(ctx)
        # Celery has an -A of its own, before `claude-batch`.
        return params if ctx.parent is None else [param for param in params if param.name != "app_name"]

    def invoke(self, ctx: click.Context) -> Any:
        with exits.explain_errors():
            return super().invoke(ctx)


@click.group(
    "claude-batch", cls=_Group, context_settings={"help_option_names": ["-h", "--help"]}, epilog=exits.DESCRIPTION
)
@click.option(
    "-A",
    "--app",
    "app_name",
    metavar="APP",
    envvar="CELERY_APP",
    help="Your Celery app, as `celery -A` takes it; default: the ready-made one, claude_batch_tasks.app.",
)
@click.pass_context
def claude_batch(ctx: click.Context, app_name: str | None = None) -> None:
    """Anthropic Message Batches from Celery.

    Data goes to standard output, all else to standard error. A JOB is the id that `submit` prints.
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main() -> None:
    """Run the ``claude-batch`` command."""
    claude_batch(prog_name="claude-batch")
