"""Following a job until it ends, with a bar on a terminal."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click
from celery import Celery

from claude_batch_tasks import errors
from claude_batch_tasks.cli import common, exits, job_texts, output
from claude_batch_tasks.jobs.batch_job import BatchJob
from claude_batch_tasks.jobs.job_status import JobStatus
from claude_batch_tasks.records import HistoryEvent
from claude_batch_tasks.wire import answer_texts

if TYPE_CHECKING:
    from claude_batch_tasks.cli.bar import Bar

#: Seconds between two reads of the store: the first time, and the longest.
_FIRST, _LONGEST = 0.2, 2.0

#: Seconds after which there is a remark on a job whose next step is overdue.
_OVERDUE = 60.0

#: Seconds for which a store that has answered before may be silent.
_SILENCE = 120.0

#: Seconds between two lines on progress, if there is no bar.
_REPORT = 30.0


def follow_job(ctx: click.Context, job: BatchJob, *, as_json: bool, quiet: bool, queue: str | None = None) -> None:
    """Show on standard error what happens to a job until it ends; the exit code says how it ended.

    Args:
        queue: the queue that the job was submitted to, if it is not the usual one.
    """
    app = common.app_of(ctx)
    worker = common.worker_command(ctx, app, queue)
    try:
        # Closed before anything else is printed: its end removes the bar.
        with closing(_watch_silently(job) if quiet else _show_statuses(app, job, worker)) as statuses:
            for status in statuses:
                last = status
    except KeyboardInterrupt:
        output.say(f"\nJob {job.id} continues. To come back, or to cancel it:")
        for command in ("watch", "status", "results", "cancel"):
            output.say(f"  {common.spell_command(ctx, f'{command} {job.id}')}")
        raise click.exceptions.Exit(exits.INTERRUPTED) from None
    if as_json:
        output.print_json(last)
    if not quiet:
        _say_conclusion(ctx, last)
    if last.state in ("failed", "revoked"):
        ctx.exit(exits.FAILED)
    if last.succeeded < last.requests or answer_texts.count_incomplete(last.incomplete):
        ctx.exit(exits.NOT_ALL_SUCCEEDED)


def _watch_silently(job: BatchJob) -> Generator[JobStatus, None, None]:
    return (status for status, _ in _poll_status(job))


def _show_statuses(app: Celery, job: BatchJob, worker: str) -> Generator[JobStatus, None, None]:
    """Show and yield each status: with a bar if standard error is a terminal, else with a line now and then."""
    reported, said, remarked = time.monotonic(), "", False
    with _make_bar() as bar:
        for status, news in _poll_status(job):
            for event in news:
                output.say(job_texts.format_event(event))
            if not remarked and (remark := _make_remark(app, status, worker)):
                remarked = True
                output.say(click.style(remark, fg="yellow"))
            if bar is not None:
                bar.show_status(status)
            elif time.monotonic() - reported >= _REPORT and (text := job_texts.format_progress(status)) != said:
                reported, said = time.monotonic(), text
                output.say(text)
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
            if time.monotonic() - answered > _SILENCE:
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


def _make_remark(app: Celery, status: JobStatus, worker: str) -> str | None:
    """Return a remark on what may keep the job from continuing; None if there is nothing to say."""
    if text := common.explain_wait(app, status):
        return f"{text} To start one: {worker}"
    now = datetime.now(timezone.utc)
    if status.next_poll_at is not None and (now - status.next_poll_at).total_seconds() > _OVERDUE:
        return f"A step is overdue. If no worker runs, start one: {worker}"
    return None


def _say_conclusion(ctx: click.Context, status: JobStatus) -> None:
    output.say(job_texts.format_ending(status))
    if status.state == "failed":
        output.hint_command("To resume it", common.spell_command(ctx, f"resume {status.job_id}"))
    if status.failures:
        failed = status.failures[0].incomplete is None
        output.hint_command(
            "Which failed, and why" if failed else "Which are incomplete, and why",
            common.spell_command(ctx, f"failures {status.job_id}"),
        )
    if status.done:
        output.hint_command("Its results", common.spell_command(ctx, f"results {status.job_id}"))
