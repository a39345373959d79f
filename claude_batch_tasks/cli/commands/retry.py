"""The command ``claude-batch redeliver``."""

from __future__ import annotations

import click

from claude_batch_tasks.cli import claude_batch, output, parameters


@claude_batch.command()
@parameters.job_argument
@click.option("--all", "everything", is_flag=True, help="Also the answers that were delivered.")
@parameters.json_option
@click.pass_context
def redeliver(ctx: click.Context, job_id: str, everything: bool, as_json: bool) -> None:
    """Deliver answers again: call `on_result` for them.

    These are the answers that are not known to be delivered, or all. Nothing is sent to Anthropic. The task must accept
    that it gets an answer twice.
    """
    from claude_batch_tasks.cli import common
    from claude_batch_tasks.formatting import format_count

    job = common.find_job(ctx, job_id, sending=True)
    count = job.redeliver(all=everything)
    if as_json:
        output.print_json({"job_id": job.id, "requests": count})
    elif count:
        output.say(f"The answers of {format_count(count, 'request')} of job {job.id} are delivered again.")
    else:
        output.say(f"Job {job.id} has no answers to deliver; with --all they are all delivered again.")
