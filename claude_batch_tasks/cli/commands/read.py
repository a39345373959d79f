"""The commands ``claude-batch list`` and ``status``, which show what the store knows at this moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from claude_batch_tasks.cli import claude_batch, output, parameters

if TYPE_CHECKING:
    from claude_batch_tasks.records import JobState, Phase

#: The phases of jobs, and `staged`, which is the old word for `queued`.
_STATES = [
    *("queued", "staged", "running", "saving results", "canceling", "delivering"),
    *("completed", "canceled", "failed", "revoked"),
]


@claude_batch.command("list")
@click.option(
    "--state", "states", multiple=True, type=click.Choice(_STATES), help="Only these; may be given several times."
)
@parameters.label_option("Only jobs with this label.")
@parameters.metadata_option("Only jobs with this metadata; may be given several times.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@parameters.json_option
@click.pass_context
def list_jobs(
    ctx: click.Context,
    states: tuple[str, ...],
    label: str | None,
    metadata: dict[str, str],
    limit: int | None,
    as_json: bool,
) -> None:
    """List the jobs, the newest first.

    FAILED counts every outcome but `succeeded`. A terminal of less than 120 columns shows the first 8 characters of a
    job's id. With --json: a line for each job.
    """
    from claude_batch_tasks.cli import common, job_texts
    from claude_batch_tasks.jobs import listing

    jobs = listing.list_jobs(
        states=cast("tuple[JobState | Phase, ...]", states) or None,
        label=label,
        metadata=metadata or None,
        limit=limit,
        app=common.app_of(ctx),
    )
    if as_json:
        for job in jobs:
            output.print_json(job)
        return
    output.show(job_texts.format_jobs(jobs, output.terminal_width()))


@claude_batch.command()
@parameters.job_argument
@parameters.json_option
@click.pass_context
def status(ctx: click.Context, job_id: str, as_json: bool) -> None:
    """Show how far a job is, and what happened to it."""
    from claude_batch_tasks.cli import common, job_texts

    job = common.find_job(ctx, job_id)
    found, history = job.status(), job.history()
    if as_json:
        output.print_json({**found.asdict(), "history": history})
    else:
        waits = common.explain_wait(common.app_of(ctx), found)
        output.show(job_texts.format_status(found, history, waits))
