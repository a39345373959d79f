"""The parts that commands share: the app, the job, options, and output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
import msgspec
from celery import Celery
from celery.app.utils import find_app
from celery.utils.imports import cwd_in_path

from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.jobs.batch_job import BatchJob
from claude_batch_tasks.jobs.job_status import JobStatus
from claude_batch_tasks.settings import Settings

_F = TypeVar("_F", bound=Callable[..., Any])


def app_of(ctx: click.Context) -> Celery:
    """Return the Celery app of `celery -A` or `claude-batch -A`, else the configured one."""
    app = getattr(ctx.obj, "app", None)  # that of the `celery` command
    name = _app_name(ctx)
    # As for a worker, the project and its celeryconfig.py may be in the working directory.
    with cwd_in_path():
        if app is None and name:
            try:
                app = find_app(name)
            except (ImportError, AttributeError) as exc:
                raise click.UsageError(f"-A {name}: there is no Celery app of that name here: {exc}") from None
        return configured_app() if app is None or app.main == "default" else app


def sending_app(ctx: click.Context) -> Celery:
    """Return the command's app with its tasks and ours, which take a second to import."""
    import claude_batch_tasks.tasks  # noqa: F401 - registers them

    app = app_of(ctx)
    with cwd_in_path():
        app.loader.import_default_modules()
    return app


def _app_name(ctx: click.Context) -> str | None:
    """Return the value of the option -A, if it is given."""
    root = ctx.find_root().params
    name = root.get("app_name") or root.get("app")
    return name if isinstance(name, str) else None


def worker_command(ctx: click.Context, app: Celery, queue: str | None = None) -> str:
    """Return the command that starts a worker for the app's jobs."""
    name = _app_name(ctx) or ("claude_batch_tasks.app" if app.main == "claude_batch_tasks" else app.main or "APP")
    return f"celery -A {name} worker" + (f" -Q {queue}" if queue else "")


def spell_command(ctx: click.Context, command: str) -> str:
    """Return a command of ours as the user has to type it, with the program and the app of the present command."""
    name = _app_name(ctx)
    with_app = f" -A {name}" if name else ""
    ours = ctx.find_root().command.name == "claude-batch"
    return f"claude-batch{with_app} {command}" if ours else f"celery{with_app} claude-batch {command}"


def job_of(ctx: click.Context, job_id: str) -> BatchJob:
    """Return the job with that id, in the store of the command's app."""
    return BatchJob(job_id, app_of(ctx))


def say(text: str) -> None:
    """Print a text for the user to standard error."""
    click.echo(text, err=True)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON to standard output."""
    click.echo(msgspec.json.encode(value.asdict() if isinstance(value, JobStatus) else value))


def confirm(question: str, yes: bool) -> None:
    """Ask the user to confirm, if standard input is a terminal.

    Raises:
        Abort: the answer is no.
    """
    if not yes and sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)


def check_options(app: Celery, options: Mapping[str, str]) -> dict[str, Any]:
    """Return per-job settings in their types; a ``deadline``, which may be a point in time, stays as it is.

    Raises:
        InvalidSettings: a setting is unknown or makes no sense.
    """
    settings = Settings.of(app).override({name: value for name, value in options.items() if name != "deadline"})
    return {name: value if name == "deadline" else getattr(settings, name) for name, value in options.items()}


def _parse_pairs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for name, equals, _value in pairs:
        if not (name and equals):
            raise click.BadParameter(f"{name!r}; write NAME=VALUE, such as max_wait=7200")
    return {name: value for name, _equals, value in pairs}


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


def job_argument(command: _F) -> _F:
    """Add the argument JOB, as ``job_id``."""
    return click.argument("job_id", metavar="JOB")(command)


def json_option(command: _F) -> _F:
    """Add the option ``--json``, as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def quiet_option(command: _F) -> _F:
    """Add the option ``--quiet``."""
    return click.option("-q", "--quiet", is_flag=True, help="No progress and no remarks.")(command)


def yes_option(command: _F) -> _F:
    """Add the option ``--yes``."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(command)
