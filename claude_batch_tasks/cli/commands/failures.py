"""The command ``claude-batch failures``: which requests of a job failed, or have incomplete answers, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from claude_batch_tasks.cli import claude_batch, exporting, output, parameters
from claude_batch_tasks.formatting import format_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from claude_batch_tasks import FailureCount, JobStatus, RequestResult
    from claude_batch_tasks.jobs.batch_job import BatchJob


@claude_batch.command()
@parameters.job_argument
@parameters.types_option
@click.option("--list", "each", is_flag=True, help="List each of these requests, not only the counts.")
@exporting.file_option
@click.option("--csv", "csv", metavar="FILE", type=click.Path(dir_okay=False), help="Same as -o FILE --format csv.")
@exporting.format_option
@parameters.json_option
@click.pass_context
def failures(
    ctx: click.Context,
    job_id: str,
    types: tuple[str, ...],
    each: bool,
    file: str,
    csv: str | None,
    format_: str | None,
    as_json: bool,
) -> None:
    """Show which requests failed, and why.

    Counts by failure type, with an example each. A failure type is the type of the error (invalid_request_error,
    overloaded_error, ...), or `expired` or `canceled`. After them: answers that are not complete, by reason (refusal,
    max_tokens, pause_turn, model_context_window_exceeded, empty, invalid). With --json: an object with the counts; with
    --list --json a line for each request; with -o FILE --json an object that says what was written.

    \b
    claude-batch failures $JOB --type overloaded_error --list
    claude-batch failures $JOB -o failures.csv
    """
    from claude_batch_tasks.cli import common

    if csv is not None:
        file, format_ = csv, "csv"
    exporting.check_target(file, format_)
    job = common.find_job(ctx, job_id)
    if file != exporting.STANDARD_OUTPUT or format_ is not None:
        _export_failures(job, types, file, format_, as_json)
    elif each:
        _list_failures(job, types, as_json)
    else:
        _show_counts(ctx, job, types, as_json)


def _export_failures(job: BatchJob, types: tuple[str, ...], file: str, format_: str | None, as_json: bool) -> None:
    written = exporting.write_outcomes(
        file, format_, lambda target, chosen: job.export(target, chosen, failures=types or True)
    )
    if file == exporting.STANDARD_OUTPUT:
        return
    if as_json:
        output.print_json({"job_id": job.id, "file": file, "written": written})
    output.say(f"{format_count(written, 'failure')} written to {file}")


def _list_failures(job: BatchJob, types: tuple[str, ...], as_json: bool) -> None:
    from claude_batch_tasks.cli import failure_texts

    found = job.failures(types or None)
    if as_json:
        for result in found:
            output.print_json(_describe_failure(result))
    else:
        output.show(failure_texts.format_failures(found))


def _describe_failure(result: RequestResult) -> dict[str, Any]:
    from claude_batch_tasks.results import failures

    return {
        "custom_id": result.custom_id,
        "type": failures.name_result(result),
        "outcome": result.type,
        "error_type": result.error_type,
        "incomplete": result.incomplete,
        "message": failures.explain_result(result),
        "source": result.source,
    }


def _show_counts(ctx: click.Context, job: BatchJob, types: tuple[str, ...], as_json: bool) -> None:
    from claude_batch_tasks.results.failures import make_filter

    status, wanted = job.status(), make_filter(types or None)
    counts = [each for each in status.failures if wanted.accepts(each.outcome, each.error_type, each.incomplete)]
    if as_json:
        output.print_json(_describe_counts(status, counts))
        return
    _say_counts(ctx, status, counts, types)
    if status.ended_at is None:
        output.say(f"Job {job.id} is {status.phase}: only batches that are finished are counted.")
    if counts:
        _hint_next(ctx, status, counts, types)
    if status.delivery_failures:
        output.say(
            f"on_result failed for {format_count(status.delivery_failures, 'request')}: {status.on_result_error}"
        )
        output.hint_command("To call it again for them", _spell(ctx, f"redeliver {job.id}"))


def _describe_counts(status: JobStatus, counts: Sequence[FailureCount]) -> dict[str, Any]:
    return {
        "job_id": status.job_id,
        "state": status.state,
        "phase": status.phase,
        "failed": sum(count.count for count in counts if count.incomplete is None),
        "incomplete": {count.type: count.count for count in counts if count.incomplete is not None},
        "failures": [{"type": count.type, **count.asdict()} for count in counts],
        "error": status.error,
        "delivery_failures": status.delivery_failures,
        "on_result_error": status.on_result_error,
    }


def _say_counts(ctx: click.Context, status: JobStatus, counts: Sequence[FailureCount], types: tuple[str, ...]) -> None:
    from claude_batch_tasks.cli import failure_texts, job_texts

    if counts:
        output.show(failure_texts.format_counts(counts))
    elif status.error is None:
        of_types = " of these types" if types and status.failures else ""
        output.say(f"Job {status.job_id} has no failed request and no incomplete answer{of_types}.")
    if status.error is not None:
        output.say(job_texts.format_ending(status))
        output.hint_command("To resume it", _spell(ctx, f"resume {status.job_id}"))


def _hint_next(ctx: click.Context, status: JobStatus, counts: Sequence[FailureCount], types: tuple[str, ...]) -> None:
    """Say which commands list the requests, and run those again that failed."""
    chosen = "".join(f" --type {name}" for name in types)
    output.hint_command("To list each request", _spell(ctx, f"failures {status.job_id}{chosen} --list"))
    incomplete = [count.type for count in counts if count.incomplete is not None]
    if status.ended_at is not None and len(incomplete) < len(counts):
        chosen = "".join(f" --type {name}" for name in types if name not in (*incomplete, "incomplete"))
        output.hint_command("To run them again, as a new job", _spell(ctx, f"retry-failed {status.job_id}{chosen}"))


def _spell(ctx: click.Context, command: str) -> str:
    from claude_batch_tasks.cli import common

    return common.spell_command(ctx, command)
