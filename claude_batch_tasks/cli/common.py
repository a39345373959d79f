"""The parts that commands share when they run: the app, the job, and the spelling of commands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from itertools import islice
from typing import Any

import click
from celery import Celery
from celery.app.utils import find_app
from celery.utils.imports import cwd_in_path

from claude_batch_tasks.checks import presence
from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.jobs import job_ids
from claude_batch_tasks.jobs.batch_job import BatchJob
from claude_batch_tasks.jobs.job_status import JobStatus
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import open_store

#: Seconds after which it is said that no worker listens on the queue of a job that none has picked up.
_UNBEGUN = 5.0


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


def find_job(ctx: click.Context, job_id: str, *, sending: bool = False) -> BatchJob:
    """Return the job with that id, or whose id alone begins like that, in the store of the command's app.

    Args:
        sending: whether the command sends messages; then the app has its tasks.

    Raises:
        JobNotFound: there is none.
        AmbiguousJobId: the ids of several jobs begin like that.
    """
    app = sending_app(ctx) if sending else app_of(ctx)
    return BatchJob(job_ids.find_job_id(job_id, app), app)


def explain_wait(app: Celery, status: JobStatus) -> str | None:
    """Return that no worker has picked a job up; None: one has, or will, as one listens on its queue.

    ``status`` says it by itself after a while. If no worker listens, this says it after some seconds.
    """
    age = (datetime.now(timezone.utc) - status.submitted_at).total_seconds()
    if status.waiting_for_worker or status.state != "staged" or age < _UNBEGUN or app.conf.task_always_eager:
        return status.waiting_for_worker
    store = open_store(Settings.of(app))
    record = store.jobs.read_job(status.job_id)
    queue = presence.find_queue(app, record) if record is not None and record.not_sent is None else None
    workers = store.presence.list_workers()
    if queue is None or any(queue in worker.queues for worker in workers):
        return None
    return f"No worker has picked this up yet. {presence.describe_workers(workers, queue)}"


def complete_job_ids(ctx: click.Context, beginning: str, most: int) -> list[str]:
    """Return the ids of jobs that begin like this, among the newest ones."""
    store = open_store(Settings.of(app_of(ctx)))
    return [job_id for job_id in islice(store.jobs.job_ids(math.inf), most) if job_id.startswith(beginning)]


def check_options(app: Celery, options: Mapping[str, str]) -> dict[str, Any]:
    """Return per-job settings in their types; a ``deadline``, which may be a point in time, stays as it is.

    Raises:
        InvalidSettings: a setting is unknown or is not valid.
    """
    settings = Settings.of(app).override({name: value for name, value in options.items() if name != "deadline"})
    return {name: value if name == "deadline" else getattr(settings, name) for name, value in options.items()}
