"""Export of outcomes to a file or to standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TypeVar

import click

from claude_batch_tasks.cli import exits

_F = TypeVar("_F", bound=Callable[..., object])

STANDARD_OUTPUT = "-"
FORMATS = ["jsonl", "csv", "parquet"]


def file_option(command: _F) -> _F:
    """Add the option ``-o FILE``, as ``file``."""
    return click.option(
        "-o",
        "--output",
        "file",
        default=STANDARD_OUTPUT,
        type=click.Path(dir_okay=False, allow_dash=True),
        metavar="FILE",
        help="The file to write. It appears when it is complete. Default: standard output.",
    )(command)


def format_option(command: _F) -> _F:
    """Add the option ``--format``, as ``format_``."""
    return click.option(
        "--format",
        "format_",
        type=click.Choice(FORMATS),
        help="Default: what the suffix of FILE says, else jsonl.",
    )(command)


def write_outcomes(file: str, format_: str | None, write: Callable[[str | IO[bytes], str | None], int]) -> int:
    """Write outcomes to a file, and return how many.

    Args:
        file: its path, or ``-``.
        format_: one of ``FORMATS``; None: the suffix of the file says it.
        write: writes them to an open file or a path, in a format.
    """
    with _failures_explained(file):
        if file != STANDARD_OUTPUT:
            return write(file, format_)
        out = sys.stdout.buffer
        written = write(out, format_)
        out.flush()
        return written


def check_target(file: str, format_: str | None) -> None:
    """Check that outcomes can be written there, before anything is read.

    Raises:
        UsageError: they cannot.
    """
    if file != STANDARD_OUTPUT:
        return
    if sys.stdout is None:
        raise click.UsageError("there is no standard output; give -o FILE")
    if format_ == "parquet" and sys.stdout.buffer.isatty():
        raise click.UsageError("a Parquet file cannot be shown on a terminal; give -o FILE")


@contextmanager
def _failures_explained(file: str) -> Iterator[None]:
    """Turn errors of the export into a message and an exit code."""
    try:
        yield
    except ImportError as exc:  # of pyarrow
        raise exits.Failure(str(exc)) from None
    except ValueError as exc:  # the suffix is none of a format
        raise click.UsageError(str(exc)) from None
    except BrokenPipeError:
        raise
    except OSError as exc:
        if file == STANDARD_OUTPUT:
            exits.give_up_output()
        where = "standard output" if file == STANDARD_OUTPUT else file
        raise exits.Failure(
            f"cannot write to {where}: {exc.strerror or exc}. The results are still in the store; try again"
        ) from None
