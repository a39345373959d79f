"""The command ``claude-batch results``, which exports a job's outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from claude_batch_tasks.cli import claude_batch, exporting, output, parameters
from claude_batch_tasks.formatting import format_count

if TYPE_CHECKING:
    from claude_batch_tasks.results.stored.outcomes import Order, Type

_OUTCOMES = ["succeeded", "errored", "expired", "canceled"]


@claude_batch.command()
@parameters.job_argument
@exporting.file_option
@click.option("--type", "only", type=click.Choice(_OUTCOMES), help="Only results of this type.")
@exporting.format_option
@click.option(
    "--order",
    type=click.Choice(["stored", "request"]),
    default="stored",
    show_default=True,
    help="As they came from Anthropic, or as the requests were submitted.",
)
@click.option("--with-retries", is_flag=True, help="Of each request the newest result, of this job or of a retry.")
@parameters.json_option
@parameters.quiet_option
@click.pass_context
def results(
    ctx: click.Context,
    job_id: str,
    file: str,
    only: Type | None,
    format_: str | None,
    order: Order,
    with_retries: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write the results of a job.

    One a line: {"custom_id": ..., "source": ..., "result": ...}, and where there is something to say "incomplete",
    "parse_error" and "attempts". While the job runs: those of the batches that are finished. With -o FILE --json: an
    object that says what was written.

    \b
    claude-batch results $JOB | jq -r .result.message.content[0].text
    claude-batch results $JOB -o results.parquet
    """
    from claude_batch_tasks.cli import common
    from claude_batch_tasks.wire import answer_texts

    exporting.check_target(file, format_)
    job = common.find_job(ctx, job_id)
    to_file = file != exporting.STANDARD_OUTPUT
    if as_json and not to_file:
        format_ = "jsonl"
    written = exporting.write_outcomes(
        file,
        format_,
        lambda target, chosen: job.export(target, chosen, type=only, order=order, with_retries=with_retries),
    )
    if as_json and to_file:
        output.print_json({"job_id": job.id, "file": file, "written": written})
    if quiet:
        return
    if to_file:
        output.say(f"{format_count(written, 'result')} written to {file}")
    status = job.status()
    if status.done < status.requests or status.ended_at is None:
        output.say(f"Job {job.id} is {status.phase}: {status.done:,} of {status.requests:,} requests have a result.")
    if answer_texts.count_incomplete(status.incomplete):
        text = answer_texts.format_incomplete(status.incomplete)
        output.hint_command(f"{text}. Which, and why", common.spell_command(ctx, f"failures {job.id}"))
