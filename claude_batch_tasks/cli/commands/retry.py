"""The commands ``claude-batch retry-failed`` and ``redeliver``."""

from __future__ import annotations

import click

from claude_batch_tasks.cli import claude_batch, output, parameters


@claude_batch.command("retry-failed")
@parameters.job_argument
@parameters.types_option
@parameters.settings_option
@click.option("--wait", is_flag=True, help="Stay until the new job ends, and show how far it is.")
@parameters.yes_option
@parameters.json_option
@parameters.quiet_option
@click.pass_context
def retry_failed(
    ctx: click.Context,
    job_id: str,
    types: tuple[str, ...],
    options: dict[str, str],
    wait: bool,
    yes: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Submit the failed requests of a job again, as a new job.

    Prints the id of the new job. What succeeded is not sent again. On a terminal the number of requests and their
    highest possible cost are shown first. With --json the status of the new job is printed instead of its id.

    \b
    claude-batch retry-failed $JOB --type overloaded_error --type expired
    claude-batch results $JOB --with-retries -o results.jsonl
    """
    from claude_batch_tasks.cli import common, retrying, submitting
    from claude_batch_tasks.jobs.batch_job import BatchJob
    from claude_batch_tasks.results.failures import make_retry_filter

    job = common.find_job(ctx, job_id, sending=True)
    app = common.app_of(ctx)
    checked = common.check_options(app, options)
    try:
        make_retry_filter(types or None)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    retrying.confirm_retry(app, job, types or None, yes=yes, quiet=quiet)
    new = BatchJob(job.retry_failed(types or None, **checked).id, app)
    submitting.report_submitted(ctx, new, queue=None, wait=wait, as_json=as_json, quiet=quiet)


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
