"""The command ``claude-batch pools``, which lists what waits in pools of asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from claude_batch_tasks.cli import claude_batch, output, parameters
from claude_batch_tasks.cli.output import Line

if TYPE_CHECKING:
    from claude_batch_tasks.records import PoolSummary

_HEAD = f"{'QUEUE':16} {'POOL':20} {'OPEN':>5} {'CLOSED':>6} {'JOBS':>6} {'WAITING':>9} {'OLDEST':>6}  NEXT JOB"


@claude_batch.command()
@parameters.json_option
@click.pass_context
def pools(ctx: click.Context, as_json: bool) -> None:
    """List what waits in pools: asks that are not answered.

    A line for each queue and name of a pool: pools that are open, pools that are closed and no job yet, jobs of pools
    that run, asks that wait in all of these, the age of the oldest pool among them, and when the next pool becomes a
    job. With --json: an object for each line.
    """
    from claude_batch_tasks.cli import common
    from claude_batch_tasks.jobs.listing import list_pools

    app = common.app_of(ctx)
    found = list_pools(app=app)
    if as_json:
        for each in found:
            output.print_json(each)
        return
    output.show(_format_pools(found))
    for queue in sorted({each.queue for each in found if each.queue and not each.workers}):
        command = common.worker_command(ctx, app, queue)
        output.hint_command(f"No worker listens on queue {queue!r}, so these asks wait. To start one", command)


def _format_pools(found: Iterable[PoolSummary]) -> Iterator[Line]:
    from claude_batch_tasks.cli.job_texts import format_age

    yield Line(click.style(_HEAD, bold=True), cut=True)
    for each in found:
        age = "" if each.oldest_at is None else format_age(each.oldest_at)
        yield Line(
            f"{each.queue or '?':16} {each.pool:20} {each.open:>5,} {each.closed + each.parked:>6,} "
            f"{each.sealed:>6,} {each.waiting:>9,} {age:>6}  {_format_due(each.due_at)}".rstrip(),
            cut=True,
        )


def _format_due(due_at: datetime | None) -> str:
    """Return when the next pool becomes a job: ``in 42 s``; ``due for 95 s`` is a sign that nobody is there."""
    from claude_batch_tasks.formatting import format_span

    if due_at is None:
        return ""
    left = round((due_at - datetime.now(timezone.utc)).total_seconds())
    return f"in {format_span(left)}" if left > 0 else f"due for {format_span(-left)}"
