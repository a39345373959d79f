"""The commands ``claude-batch doctor`` and ``claude-batch report``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from claude_batch_tasks.cli import claude_batch, exits
from claude_batch_tasks.cli.common import app_of, job_argument, say, spell_command

if TYPE_CHECKING:
    from celery import Celery

    from claude_batch_tasks.checks.problems import Finding
    from claude_batch_tasks.records import HistoryEvent

_SIGNS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}


@claude_batch.command()
@click.argument("parts", nargs=-1, type=click.Choice(["settings", "servers", "workers", "anthropic"]))
@click.option("--live", is_flag=True, help="Send one tiny batch from end to end, and report what was seen. This costs.")
@click.option("--model", default="claude-haiku-4-5", show_default=True, help="With --live.")
@click.option("--client", default="default", show_default=True, help="With --live: the alias of an account.")
@click.option(
    "--timeout", type=click.FloatRange(0), default=3600, show_default=True, help="With --live: seconds to wait."
)
@click.option("-y", "--yes", is_flag=True, help="With --live: do not ask before it costs.")
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line for each finding.")
@click.pass_context
def doctor(
    ctx: click.Context,
    parts: tuple[str, ...],
    live: bool,
    model: str,
    client: str,
    timeout: float,
    yes: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Say what is wrong with the set-up, and what to do.

    Settings, store, broker, result back end, workers and the way to Anthropic are looked at, or only the PARTS that are
    named; nothing is changed, and nothing costs anything without --live. The exit code is 1 if there are errors.
    """
    app = app_of(ctx)
    if live:
        if parts or strict or as_json:
            raise click.UsageError("--live prints a report, and takes no PARTS, --strict or --json")
        _run_live(ctx, app, model, client, timeout, yes)
        return
    from claude_batch_tasks.doctor import examine_parts

    statuses = []
    for name, found in examine_parts(app, parts):
        statuses += [finding.status for finding in found]
        _show_findings(name, found, as_json)
    errors, warnings = statuses.count("error"), statuses.count("warning")
    say(f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}")
    if errors or (strict and warnings):
        ctx.exit(1)


def _show_findings(name: str, found: Iterable[Finding], as_json: bool) -> None:
    if not as_json:
        click.secho(name, bold=True)
    for finding in found:
        if as_json:
            told = {
                "part": name,
                "status": finding.status,
                "id": finding.id,
                "text": finding.text,
                "hint": finding.hint,
            }
            click.echo(json.dumps({key: value for key, value in told.items() if value}))
            continue
        sign, colour = _SIGNS[finding.status]
        number = f" [{finding.id}]" if finding.id else ""
        click.echo(f"  {click.style(sign, fg=colour)} {finding.text}{number}")
        if finding.hint:
            click.echo(f"    → {finding.hint}")


def _run_live(ctx: click.Context, app: Celery, model: str, client: str, timeout: float, yes: bool) -> None:
    from claude_batch_tasks.doctor import live, workers
    from claude_batch_tasks.doctor.support_report import write_report as report_of
    from claude_batch_tasks.settings import Settings

    Settings.of(app).check_client(client)
    if obstacles := live.find_obstacles(app):
        _show_findings("workers", obstacles, False)
        raise exits.Failure("no worker would take the batch, so nothing was sent")
    dollars = live.greatest_cost(app, model)
    price = f"at most ${dollars:.6f}" if dollars is not None else "what is not known (no price of that model)"
    if not yes:
        click.confirm(f"Send one request to {model} through a batch? It costs {price}.", abort=True, err=True)
    job = live.submit_test(app, model, client)
    say(f"job {job.id}")

    def come_back(why: str, code: int) -> exits.Failure:
        return exits.Failure(
            f"{why}; the job goes on. Come back with: {spell_command(ctx, f'report {job.id}')}"
            f" (to stop it: {spell_command(ctx, f'cancel {job.id}')})",
            code,
        )

    def say_event(event: HistoryEvent) -> None:
        say(f"{event.at:%H:%M:%S}  {event.event:<10} {event.text}")

    try:
        status = live.follow_job(job, timeout, say_event, say)
    except KeyboardInterrupt:
        raise come_back("interrupted", exits.INTERRUPTED) from None
    if status.ended_at is None:
        raise come_back(f"it has not ended within {timeout:g} s, which batches may take 24 h for", exits.FAILED)
    click.echo(report_of(app, job.id, workers=workers.ask_versions(app)), nl=False)
    if status.succeeded != status.requests:
        raise exits.Failure(status.error or "the request did not succeed: see the report")


@claude_batch.command()
@job_argument
@click.pass_context
def report(ctx: click.Context, job_id: str) -> None:
    """Print what happened to a job, to paste into a support ticket.

    Timeline, 404s, request ids, counts, costs, settings and versions, as Markdown. It has no prompt, no answer, no key
    and no name of a host.
    """
    from claude_batch_tasks.doctor import workers
    from claude_batch_tasks.doctor.support_report import write_report as report_of

    app = app_of(ctx)
    click.echo(report_of(app, job_id, workers=workers.ask_versions(app)), nl=False)
