"""The command ``claude-batch watch``, which follows a job until it ends."""

from __future__ import annotations

import click

from claude_batch_tasks.cli import claude_batch, parameters


@claude_batch.command()
@parameters.job_argument
@parameters.json_option
@parameters.quiet_option
@click.pass_context
def watch(ctx: click.Context, job_id: str, as_json: bool, quiet: bool) -> None:
    """Follow a job until it ends.

    Ctrl-C leaves the job running. With --json its status is printed when it has ended.
    """
    from claude_batch_tasks.cli import common, following

    following.follow_job(ctx, common.find_job(ctx, job_id), as_json=as_json, quiet=quiet)
