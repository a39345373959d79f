"""The exit codes of commands, and the messages that expected errors give instead of a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

from claude_batch_tasks.cli import output

FAILED = 1
USAGE = 2
NOT_ALL_SUCCEEDED = 3
NO_SUCH_JOB = 4
UNREACHABLE = 75
"""EX_TEMPFAIL of sysexits.h: trying again later may help."""
INTERRUPTED = 130

_MEANING = {
    0: "all is well",
    FAILED: "the job failed, or the command could not do what it was to do",
    USAGE: "a wrong option, setting or input; nothing was stored or sent",
    NOT_ALL_SUCCEEDED: "the job ended (submit --wait, watch), and not every request has a complete answer",
    NO_SUCH_JOB: "the store has no such job",
    UNREACHABLE: "the store or the broker does not answer; trying again is safe",
    INTERRUPTED: "interrupted with Ctrl-C; a job that was submitted continues",
}
#: The text for the help, with one line for each code; ``\b`` keeps click from joining them.
DESCRIPTION = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in _MEANING.items())

_BROKEN_PIPE = 141
"""The code of a program that SIGPIPE ends: the reader of the output wants no more."""


class Failure(click.ClickException):
    """An error with a message for the user and an exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message to standard error."""
        output.say(output.Line(f"{click.style('Error:', fg='red')} {self.format_message()}", indent=7))


@contextmanager
def explain_errors() -> Iterator[None]:
    """Turn expected errors into a message and an exit code."""
    try:
        yield
        if sys.stdout is not None:  # None if the program was started without standard output
            sys.stdout.flush()
    except BrokenPipeError:
        give_up_output()
        raise click.exceptions.Exit(_BROKEN_PIPE) from None
    except KeyboardInterrupt:
        output.say("\nInterrupted.")
        raise click.exceptions.Exit(INTERRUPTED) from None
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as exc:
        if (failure := _find_failure(exc)) is None:
            raise
        raise failure from None


def as_sentence(exc: Exception) -> str:
    """Return the text of an error, with one full stop or question mark at its end."""
    text = str(exc).rstrip(".")
    return text if text.endswith("?") else f"{text}."


def give_up_output() -> None:
    """Discard all further standard output; Python flushes it again when it ends, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _find_failure(exc: Exception) -> Failure | None:
    from kombu.exceptions import OperationalError

    from claude_batch_tasks import errors
    from claude_batch_tasks.cli import common
    from claude_batch_tasks.tasks import sent_jobs

    match exc:
        case errors.InvalidRequests() | errors.InvalidSettings() | errors.AmbiguousJobId():
            return Failure(str(exc), USAGE)
        case errors.JobNotFound():
            listing = common.spell_command(click.get_current_context(), "list")
            return Failure(f"{as_sentence(exc)} `{listing}` shows the jobs there are.", NO_SUCH_JOB)
        case errors.StoreTooNew() | errors.StoreNotMigrated() | errors.StoreMoved():
            return Failure(as_sentence(exc), UNREACHABLE)
        case errors.StoreUnavailable():
            return Failure(
                f"{as_sentence(exc)} Check that the server runs, and that its address, user and password are right: "
                "claude_batch_store_url, or the result back end or the broker if it is not set. Trying again is safe.",
                UNREACHABLE,
            )
        case errors.BrokerUnavailable():
            # Trying again is not safe if the job may exist.
            return Failure(as_sentence(exc), FAILED if sent_jobs.UNKNOWN in str(exc) else UNREACHABLE)
        case OperationalError():
            text = f"the broker did not answer: {as_sentence(exc)} Does it run, and is broker_url right?"
            return Failure(f"{text} Trying again is safe.", UNREACHABLE)
        case errors.BatchTasksError():
            return Failure(str(exc))
        case OSError():
            return Failure(_describe_os_error(exc))
    return None


def _describe_os_error(exc: OSError) -> str:
    what = f"{exc.filename}: " if exc.filename else ""
    return f"{what}{exc.strerror or exc}"
