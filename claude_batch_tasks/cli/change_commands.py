"""The commands that change jobs: ``claude-batch cancel``, ``resume``, ``delete``, ``adopt`` and ``recover``."""

from __future__ import annotations

import click
from kombu.exceptions import OperationalError

from claude_batch_tasks import errors
from claude_batch_tasks.cli import claude_batch, common, exits
from claude_batch_tasks.jobs.adopting import adopt as adopted
from claude_batch_tasks.jobs.batch_job import BatchJob
from claude_batch_tasks.lifecycle import recovery


@claude_batch.command()
@common.job_argument
@common.yes_option
@click.pass_context
def cancel(ctx: click.Context, job_id: str, yes: bool) -> None:
    """Ask for a job to be canceled.

    What Anthropic has processed keeps its results and is billed; the rest ends as canceled.
    """
    job = BatchJob(job_id, common.sending_app(ctx))
    status = job.status()
    if status.ended_at is not None:
        common.say(f"Job {job_id} has ended already ({status.state}); nothing was canceled.")
        return
    common.confirm(f"Cancel job {job_id}, of {status.requests:,} requests?", yes)
    try:
        job.cancel()
    except OperationalError as exc:
        common.say(f"The broker did not answer ({exc}), but it is noted: a worker cancels the job at its next look.")
    common.say(
        f"Cancel asked for; a worker tells Anthropic. To see it end: {common.spell_command(ctx, f'watch {job_id}')}"
    )


@claude_batch.command()
@common.job_argument
@common.settings_option
@click.pass_context
def resume(ctx: click.Context, job_id: str, options: dict[str, str]) -> None:
    """Take a failed job up again where it stands.

    Nothing is paid for twice. With `-s max_wait=none` one that gave up waiting waits for good.
    """
    app = common.app_of(ctx)
    job = BatchJob(job_id, app)
    job.resume(**common.check_options(app, options))
    common.say(f"Job {job_id} goes on where it stood. To follow it: {common.spell_command(ctx, f'watch {job_id}')}")


@claude_batch.command()
@common.job_argument
@common.yes_option
@click.pass_context
def delete(ctx: click.Context, job_id: str, yes: bool) -> None:
    """Remove a job from the store.

    Requests, results and record; one that runs must be canceled first.
    """
    job = common.job_of(ctx, job_id)
    status = job.status()
    if status.done:
        common.confirm(f"Delete job {job_id} with its {status.done:,} results?", yes)
    try:
        job.delete()
    except errors.JobRunning:
        raise exits.Failure(
            f"job {job_id} is {status.state}, and what it pays for would be lost; nothing was removed. First: "
            f"{common.spell_command(ctx, f'cancel {job_id}')}"
        ) from None
    common.say(f"Job {job_id} is deleted.")


@claude_batch.command()
@click.argument("batch_id")
@click.option("--client", default="default", show_default=True, help="Alias of the account it is on.")
@click.option("--queue", help="The Celery queue the job's steps are to go through.")
@common.settings_option
@common.quiet_option
@click.pass_context
def adopt(
    ctx: click.Context, batch_id: str, client: str, queue: str | None, options: dict[str, str], quiet: bool
) -> None:
    """Make a job of an existing batch.

    Prints the job's id. BATCH_ID is Anthropic's: msgbatch_...
    """
    app = common.app_of(ctx)
    try:
        job = adopted(batch_id, client=client, queue=queue, app=app, **common.check_options(app, options))
    except errors.InvalidSettings:
        raise
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    click.echo(job.id)
    if not quiet:
        common.say(f"To follow the job: {common.spell_command(ctx, f'watch {job.id}')}")


@claude_batch.command()
@click.option(
    "--after",
    type=click.FloatRange(0),
    default=0,
    show_default=True,
    help="Only messages that are overdue by this many seconds; 0: one for everything that waits.",
)
@click.pass_context
def recover(ctx: click.Context, after: float) -> None:
    """Send messages again that the broker lost.

    Safe at any time: of several messages that say the same, one acts. Workers do it themselves for what is overdue.
    """
    sent = recovery.recover_messages(common.sending_app(ctx), after)
    click.echo(f"{sent} message{'s' if sent != 1 else ''} sent again")
