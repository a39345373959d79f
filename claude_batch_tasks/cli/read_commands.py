"""The commands ``claude-batch list`` and ``status``, which show what the store knows at this moment."""

from __future__ import annotations

from typing import get_args

import click

from claude_batch_tasks.cli import claude_batch, common, job_texts
from claude_batch_tasks.jobs.batch_job import list_jobs
from claude_batch_tasks.records import JobState


@claude_batch.command("list")
@click.option(
    "--state", "states", multiple=True, type=click.Choice(get_args(JobState)), help="May be given several times."
)
@click.option("--limit", type=click.IntRange(1), help="So many at most.")
@common.json_option
@click.pass_context
def list_(ctx: click.Context, states: tuple[JobState, ...], limit: int | None, as_json: bool) -> None:
    """List jobs, the newest first.

    With --json one line for each.
    """
    jobs = list_jobs(states=states or None, limit=limit, app=common.app_of(ctx))
    if as_json:
        for job in jobs:
            common.print_json(job)
        return
    for line in job_texts.format_jobs(jobs):
        click.echo(line)


@claude_batch.command()
@common.job_argument
@common.json_option
@click.pass_context
def status(ctx: click.Context, job_id: str, as_json: bool) -> None:
    """Show how far a job is, and its timeline."""
    job = common.job_of(ctx, job_id)
    found, history = job.status(), job.history()
    if as_json:
        common.print_json({**found.asdict(), "history": history})
        return
    for line in job_texts.format_status(found, history):
        click.echo(line)
