"""Warnings of this package, such as that no worker listens on a queue: commands print them for people."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import click

from claude_batch_tasks.cli import output


class _Printer(logging.Handler):
    """What prints warnings, unless the command is to be quiet."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a warning to standard error."""
        context = click.get_current_context(silent=True)
        if context is None or not context.params.get("quiet"):
            output.say(click.style(record.getMessage(), fg="yellow"))


@contextmanager
def shown() -> Iterator[None]:
    """Print our warnings while a command runs, unless the project has set up logging, which then shows them."""
    ours = logging.getLogger("claude_batch_tasks")
    if ours.hasHandlers():
        yield
        return
    printer = _Printer(logging.WARNING)
    ours.addHandler(printer)
    try:
        yield
    finally:
        ours.removeHandler(printer)
