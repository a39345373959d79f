"""Submission of a job from a file, with a message for everything that may go wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import click
from celery import Celery
from celery.utils import uuid

from claude_batch_tasks import errors
from claude_batch_tasks.cli import common, exits, following, job_texts, output
from claude_batch_tasks.cli.request_file import RequestFile, Unreadable
from claude_batch_tasks.formatting import format_count
from claude_batch_tasks.jobs.batch_job import BatchJob

_RUN_BATCH = "claude_batch_tasks.run_batch"

#: How many requests are read before the number read so far is shown on a terminal.
_SHOWN_AFTER = 20_000


def submit_file(
    ctx: click.Context,
    app: Celery,
    file: IO[bytes],
    options: dict[str, Any],
    *,
    queue: str | None,
    quiet: bool,
) -> BatchJob:
    """Submit the requests of a file as a job."""
    job = BatchJob(uuid(), app)
    with _failures_explained(ctx, job), open_requests(ctx, file, quiet) as requests:
        route: dict[str, Any] = {"queue": queue} if queue else {}
        app.tasks[_RUN_BATCH].apply_async((requests,), options, task_id=job.id, **route)
    return job


def report_submitted(
    ctx: click.Context, job: BatchJob, *, queue: str | None, wait: bool, as_json: bool, quiet: bool
) -> None:
    """Print the id of a job that was submitted, or its status as JSON; with ``wait``, follow it to its end."""
    if not as_json:
        click.echo(job.id)
    to_follow = common.spell_command(ctx, f"watch {job.id}")
    try:
        if wait:
            following.follow_job(ctx, job, as_json=as_json, quiet=quiet, queue=queue)
            return
        status = job.status()
    except errors.StoreUnavailable as exc:
        # Not with the exit code that says that trying again is safe.
        text = f"job {job.id} is submitted, but now {exits.as_sentence(exc)} To follow the job: {to_follow}"
        raise exits.Failure(text) from None
    if as_json:
        output.print_json(status)
    if not quiet:
        output.hint_command(f"Submitted: {job_texts.format_size(status)}. To follow the job", to_follow)


@contextmanager
def _failures_explained(ctx: click.Context, job: BatchJob) -> Iterator[None]:
    """Turn an interruption of the submission into a message and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        _take_back(ctx, job)
        raise click.exceptions.Exit(exits.INTERRUPTED) from None


def _take_back(ctx: click.Context, job: BatchJob) -> None:
    """Delete a job whose submission was interrupted, unless a worker has it already."""
    output.say()
    try:
        job.delete()
    except errors.JobNotFound:
        pass
    except errors.JobRunning:
        output.hint_command(
            f"Interrupted, but job {job.id} has begun and continues; to follow it",
            common.spell_command(ctx, f"watch {job.id}"),
        )
        return
    except errors.StoreUnavailable:
        output.hint_command(
            f"Interrupted. The store does not answer, so job {job.id} may have been sent; to find out",
            common.spell_command(ctx, f"status {job.id}"),
        )
        return
    output.say("Interrupted: nothing was sent, and nothing is stored.")


@contextmanager
def open_requests(ctx: click.Context, file: IO[bytes], quiet: bool) -> Iterator[Iterable[Any]]:
    """Yield the requests in a file; errors in them are reported with their place in the file."""
    name = getattr(file, "name", "<stdin>")
    name = None if name == "<stdin>" else str(name)
    where = name or "standard input"
    requests = RequestFile(file, name, common.spell_command(ctx, str(ctx.info_name)))
    try:
        yield requests if quiet else _show_count(requests)
    except Unreadable as exc:
        hint = f". {exc.hint}" if exc.hint else ""
        raise exits.Failure(f"{where}: {exc.why}; nothing was stored or sent{hint}", exits.USAGE) from None
    except errors.InvalidRequests as exc:
        raise exits.Failure(_describe_problems(exc, requests, where), exits.USAGE) from None


def _show_count(requests: Iterable[Any]) -> Iterator[Any]:
    """Yield the requests, and show on a terminal how many were read."""
    with output.counter("requests read") as show_count:
        for number, request in enumerate(requests, 1):
            if number % _SHOWN_AFTER == 0:
                show_count(number)
            yield request


def _describe_problems(exc: errors.InvalidRequests, requests: RequestFile, name: str) -> str:
    """Describe what is wrong with the requests, with their places in the file."""
    if not exc.problems:
        return str(exc)
    found = []
    for index, custom_id, field, text in exc.problems:
        if index is None:
            found.append(f"  {text}")
            continue
        known = f", custom_id {custom_id!r}" if custom_id is not None else ""
        found.append(f"  {requests.place_of(index)}{known}, field {field}: {text}")
    if exc.more:
        found.append(f"  and {exc.more:,} more")
    count = format_count(len(exc.problems) + exc.more, "problem")
    return "\n".join([f"{count} in {name}; nothing was stored or sent:", *found])
