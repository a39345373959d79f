"""The command ``claude-batch doctor``, which checks the set-up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from claude_batch_tasks.cli import claude_batch, exits, output
from claude_batch_tasks.cli.output import Line

if TYPE_CHECKING:
    from celery import Celery

    from claude_batch_tasks.checks.problems import Finding
    from claude_batch_tasks.records import HistoryEvent

_SIGNS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}


@claude_batch.command()
@click.argument("parts", nargs=-1, type=click.Choice(["settings", "servers", "workers", "anthropic"]))
@click.option("--live", is_flag=True, help="Send one tiny batch from end to end, and print a report. This costs money.")
@click.option("--model", default="claude-haiku-4-5", show_default=True, help="With --live.")
@click.option("--client", default="default", show_default=True, help="With --live: the alias of an account.")
@click.option(
    "--timeout", type=click.FloatRange(0), default=3600, show_default=True, help="With --live: seconds to wait."
)
@click.option("-y", "--yes", is_flag=True, help="With --live: do not ask before it costs money.")
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
    """Check the set-up, and say how to repair it.

    Settings, store, broker, result back end, workers and the way to Anthropic are checked, or only the PARTS that are
    named. Nothing is changed, and without --live nothing costs money. The exit code is 1 if there are errors.
    """
    from claude_batch_tasks.cli import common
    from claude_batch_tasks.doctor import examine_parts
    from claude_batch_tasks.formatting import format_count

    app = common.app_of(ctx)
    if live:
        if parts or strict or as_json:
            raise click.UsageError("--live prints a report, and takes no PARTS, --strict or --json")
        _run_live(ctx, app, model, client, timeout, yes)
        return
    statuses = []
    for name, found in examine_parts(app, parts):
        statuses += [finding.status for finding in found]
        _show_findings(name, found, as_json)
    errors, warnings = statuses.count("error"), statuses.count("warning")
    output.say(f"{format_count(errors, 'error')}, {format_count(warnings, 'warning')}")
    if errors or (strict and warnings):
        ctx.exit(exits.FAILED)


def _show_findings(name: str, found: Sequence[Finding], as_json: bool) -> None:
    if as_json:
        _print_findings(name, found)
    else:
        output.show(_format_findings(name, found))


def _print_findings(name: str, found: Iterable[Finding]) -> None:
    for finding in found:
        values = {
            "part": name,
            "status": finding.status,
            "id": finding.id,
            "text": finding.text,
            "hint": finding.hint,
        }
        output.print_json({key: value for key, value in values.items() if value})


def _format_findings(name: str, found: Iterable[Finding]) -> Iterator[Line]:
    yield Line(click.style(name, bold=True))
    for finding in found:
        sign, colour = _SIGNS[finding.status]
        number = f" [{finding.id}]" if finding.id else ""
        yield Line(f"  {click.style(sign, fg=colour)} {finding.text}{number}", indent=4)
        if finding.hint:
            yield Line(f"    → {finding.hint}", indent=6)


def _run_live(ctx: click.Context, app: Celery, model: str, client: str, timeout: float, yes: bool) -> None:
    from claude_batch_tasks.cli import common
    from claude_batch_tasks.doctor import live, workers
    from claude_batch_tasks.doctor.support_report import write_report
    from claude_batch_tasks.settings import Settings

    Settings.of(app).check_client(client)
    if obstacles := live.find_obstacles(app):
        output.show(_format_findings("workers", obstacles))
        raise exits.Failure("no worker would take the batch, so nothing was sent")
    dollars = live.greatest_cost(app, model)
    price = f"at most ${dollars:.6f}" if dollars is not None else "an unknown amount (no price of that model is known)"
    if not yes:
        click.confirm(f"Send one request to {model} through a batch? It costs {price}.", abort=True, err=True)
    job = live.submit_test(app, model, client)
    output.say(f"job {job.id}")

    def come_back(why: str, code: int) -> exits.Failure:
        return exits.Failure(
            f"{why}; the job continues. To see its report: {common.spell_command(ctx, f'report {job.id}')}"
            f" (to stop it: {common.spell_command(ctx, f'cancel {job.id}')})",
            code,
        )

    def say_event(event: HistoryEvent) -> None:
        output.say(f"{event.at:%H:%M:%S}  {event.event:<10} {event.text}")

    try:
        status = live.follow_job(job, timeout, say_event, output.say)
    except KeyboardInterrupt:
        raise come_back("interrupted", exits.INTERRUPTED) from None
    if status.ended_at is None:
        raise come_back(f"it has not ended within {timeout:g} s; a batch may take 24 h", exits.FAILED)
    click.echo(write_report(app, job.id, workers=workers.ask_versions(app)), nl=False)
    if status.succeeded != status.requests:
        raise exits.Failure(status.error or "the request did not succeed: see the report")
