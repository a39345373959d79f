"""The commands ``claude-batch submit`` and ``estimate``, which read requests from a file or standard input."""

from __future__ import annotations

from typing import IO, Any

import click

from claude_batch_tasks.cli import claude_batch, output, parameters

_FILE = click.argument("file", type=click.File("rb"))


@claude_batch.command()
@_FILE
@click.option("--client", default="default", show_default=True, help="Alias of the account to send them from.")
@click.option("--queue", help="The Celery queue that the steps of the job go through.")
@parameters.label_option("A name for the job, by which it is found. It is not encrypted.")
@parameters.metadata_option("What else is to be known of the job; may be given several times. It is not encrypted.")
@parameters.settings_option
@click.option("--wait", is_flag=True, help="Stay until the job ends, and show how far it is.")
@parameters.json_option
@parameters.quiet_option
@click.pass_context
def submit(
    ctx: click.Context,
    file: IO[bytes],
    client: str,
    queue: str | None,
    label: str | None,
    metadata: dict[str, str],
    options: dict[str, str],
    wait: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Submit a job, and print its id.

    FILE (`-`: standard input) has one request a line: {"custom_id": "review 17", "params": {"model": ...,
    "max_tokens": ..., "messages": [...]}}. It may also be a JSON array of these or {"requests": [...]}, in UTF-8 or
    UTF-16, and packed with gzip, zstd, bzip2 or xz. With --json the status of the job is printed instead of its id.
    With -s go also the import paths of the type of the answers (output) and of your check of them (check).

    \b
    JOB=$(claude-batch submit requests.jsonl)
    claude-batch submit requests.jsonl.gz --wait -s max_wait=7200
    claude-batch submit requests.jsonl -s output=answers.Review -s reask=2
    """
    from claude_batch_tasks.cli import common, submitting

    app = common.sending_app(ctx)
    typed: dict[str, Any] = {name: options.pop(name) for name in ("output", "check") if name in options}
    checked = common.check_options(app, options)
    checked.update(typed, client=client, label=label, metadata=metadata or None)
    job = submitting.submit_file(ctx, app, file, checked, queue=queue, quiet=quiet)
    submitting.report_submitted(ctx, job, queue=queue, wait=wait, as_json=as_json, quiet=quiet)


@claude_batch.command()
@_FILE
@parameters.json_option
@click.pass_context
def estimate(ctx: click.Context, file: IO[bytes], as_json: bool) -> None:
    """Print what a job would cost.

    FILE is as for `submit`. Nothing is sent, and neither broker nor store is needed. What cannot be known is named.
    """
    from claude_batch_tasks.cli import common, job_texts, submitting
    from claude_batch_tasks.jobs.estimating import estimate as estimate_cost
    from claude_batch_tasks.settings import prices_of

    prices = prices_of(common.app_of(ctx))
    with submitting.open_requests(ctx, file, quiet=as_json) as requests:
        found = estimate_cost(requests, prices=prices)
    if as_json:
        output.print_json(found)
    else:
        output.show(job_texts.format_estimate(found))
