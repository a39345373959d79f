"""The command ``claude-batch copy-store``, which moves all jobs from one store to another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import click

from claude_batch_tasks.cli import claude_batch, exits, output, parameters
from claude_batch_tasks.cli.output import Line

if TYPE_CHECKING:
    from claude_batch_tasks.store import Store
    from claude_batch_tasks.store.transfer.copying import CopyReport


#: Jobs that are named at most.
_NAMED = 10

#: What people call one and several of a kind of part.
_KINDS = {
    "Job": ("job", "jobs"),
    "Pool": ("pool", "pools"),
    "Batch": ("batch", "batches"),
    "RequestChunk": ("chunk of requests", "chunks of requests"),
    "RowChunk": ("chunk of results", "chunks of results"),
    "Outcome": ("outcome", "outcomes"),
}


@claude_batch.command("copy-store")
@click.argument("from_url", metavar="FROM")
@click.argument("to_url", metavar="TO", required=False)
@click.option("--from-prefix", help="The prefix of the store FROM; default: claude_batch_store_prefix.")
@click.option("--to-prefix", help="The prefix of the store TO; default: claude_batch_store_prefix.")
@click.option("--dry-run", is_flag=True, help="Read everything, and say what would be copied; nothing is changed.")
@click.option(
    "--only-ended",
    is_flag=True,
    help="Copy jobs that have ended, while workers still run on FROM. The rest is copied without this option, later.",
)
@click.option("--keep", is_flag=True, help="Leave FROM as it is, as for a backup. Never run workers on both.")
@click.option(
    "--use-again",
    is_flag=True,
    help="Only let FROM be used again, which was closed by a copy. Never run workers on both.",
)
@parameters.yes_option
@parameters.json_option
@click.pass_context
def copy_store(
    ctx: click.Context,
    from_url: str,
    to_url: str | None,
    from_prefix: str | None,
    to_prefix: str | None,
    dry_run: bool,
    only_ended: bool,
    keep: bool,
    use_again: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Move all jobs to another store, while nothing runs.

    FROM and TO are addresses as in claude_batch_store_url. Stop all workers and callers before. What is copied is read
    back and compared. Then no worker starts on FROM any more. A copy that was interrupted is begun again with the same
    command: it continues where it ended.
    """
    from claude_batch_tasks.store.transfer import copying

    source = _open(ctx, "FROM", from_url, from_prefix)
    if use_again:
        _use_again(source, yes, as_json)
        return
    if to_url is None:
        raise click.UsageError("TO is missing: the address of the store that the jobs are copied into")
    target = _open(ctx, "TO", to_url, to_prefix)
    _check_tables(target)
    try:
        with output.counter("jobs and pools") as show:
            copy = copying.Copy(source, target, keep=keep, only_ended=only_ended, show=show)
            copy.check()
            report = copy.preview() if dry_run else copy.run()
    except copying.CopyRefused as exc:
        raise exits.Failure(str(exc)) from None
    if as_json:
        output.print_json(
            {"from": source.transfer.address, "to": target.transfer.address, "dry_run": dry_run, **_plain(report)}
        )
        return
    output.show(_format_report(report, dry_run=dry_run))
    if not dry_run:
        names = source.transfer.address, target.transfer.address
        output.show(_format_next(*names, only_ended=only_ended, keep=keep))


def _open(ctx: click.Context, name: str, url: str, prefix: str | None) -> Store:
    """Return a store; without a prefix, with the one that the app's settings would give it."""
    import dataclasses

    from claude_batch_tasks import errors
    from claude_batch_tasks.cli import common
    from claude_batch_tasks.settings import Settings, store_urls
    from claude_batch_tasks.store import open_store_at

    app = common.app_of(ctx)
    settings = Settings.of(app)
    try:
        if prefix is None:
            usual = store_urls.default_prefix(app, settings.store_url or "")
            own = settings.store_prefix != usual
            prefix = settings.store_prefix if own else store_urls.default_prefix(app, url)
        named = dataclasses.replace(settings, store_url=url, store_prefix=prefix)
        # Not with its objects: they stay where they are.
        return open_store_at(named.store_url or "", named.encryption_key or (), named.store_prefix or "")
    except errors.InvalidSettings as exc:
        raise click.UsageError(f"{name}: {exc}") from None


def _check_tables(target: Store) -> None:
    """Say how the tables of the new store are made, if they are not there."""
    from claude_batch_tasks import errors

    try:
        target.transfer.open()
    except errors.StoreNotMigrated:
        raise exits.Failure(
            f"the tables of the store at {target.transfer.address} are not there, or are those of an earlier release: "
            "nothing was changed. `claude-batch migrate` makes them, with the address TO in CLAUDE_BATCH_STORE_URL "
            "(with Django: `manage.py migrate`, with that store in the settings). Then run the command again"
        ) from None


def _use_again(source: Store, yes: bool, as_json: bool) -> None:
    from claude_batch_tasks.store.transfer.copying import release_store

    source.transfer.open()
    mark = source.transfer.read_mark()
    if mark is not None:
        what = "were moved to" if mark.state == "moved" else "are being copied from"
        output.confirm(
            f"The jobs of the store at {source.transfer.address} {what} {mark.other}. If workers run on both, requests "
            "are paid twice. Let this store be used again?",
            yes,
        )
    release_store(source)
    if as_json:
        output.print_json({"store": source.transfer.address, "was_closed": mark is not None})
    else:
        text = "can be used again" if mark is not None else "was not closed"
        output.say(f"The store at {source.transfer.address} {text}.")


def _plain(report: CopyReport) -> dict[str, object]:
    import msgspec

    found: dict[str, object] = msgspec.to_builtins(report)
    return found


def _format_report(report: CopyReport, *, dry_run: bool) -> Iterator[str | Line]:
    """Yield what was copied and what was not; of a dry run, what would be."""
    from claude_batch_tasks.formatting import format_duration
    from claude_batch_tasks.store.transfer.copying import NOT_COPIED

    known = [(report.parts.get(kind, 0), names) for kind, names in _KINDS.items()]
    counts = ", ".join(f"{count:,} {names[count != 1]}" for count, names in known if count) or "no job"
    if dry_run:
        yield f"Would copy {counts}: {report.bytes / 1e6:,.1f} MB."
    else:
        yield f"Copied {counts}: {report.bytes / 1e6:,.1f} MB."
        yield f"All of it was read back and compared, in {format_duration(report.seconds)}."
    yield from _format_others(report)
    yield "Not copied:"
    yield from (Line(f"  {what}: {why}", 4) for what, why in NOT_COPIED.items())
    if report.incomplete:
        yield f"{len(report.incomplete):,} jobs were copied without what the store had lost before:"
        yield from (Line(f"  {job_id}: {lost}", 4) for job_id, lost in islice(report.incomplete.items(), _NAMED))
    if report.clocks_differ:
        yield (
            f"The clock of the new store differs by {report.clocks_differ:+,.0f} s. Set both by NTP: what "
            "is due, is due that much earlier or later."
        )


def _format_others(report: CopyReport) -> Iterator[str]:
    """Yield what became of jobs that were not simply copied."""
    for count, text in (
        (report.unchanged, "there from an earlier copy, and the same"),
        (report.changed, "there from an earlier copy, and replaced"),
        (report.removed, "removed from an earlier move: the old store has them no more"),
        (report.skipped, "not copied, since they have not ended"),
        (report.gone, "not copied, since they have expired meanwhile"),
    ):
        if count:
            yield f"{count:,} {text}."


def _format_next(source: str, target: str, *, only_ended: bool, keep: bool) -> Iterator[str | Line]:
    """Yield what to do next."""
    if only_ended:
        yield Line(
            "Next: stop all workers and callers, and run the command without --only-ended. Until then nothing can use "
            f"{target}."
        )
        return
    yield "Next:"
    yield Line(f"  1. Set claude_batch_store_url of all workers and callers to {target}. The broker stays as it is.", 5)
    yield Line("  2. Start the workers. Running jobs continue where they were.", 5)
    if keep:
        yield Line(f"  3. Never run workers on {source} as well: what both send is paid twice.", 5)
    else:
        yield Line(
            f"  3. {source} is closed: no worker starts on it. Delete its keys or tables when you need it no more, but "
            "not its broker's. To go back before workers have run on the new store: `copy-store --use-again`.",
            5,
        )
