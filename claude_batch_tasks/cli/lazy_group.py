"""The group of all commands, which imports the module of a command only when that command is used."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import click

from claude_batch_tasks.cli import exits

_PACKAGE = "claude_batch_tasks.cli.commands"


class _Entry(NamedTuple):
    """A command in the help of the group."""

    module: str
    """The module in ``cli/commands`` that registers it."""
    about: str
    """The first sentence of its help."""


#: The commands as the help lists them. The sentences stand here too, because the help of the group imports no command.
SECTIONS: dict[str, dict[str, _Entry]] = {
    "Jobs": {
        "submit": _Entry("submit", "Submit a job, and print its id."),
        "estimate": _Entry("submit", "Print what a job would cost."),
        "list": _Entry("read", "List the jobs, the newest first."),
        "status": _Entry("read", "Show how far a job is, and what happened to it."),
        "watch": _Entry("watch", "Follow a job until it ends."),
        "results": _Entry("results", "Write the results of a job."),
        "pools": _Entry("pools", "List what waits in pools: asks that are not answered."),
        "cancel": _Entry("change", "Ask for a job to be canceled."),
        "delete": _Entry("change", "Delete a job from the store."),
    },
    "After a failure": {
        "failures": _Entry("failures", "Show which requests failed, and why."),
        "retry-failed": _Entry("retry", "Submit the failed requests of a job again, as a new job."),
        "redeliver": _Entry("retry", "Deliver answers again: call `on_result` for them."),
        "resume": _Entry("change", "Resume a failed job where it stopped."),
        "adopt": _Entry("change", "Make a job of a batch that exists at Anthropic."),
        "recover": _Entry("change", "Send messages again that the broker lost."),
    },
    "Set-up": {
        "doctor": _Entry("doctor", "Check the set-up, and say how to repair it."),
        "migrate": _Entry("migrate", "Create the tables of the store, or bring them up to date."),
        "workers": _Entry("workers", "List the workers that run."),
        "copy-store": _Entry("copy_store", "Move all jobs to another store, while nothing runs."),
        "report": _Entry("report", "Print a report on a job for a support ticket."),
        "completion": _Entry("completion", "Print the script that completes commands in your shell."),
    },
    "Try it": {
        "demo": _Entry("local", "Run a job on this machine, without a key."),
        "simulator": _Entry("local", "Serve the Message Batches API locally."),
    },
}
ENTRIES = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(ENTRIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, after importing its module."""
        if cmd_name in ENTRIES:
            importlib.import_module(f"{_PACKAGE}.{ENTRIES[cmd_name].module}")
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; for a mistyped one, say which ones are similar."""
        name = args[0]
        if name not in ENTRIES and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}.{_suggest_commands(name)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands into the help, in sections and without importing them."""
        width = max(map(len, ENTRIES))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:{width}}", entry.about) for name, entry in section.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Return what may complete a word: commands without importing them, and options."""
        from click.shell_completion import CompletionItem

        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*_complete_names(incomplete, CompletionItem), *options]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options; under `celery`, which has an -A of its own, without ours."""
        params = super().get_params(ctx)
        return params if ctx.parent is None else [param for param in params if param.name != "app_name"]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, with a message and an exit code for each error that is expected."""
        from claude_batch_tasks.cli import logged_warnings

        with exits.explain_errors(), logged_warnings.shown():
            return super().invoke(ctx)


def _complete_names(incomplete: str, make: Any) -> Iterator[Any]:
    return (make(name, help=entry.about) for name, entry in ENTRIES.items() if name.startswith(incomplete))


def _suggest_commands(name: str) -> str:
    """Return the question which similar command was meant, after a space; empty if none is similar."""
    close = difflib.get_close_matches(name, ENTRIES, n=3, cutoff=0.6)
    close = close or [each for each in ENTRIES if each.startswith(name)][:3]
    return f" Did you mean {' or '.join(close)}?" if close else " `--help` lists the commands."
