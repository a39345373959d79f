"""The arguments and options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])

#: How many job ids are read from the store, the newest first, to complete one in a shell.
_COMPLETED = 200


def _parse_pairs(_: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for name, equals, _value in pairs:
        if not (name and equals):
            example = "team=search" if param.name == "metadata" else "max_wait=7200"
            raise click.BadParameter(f"{name!r}; write NAME=VALUE, such as {example}")
    return {name: value for name, _equals, value in pairs}


def _complete_job(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the ids of jobs that begin like this; none if the store does not answer."""
    try:
        from claude_batch_tasks.cli import common

        return common.complete_job_ids(ctx, incomplete, _COMPLETED)
    except Exception:  # noqa: BLE001 - a shell shows whatever is printed in the middle of the line that is typed
        return []


#: The failure types, and the reasons of incomplete answers, that a shell completes. Others may be given too.
_FAILURE_TYPES = (
    *("errored", "expired", "canceled", "api_error", "authentication_error", "billing_error", "invalid_request_error"),
    *("not_found_error", "overloaded_error", "permission_error", "rate_limit_error", "timeout_error"),
    *("incomplete", "refusal", "max_tokens", "pause_turn", "model_context_window_exceeded", "empty", "invalid"),
)


def _check_types(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    if "succeeded" in values:
        raise click.BadParameter("'succeeded' is no failure; `results --type succeeded` has these")
    return values


def _complete_type(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in _FAILURE_TYPES if name.startswith(incomplete)]


def settings_option(command: _F) -> _F:
    """Add the option ``-s max_wait=7200``, any number of times, as ``options``."""
    return click.option(
        "-s",
        "--set",
        "options",
        metavar="NAME=VALUE",
        multiple=True,
        callback=_parse_pairs,
        help="A setting for this job, such as max_wait=7200 or fallback=off; may be given several times.",
    )(command)


def label_option(text: str) -> Callable[[_F], _F]:
    """Add the option ``--label nightly``, as ``label``."""
    return click.option("--label", metavar="TEXT", help=text)


def metadata_option(text: str) -> Callable[[_F], _F]:
    """Add the option ``--metadata team=search``, any number of times, as ``metadata``."""
    return click.option("--metadata", metavar="KEY=VALUE", multiple=True, callback=_parse_pairs, help=text)


def job_argument(command: _F) -> _F:
    """Add the argument JOB, as ``job_id``: a job's id, or its first characters."""
    return click.argument("job_id", metavar="JOB", shell_complete=_complete_job)(command)


def types_option(command: _F) -> _F:
    """Add the option ``--type``, any number of times, as ``types``: failure types."""
    return click.option(
        "--type",
        "types",
        multiple=True,
        metavar="TYPE",
        callback=_check_types,
        shell_complete=_complete_type,
        help="Only this failure type, such as overloaded_error, errored (all errors) or expired; may be given several "
        "times.",
    )(command)


def json_option(command: _F) -> _F:
    """Add the option ``--json``, as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def quiet_option(command: _F) -> _F:
    """Add the option ``--quiet``."""
    return click.option("-q", "--quiet", is_flag=True, help="Print no progress and no remarks.")(command)


def yes_option(command: _F) -> _F:
    """Add the option ``--yes``."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(command)
