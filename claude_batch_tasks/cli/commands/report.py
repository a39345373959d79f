"""The command ``claude-batch report``, whose output goes into a support ticket."""

from __future__ import annotations

import click

from claude_batch_tasks.cli import claude_batch, output, parameters


@claude_batch.command()
@parameters.job_argument
@parameters.json_option
@click.pass_context
def report(ctx: click.Context, job_id: str, as_json: bool) -> None:
    """Print a report on a job for a support ticket.

    It has the timeline, 404s, request ids, counts, costs, settings and versions, as Markdown. It has no prompt, no
    answer, no key and no name of a host. With --json: an object with the job's id and that text.
    """
    from claude_batch_tasks.cli import common
    from claude_batch_tasks.doctor import workers
    from claude_batch_tasks.doctor.support_report import write_report

    job = common.find_job(ctx, job_id)
    app = common.app_of(ctx)
    text = write_report(app, job.id, workers=workers.ask_versions(app))
    if as_json:
        output.print_json({"job_id": job.id, "report": text})
    else:
        click.echo(text, nl=False)
