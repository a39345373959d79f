"""The commands that change jobs: ``claude-batch cancel``, ``resume``, ``delete``, ``adopt`` and ``recover``."""

from __future__ import annotations

import click

from claude_batch_tasks.cli import claude_batch, exits, output, parameters


@claude_batch.command()
@parameters.job_argument
@parameters.yes_option
@parameters.json_option
@click.pass_context
def cancel(ctx: click.Context, job_id: str, yes: bool, as_json: bool) -> None:
    """Ask for a job to be canceled.

    What Anthropic has processed keeps its results and is billed; the rest ends as canceled.
    """
    from kombu.exceptions import OperationalError

    from claude_batch_tasks.cli import common

    job = common.find_job(ctx, job_id, sending=True)
    status = job.status()
    asked = status.ended_at is None
    if asked:
        output.confirm(f"Cancel job {job.id} with its {status.requests:,} requests?", yes)
        try:
            job.cancel()
        except OperationalError as exc:
            output.say(
                f"The broker did not answer ({exc}), but the store has the request: a worker cancels the job at its "
                "next poll."
            )
        output.hint_command(
            "A worker asks Anthropic to cancel it. To see it end", common.spell_command(ctx, f"watch {job.id}")
        )
    else:
        output.say(f"Job {job.id} has already ended ({status.phase}); nothing was canceled.")
    if as_json:
        output.print_json({"job_id": job.id, "cancel_requested": asked, "state": status.state, "phase": status.phase})


@claude_batch.command()
@parameters.job_argument
@parameters.settings_option
@parameters.json_option
@click.pass_context
def resume(ctx: click.Context, job_id: str, options: dict[str, str], as_json: bool) -> None:
    """Resume a failed job where it stopped.

    Nothing is paid for twice. With `-s max_wait=none` a job that gave up waiting now waits without a limit.
    """
    from claude_batch_tasks.cli import common

    job = common.find_job(ctx, job_id, sending=True)
    job.resume(**common.check_options(common.app_of(ctx), options))
    output.hint_command(
        f"Job {job.id} continues where it stopped. To follow it", common.spell_command(ctx, f"watch {job.id}")
    )
    if as_json:
        output.print_json({"job_id": job.id, "resumed": True})


@claude_batch.command()
@parameters.job_argument
@parameters.yes_option
@parameters.json_option
@click.pass_context
def delete(ctx: click.Context, job_id: str, yes: bool, as_json: bool) -> None:
    """Delete a job from the store.

    Its requests, results and record are removed. A job that runs must be canceled first.
    """
    from claude_batch_tasks import errors
    from claude_batch_tasks.cli import common

    job = common.find_job(ctx, job_id)
    status = job.status()
    if status.done:
        output.confirm(f"Delete job {job.id} with its {status.done:,} results?", yes)
    try:
        job.delete()
    except errors.JobRunning:
        raise exits.Failure(
            f"job {job.id} is {status.phase}, and what it pays for would be lost; nothing was removed. First: "
            f"{common.spell_command(ctx, f'cancel {job.id}')}"
        ) from None
    output.say(f"Job {job.id} is deleted.")
    if as_json:
        output.print_json({"job_id": job.id, "deleted": True, "results": status.done})


@claude_batch.command()
@click.argument("batch_id")
@click.option("--client", default="default", show_default=True, help="Alias of the account it is on.")
@click.option("--queue", help="The Celery queue that the steps of the job go through.")
@parameters.label_option("A name for the job, by which it is found. It is not encrypted.")
@parameters.metadata_option("What else is to be known of the job; may be given several times. It is not encrypted.")
@parameters.settings_option
@parameters.json_option
@parameters.quiet_option
@click.pass_context
def adopt(
    ctx: click.Context,
    batch_id: str,
    client: str,
    queue: str | None,
    label: str | None,
    metadata: dict[str, str],
    options: dict[str, str],
    as_json: bool,
    quiet: bool,
) -> None:
    """Make a job of a batch that exists at Anthropic.

    Prints the id of the job. BATCH_ID is Anthropic's: msgbatch_...
    """
    from claude_batch_tasks import errors
    from claude_batch_tasks.cli import common
    from claude_batch_tasks.jobs.adopting import adopt as adopt_batch

    app = common.app_of(ctx)
    try:
        job = adopt_batch(
            batch_id,
            client=client,
            queue=queue,
            label=label,
            metadata=metadata or None,
            app=app,
            **common.check_options(app, options),
        )
    except errors.InvalidSettings:
        raise
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    if as_json:
        output.print_json({"job_id": job.id, "batch_id": batch_id})
    else:
        click.echo(job.id)
    if not quiet:
        output.hint_command("To follow the job", common.spell_command(ctx, f"watch {job.id}"))


@claude_batch.command()
@click.option(
    "--after",
    type=click.FloatRange(0),
    default=0,
    show_default=True,
    help="Only messages that are overdue by this many seconds; 0: one for everything that waits.",
)
@parameters.json_option
@click.pass_context
def recover(ctx: click.Context, after: float, as_json: bool) -> None:
    """Send messages again that the broker lost.

    Safe at any time: of several messages that say the same, one acts. Workers do it themselves for what is overdue.
    """
    from claude_batch_tasks.cli import common
    from claude_batch_tasks.formatting import format_count
    from claude_batch_tasks.lifecycle import recovery

    sent = recovery.recover_messages(common.sending_app(ctx), after)
    if as_json:
        output.print_json({"sent": sent})
    else:
        output.show([f"{format_count(sent, 'message')} sent again"])
