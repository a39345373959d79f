"""The commands ``claude-batch submit`` and ``estimate``, which read requests from a file or standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import click
from celery.utils import uuid
from kombu.exceptions import OperationalError

from claude_batch_tasks import errors
from claude_batch_tasks.cli import claude_batch, common, exits, job_texts
from claude_batch_tasks.cli.request_file import RequestFile, Unreadable
from claude_batch_tasks.cli.watching import follow_job
from claude_batch_tasks.formatting import format_count
from claude_batch_tasks.jobs.batch_job import BatchJob
from claude_batch_tasks.jobs.estimating import estimate as estimated
from claude_batch_tasks.settings import prices_of
from claude_batch_tasks.steps import message_chain

#: How many requests are read before the number read so far is printed to a terminal.
_TELL = 20_000

_FILE = click.argument("file", type=click.File("rb"))


@claude_batch.command()
@_FILE
@click.option("--client", default="default", show_default=True, help="Alias of the account to send them from.")
@click.option("--queue", help="The Celery queue the job's steps are to go through.")
@common.settings_option
@click.option("--wait", is_flag=True, help="Stay until the job ends, and show how far it is.")
@common.json_option
@common.quiet_option
@click.pass_context
def submit(
    ctx: click.Context,
    file: IO[bytes],
    client: str,
    queue: str | None,
    options: dict[str, str],
    wait: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Submit a job, and print its id.

    FILE (`-`: standard input) has one request a line: {"custom_id": "review 17", "params": {"model": ...,
    "max_tokens": ..., "messages": [...]}}. It may also be a JSON array of these or {"requests": [...]}, in UTF-8 or
    UTF-16, and packed with gzip, zstd, bzip2 or xz.

    \b
    JOB=$(claude-batch submit requests.jsonl)
    claude-batch submit requests.jsonl.gz --wait -s max_wait=7200
    """
    app = common.sending_app(ctx)
    checked = {**common.check_options(app, options), "client": client}
    job = BatchJob(uuid(), app)
    with _failures_explained(ctx, job), _open_requests(ctx, file, quiet) as requests:
        task = app.tasks[f"{message_chain.NAME}run_batch"]
        route: dict[str, Any] = {"queue": queue} if queue else {}
        task.apply_async((requests,), checked, task_id=job.id, **route)
    if not as_json:
        click.echo(job.id)
    to_follow = f"To follow the job: {common.spell_command(ctx, f'watch {job.id}')}"
    try:
        if wait:
            follow_job(ctx, job, as_json=as_json, quiet=quiet, queue=queue)
            return
        status = job.status()
    except errors.StoreUnavailable as exc:
        # Not with the exit code that says that trying again is safe.
        raise exits.Failure(f"job {job.id} is submitted, but now {exits.as_sentence(exc)} {to_follow}") from None
    if as_json:
        common.print_json(status)
    if not quiet:
        common.say(f"Submitted: {job_texts.format_size(status)}. {to_follow}")


@contextmanager
def _failures_explained(ctx: click.Context, job: BatchJob) -> Iterator[None]:
    """Turn what may interrupt the submission into a message and an exit code."""
    try:
        yield
    except OperationalError as exc:
        raise _unsent_failure(f"the broker or the result back end did not answer: {exits.as_sentence(exc)}") from None
    except RuntimeError as exc:  # newer Celery raises this
        if "result store" not in str(exc):
            raise
        raise _unsent_failure("the result back end did not answer.") from None
    except KeyboardInterrupt:
        _take_back(ctx, job)
        raise click.exceptions.Exit(exits.INTERRUPTED) from None


def _unsent_failure(why: str) -> exits.Failure:
    text = f"{why} Nothing was sent, and nothing is kept; submit again when it does."
    return exits.Failure(text, exits.UNREACHABLE)


def _take_back(ctx: click.Context, job: BatchJob) -> None:
    """Forget a job whose submission was interrupted, unless a worker has it already."""
    try:
        job.delete()
    except errors.JobNotFound:
        pass
    except errors.JobRunning:
        common.say(f"\nInterrupted, but job {job.id} has begun and goes on; to follow it:")
        common.say(f"  {common.spell_command(ctx, f'watch {job.id}')}")
        return
    except errors.StoreUnavailable:
        common.say(f"\nInterrupted. The store does not answer, so job {job.id} may have been sent; to find out:")
        common.say(f"  {common.spell_command(ctx, f'status {job.id}')}")
        return
    common.say("\nInterrupted: nothing was sent, and nothing is kept.")


@claude_batch.command()
@_FILE
@common.json_option
@click.pass_context
def estimate(ctx: click.Context, file: IO[bytes], as_json: bool) -> None:
    """Say what a job would cost, and what of that is not known.

    FILE is as for `submit`. Nothing is sent, and neither broker nor store is needed.
    """
    prices = prices_of(common.app_of(ctx))
    with _open_requests(ctx, file, quiet=as_json) as requests:
        found = estimated(requests, prices=prices)
    if as_json:
        common.print_json(found)
        return
    for text in job_texts.format_estimate(found):
        click.echo(text)


@contextmanager
def _open_requests(ctx: click.Context, file: IO[bytes], quiet: bool) -> Iterator[Iterable[Any]]:
    """Yield the requests in a file; errors in them are reported with their place in the file."""
    name = getattr(file, "name", "<stdin>")
    name = None if name == "<stdin>" else str(name)
    where = name or "standard input"
    requests = RequestFile(file, name, common.spell_command(ctx, str(ctx.info_name)))
    try:
        yield _show_count(requests) if not quiet and sys.stderr.isatty() else requests
    except Unreadable as exc:
        hint = f". {exc.hint}" if exc.hint else ""
        raise exits.Failure(f"{where}: {exc.why}; nothing was stored or sent{hint}", exits.USAGE) from None
    except errors.InvalidRequests as exc:
        raise exits.Failure(_describe_problems(exc, requests, where), exits.USAGE) from None


def _show_count(requests: Iterable[Any]) -> Iterator[Any]:
    """Yield the requests, and print to a terminal how many were read."""
    number = 0
    for number, request in enumerate(requests, 1):
        if number % _TELL == 0:
            click.echo(f"\r{number:,} requests read", err=True, nl=False)
        yield request
    if number >= _TELL:
        click.echo(f"\r{number:,} requests read", err=True)


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
