"""``claude-batch submit`` and ``estimate``: requests from a file of JSON lines, or from standard input."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click
import msgspec
from celery.utils import uuid
from kombu.exceptions import OperationalError

from claude_batch_tasks import errors, line
from claude_batch_tasks.cli import claude_batch, common, exits, shown
from claude_batch_tasks.cli.watching import follow
from claude_batch_tasks.estimating import estimate as estimated
from claude_batch_tasks.job import BatchJob

#: Bytes of a line; a batch holds fewer.
_LONGEST = 256_000_000

#: Lines after which a terminal is told how many there were.
_TELL = 20_000

_FILE = click.argument("file", type=click.File("rb"))


@claude_batch.command()
@_FILE
@click.option("--client", default="default", show_default=True, help="Alias of the account to send them from.")
@click.option("--queue", help="The Celery queue the job's steps are to go through.")
@common.settings_option
@click.option("--wait", is_flag=True, help="Stay until the job ends, and show how far it is.")
@common.json_option
@common.quiet_option
@click.pass_context
def submit(
    ctx: click.Context,
    file: IO[bytes],
    client: str,
    queue: str | None,
    options: dict[str, str],
    wait: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Submit a job, and print its id.

    FILE (`-`: standard input) has one request a line: {"custom_id": "review 17", "params": {"model": ...,
    "max_tokens": ..., "messages": [...]}}.

    \b
    JOB=$(claude-batch submit requests.jsonl)
    zcat requests.jsonl.gz | claude-batch submit - --wait -s max_wait=7200
    """
    app = common.sending_app(ctx)
    told = {**common.checked(app, options), "client": client}
    job = BatchJob(uuid(), app)
    try:
        with _requests(file, quiet) as requests:
            task = app.tasks[f"{line.NAME}run_batch"]
            task.apply_async((requests,), told, task_id=job.id, **line.routed(queue))
    except OperationalError as exc:
        raise _unsent(f"the broker or the result back end did not answer: {exits.sentence(exc)}") from None
    except RuntimeError as exc:  # so newer Celery says it
        if "result store" not in str(exc):
            raise
        raise _unsent("the result back end did not answer.") from None
    except KeyboardInterrupt:
        _take_back(ctx, job)
        raise click.exceptions.Exit(exits.INTERRUPTED) from None
    if not as_json:
        click.echo(job.id)
    to_follow = f"To follow the job: {common.again(ctx, f'watch {job.id}')}"
    try:
        if wait:
            follow(ctx, job, as_json=as_json, quiet=quiet, queue=queue)
            return
        status = job.status()
    except errors.StoreUnavailable as exc:
        # Not with the code that says that trying again is safe.
        raise exits.Failure(f"job {job.id} is submitted, but now {exits.sentence(exc)} {to_follow}") from None
    if as_json:
        common.print_json(status)
    if not quiet:
        common.say(f"Submitted: {shown.size(status)}. {to_follow}")


def _unsent(why: str) -> exits.Failure:
    text = f"{why} Nothing was sent, and nothing is kept; submit again when it does."
    return exits.Failure(text, exits.UNREACHABLE)


def _take_back(ctx: click.Context, job: BatchJob) -> None:
    """Forget a job whose submission was interrupted, unless a worker has it already."""
    try:
        job.delete()
    except errors.JobNotFound:
        pass
    except errors.JobRunning:
        common.say(f"\nInterrupted, but job {job.id} has begun and goes on; to follow it:")
        common.say(f"  {common.again(ctx, f'watch {job.id}')}")
        return
    except errors.StoreUnavailable:
        common.say(f"\nInterrupted. The store does not answer, so job {job.id} may have been sent; to find out:")
        common.say(f"  {common.again(ctx, f'status {job.id}')}")
        return
    common.say("\nInterrupted: nothing was sent, and nothing is kept.")


@claude_batch.command()
@_FILE
@common.json_option
@click.pass_context
def estimate(ctx: click.Context, file: IO[bytes], as_json: bool) -> None:
    """Say what a job would cost, and what of that is not known.

    FILE is as for `submit`. Nothing is sent, and neither broker nor store is needed.
    """
    prices = common.app_of(ctx).conf.get("claude_batch_prices") or {}
    with _requests(file, quiet=as_json) as requests:
        found = estimated(requests, prices=prices)
    if as_json:
        common.print_json(found)
        return
    for text in shown.estimate(found):
        click.echo(text)


@contextmanager
def _requests(file: IO[bytes], quiet: bool) -> Iterator[_Lines]:
    """The requests in a file; what is wrong with them is told by their lines."""
    lines = _Lines(file, tell=not quiet and sys.stderr.isatty())
    try:
        yield lines
    except errors.InvalidRequests as exc:
        raise exits.Failure(lines.described(exc), exits.USAGE) from None


class _Lines:
    """The requests, one at a time; afterwards known by line."""

    def __init__(self, file: IO[bytes], *, tell: bool) -> None:
        self._file = file
        name = getattr(file, "name", "<stdin>")
        self._name = "standard input" if name == "<stdin>" else str(name)
        self._tell = tell
        #: How many requests came before each blank line.
        self._blank: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        number = 0
        for number, text in enumerate(iter(lambda: self._file.readline(_LONGEST + 1), b""), 1):
            if self._tell and number % _TELL == 0:
                click.echo(f"\r{number:,} lines read", err=True, nl=False)
            if text.isspace():
                self._blank.append(number - 1 - len(self._blank))
                continue
            yield self._decoded(number, text)
        if self._tell and number >= _TELL:
            click.echo(f"\r{number:,} lines read", err=True)

    def _decoded(self, number: int, text: bytes) -> Any:
        if len(text) > _LONGEST:
            raise self._wrong(number, f"is longer than a whole batch may be ({_LONGEST:,} bytes)")
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            array = number == 1 and text.lstrip().startswith(b"[")
            hint = f". To submit an array: jq -c '.[]' {self._name} | claude-batch submit -" if array else ""
            raise self._wrong(number, f"is not JSON: {exc}", hint) from None

    def _wrong(self, number: int, text: str, hint: str = "") -> exits.Failure:
        return exits.Failure(f"{self._name}: line {number} {text}; nothing was stored or sent{hint}", exits.USAGE)

    def described(self, exc: errors.InvalidRequests) -> str:
        """What is wrong with the requests, by line."""
        if not exc.problems:
            return str(exc)
        found = []
        for index, custom_id, field, text in exc.problems:
            if index is None:
                found.append(f"  {text}")
                continue
            number = index + 1 + bisect_right(self._blank, index)
            known = f", custom_id {custom_id!r}" if custom_id is not None else ""
            found.append(f"  line {number}{known}, field {field}: {text}")
        if exc.more:
            found.append(f"  and {exc.more:,} more")
        problems = len(exc.problems) + exc.more
        count = f"{problems:,} problem{'s' if problems != 1 else ''}"
        return "\n".join([f"{count} in {self._name}; nothing was stored or sent:", *found])
