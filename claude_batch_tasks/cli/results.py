"""The command ``claude-batch results``, which exports a job's outcomes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import click

from claude_batch_tasks.cli import claude_batch, common, exits
from claude_batch_tasks.results.export import FORMATS
from claude_batch_tasks.results.reader import Order, Type
from claude_batch_tasks.wire.result_rows import OUTCOMES


@claude_batch.command()
@common.job_argument
@click.option(
    "-o",
    "--output",
    default="-",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Where they go; the file appears when it is complete. Default: standard output.",
)
@click.option("--type", "only", type=click.Choice(OUTCOMES), help="Only those.")
@click.option("--format", "format_", type=click.Choice(list(FORMATS)), default="jsonl", show_default=True)
@click.option(
    "--order",
    type=click.Choice(["stored", "request"]),
    default="stored",
    show_default=True,
    help="As they came from Anthropic, or as the requests were handed over.",
)
@common.quiet_option
@click.pass_context
def results(
    ctx: click.Context, job_id: str, output: str, only: Type | None, format_: str, order: Order, quiet: bool
) -> None:
    """Write a job's results.

    One a line: {"custom_id": ..., "source": ..., "result": ...}. While the job runs: those of the batches that are
    finished.

    \b
    claude-batch results $JOB | jq -r .result.message.content[0].text
    claude-batch results $JOB --format parquet -o results.parquet
    """
    job = common.job_of(ctx, job_id)
    out = _standard_output(format_) if output == "-" else None
    with _failures_explained(output):
        written = job.export(out or output, format_, type=only, order=order)
        if out is not None:
            out.flush()
    if quiet:
        return
    if output != "-":
        common.say(f"{written:,} results written to {output}")
    status = job.status()
    if status.done < status.requests or status.ended_at is None:
        common.say(f"Job {job_id} is {status.state}: {status.done:,} of {status.requests:,} requests have a result.")


def _standard_output(format_: str) -> IO[bytes]:
    if sys.stdout is None:
        raise click.UsageError("there is no standard output; give -o FILE")
    if format_ == "parquet" and sys.stdout.buffer.isatty():
        raise click.UsageError("a Parquet file is nothing to read here; give -o FILE")
    return sys.stdout.buffer


@contextmanager
def _failures_explained(output: str) -> Iterator[None]:
    """Turn errors of the export into a message and an exit code."""
    try:
        yield
    except ImportError as exc:  # of pyarrow
        raise exits.Failure(str(exc)) from None
    except BrokenPipeError:
        raise
    except OSError as exc:
        if output == "-":
            exits.give_up_output()
        where = "standard output" if output == "-" else output
        raise exits.Failure(
            f"cannot write to {where}: {exc.strerror or exc}. The results are still in the store; try again"
        ) from None
