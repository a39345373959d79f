"""The command ``claude-batch watch``, which follows a job until it ends; `submit --wait` ends with the same."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from claude_batch_tasks import errors
from claude_batch_tasks.cli import claude_batch, common, exits, job_texts
from claude_batch_tasks.jobs.batch_job import BatchJob
from claude_batch_tasks.jobs.job_status import JobStatus
from claude_batch_tasks.records import HistoryEvent

if TYPE_CHECKING:
    from claude_batch_tasks.cli.bar import Bar

#: Seconds between two polls of the store: the first time, and the longest.
_FIRST, _LONGEST = 0.2, 2.0

#: Seconds after which there is a remark on a job that no worker has started, or whose next step is overdue.
_UNBEGUN, _OVERDUE = 5.0, 60.0

#: Seconds for which a store that has answered before may be silent.
_PATIENCE = 120.0

#: Seconds between two lines on progress, if there is no bar.
_REPORT = 30.0


@claude_batch.command()
@common.job_argument
@common.json_option
@common.quiet_option
@click.pass_context
def watch(ctx: click.Context, job_id: str, as_json: bool, quiet: bool) -> None:
    """Stay with a job until it ends.

    Ctrl-C leaves the job running. With --json its status is printed when it has ended.
    """
    follow_job(ctx, common.job_of(ctx, job_id), as_json=as_json, quiet=quiet)


def follow_job(ctx: click.Context, job: BatchJob, *, as_json: bool, quiet: bool, queue: str | None = None) -> None:
    """Show on standard error what happens to a job until it ends; the exit code says how it ended.

    Args:
        queue: the queue that the job was submitted to, if it is not the usual one.
    """
    try:
        for status in (
            _watch_silently(job)
            if quiet
            else _show_statuses(job, common.worker_command(ctx, common.app_of(ctx), queue))
        ):
            last = status
    except KeyboardInterrupt:
        common.say(f"\nJob {job.id} goes on. To come back, or to stop it:")
        for command in ("watch", "status", "results", "cancel"):
            common.say(f"  {common.spell_command(ctx, f'{command} {job.id}')}")
        raise click.exceptions.Exit(exits.INTERRUPTED) from None
    if as_json:
        common.print_json(last)
    if not quiet:
        _say_conclusion(ctx, last)
    if last.state in ("failed", "revoked"):
        ctx.exit(exits.FAILED)
    if last.succeeded < last.requests:
        ctx.exit(exits.NOT_ALL_SUCCEEDED)


def _watch_silently(job: BatchJob) -> Iterator[JobStatus]:
    return (status for status, _ in _poll_status(job))


def _show_statuses(job: BatchJob, worker: str) -> Iterator[JobStatus]:
    """Show and yield each status: with a bar if standard error is a terminal, else with a line now and then."""
    reported, said, remarked = time.monotonic(), "", False
    with _make_bar() as bar:
        for status, news in _poll_status(job):
            for event in news:
                common.say(job_texts.format_event(event))
            if not remarked and (remark := _make_remark(status, worker)):
                remarked = True
                common.say(click.style(remark, fg="yellow"))
            if bar is not None:
                bar.show_status(status)
            elif time.monotonic() - reported >= _REPORT and (text := job_texts.format_progress(status)) != said:
                reported, said = time.monotonic(), text
                common.say(text)
            yield status


def _make_bar() -> AbstractContextManager[Bar | None]:
    if sys.stderr.isatty():
        with suppress(ImportError):  # rich comes with an extra, and under `celery` we may be without it
            from claude_batch_tasks.cli.bar import Bar

            return Bar()
    return nullcontext()


def _poll_status(job: BatchJob) -> Iterator[tuple[JobStatus, list[HistoryEvent]]]:
    """Yield the job's status and the events since the status before, until the job has ended."""
    seen: set[tuple[datetime, str, int | None, str]] = set()
    wait, answered = _FIRST, -math.inf
    while True:
        try:
            status, history = job.status(), job.history()
        except errors.StoreUnavailable:
            if time.monotonic() - answered > _PATIENCE:
                raise
        else:
            answered = time.monotonic()
            news = {(event.at, event.event, event.batch, event.text): event for event in history}
            yield status, [event for key, event in news.items() if key not in seen]
            seen = set(news)
            if status.ended_at is not None:
                return
        time.sleep(wait)
        wait = min(wait * 1.2, _LONGEST)


def _make_remark(status: JobStatus, worker: str) -> str | None:
    """Return a remark on what may keep the job from going on; None if there is nothing to say."""
    now = datetime.now(timezone.utc)
    if status.state == "staged" and (now - status.submitted_at).total_seconds() > _UNBEGUN:
        return f"No worker has taken the job yet. If none runs, start one: {worker}"
    if status.next_poll_at is not None and (now - status.next_poll_at).total_seconds() > _OVERDUE:
        return f"Nothing has been done for a while that was due. If no worker runs, start one: {worker}"
    return None


def _say_conclusion(ctx: click.Context, status: JobStatus) -> None:
    common.say(job_texts.format_ending(status))
    if status.state == "failed":
        common.say(f"To take it up again: {common.spell_command(ctx, f'resume {status.job_id}')}")
    if status.done:
        common.say(f"Its results: {common.spell_command(ctx, f'results {status.job_id}')}")
