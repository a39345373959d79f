"""The command ``claude-batch workers``, which lists the workers that run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from claude_batch_tasks.cli import claude_batch, output, parameters
from claude_batch_tasks.cli.output import Line

if TYPE_CHECKING:
    from claude_batch_tasks.records import WorkerPresence


@claude_batch.command()
@parameters.json_option
@click.pass_context
def workers(ctx: click.Context, as_json: bool) -> None:
    """List the workers that run.

    They report to the store; none of them is asked. Workers before 0.3 do not report. With --json: a line for each
    worker.
    """
    from claude_batch_tasks.cli import common
    from claude_batch_tasks.jobs.listing import list_workers

    app = common.app_of(ctx)
    found = list_workers(app)
    if as_json:
        for worker in found:
            output.print_json(worker)
        return
    output.show(_format_workers(found))
    if not found:
        output.hint_command("No worker has reported in the last minute. To start one", common.worker_command(ctx, app))


def _format_workers(found: Iterable[WorkerPresence]) -> Iterator[Line]:
    yield Line(click.style(f"{'WORKER':32} {'QUEUES':20} {'POOL':12} RELEASE", bold=True), cut=True)
    for worker in found:
        pool = f"{worker.pool or '?'} {worker.processes or '?'}"
        yield Line(f"{worker.hostname:32} {', '.join(worker.queues):20} {pool:12} {worker.version}", cut=True)
