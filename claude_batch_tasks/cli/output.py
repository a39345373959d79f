"""Output of commands: data on standard output, everything else on standard error.

On a terminal it goes through rich's console, in colours and in the width of the terminal. Anywhere else it is plain
text, one line for each thing, however long. A line may have the escape codes of ``click.style``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

#: The console whose live display is on the terminal. Whatever is printed meanwhile has to go through it.
_live: Console | None = None


class Line(NamedTuple):
    """A line of text, and what happens to it where the terminal is narrower."""

    text: str
    indent: int = 0
    """It continues in the next line, after so many spaces."""
    cut: bool = False
    """It is cut off at the edge: a row of a table."""


def say(line: str | Line = "") -> None:
    """Print a line for people to standard error."""
    _print_lines([line], err=True)


def show(lines: Iterable[str | Line]) -> None:
    """Print lines that people read, and that are what the command is for, to standard output."""
    _print_lines(lines, err=False)


def print_json(value: Any) -> None:
    """Print a value, or what its ``asdict()`` returns, as one line of JSON to standard output."""
    import msgspec

    click.echo(msgspec.json.encode(value.asdict() if hasattr(value, "asdict") else value))


def hint_command(text: str, command: str) -> None:
    """Print to standard error what a command is for, and the command, which a terminal does not break at a space."""
    width = terminal_width(err=True)
    if width is None or len(text) + 2 + len(command) <= width:
        say(f"{text}: {command}")
    else:
        say(f"{text}:")
        _print_lines([f"  {command}"], err=True, wrap=False)


def confirm(question: str, yes: bool) -> None:
    """Ask the user to confirm, if standard input is a terminal.

    Raises:
        Abort: the answer is no.
    """
    if not yes and can_ask():
        click.confirm(question, abort=True, err=True)


def can_ask() -> bool:
    """Return whether somebody can answer: standard input is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def terminal_width(*, err: bool = False) -> int | None:
    """Return the width of the terminal that a stream is; None: it is no terminal."""
    console = _open_console(err=err)
    return None if console is None else console.width


@contextmanager
def counter(what: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows a count of something on the terminal; without a terminal it does nothing."""
    console = _open_console(err=True)
    with ExitStack() as stack:
        shown: list[Status] = []

        def show_count(count: int) -> None:
            if console is not None and not shown:
                shown.append(stack.enter_context(console.status("")))
            for each in shown:
                each.update(f"{count:,} {what}")

        yield show_count


@contextmanager
def use_live(console: Console) -> Iterator[None]:
    """Print everything through a console while its live display is on the terminal."""
    global _live
    _live = console
    try:
        yield
    finally:
        _live = None


def _print_lines(lines: Iterable[str | Line], *, err: bool, wrap: bool = True) -> None:
    console = _open_console(err=err)
    for each in lines:
        line = each if isinstance(each, Line) else Line(each)
        if console is None:
            click.echo(line.text, err=err)
        else:
            _print_on_terminal(console, line, wrap)


def _print_on_terminal(console: Console, line: Line, wrap: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    text = Text.from_ansi(line.text)
    if line.cut:
        console.print(text, no_wrap=True, overflow="ellipsis", crop=True)
    elif not wrap or text.cell_len <= console.width or "\n" in line.text:
        console.print(text, soft_wrap=True)
    else:
        grid = Table.grid()
        grid.add_column(width=line.indent)
        grid.add_column(overflow="fold")
        grid.add_row(text[: line.indent], text[line.indent :])
        console.print(grid)


def _open_console(*, err: bool) -> Console | None:
    """Return the console of a stream; None: the stream is no terminal, or rich is not installed."""
    stream: IO[str] | None = sys.stderr if err else sys.stdout
    if _live is not None:
        return _live if err or (stream is not None and stream.isatty()) else None
    if stream is None or not stream.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:  # it comes with an extra, and under `celery` we may be without it
        return None
    return Console(file=stream, highlight=False)
