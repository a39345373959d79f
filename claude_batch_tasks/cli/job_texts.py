"""The lines of text that show jobs to people; ``click.echo`` removes their colours if output is not a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from itertools import chain, islice

import click

from claude_batch_tasks.formatting import format_count, format_counts, format_unpriced
from claude_batch_tasks.jobs.estimating import Estimate
from claude_batch_tasks.jobs.job_status import BatchStatus, JobStatus
from claude_batch_tasks.records import HistoryEvent
from claude_batch_tasks.wire.result_rows import OUTCOMES

_COLOURS = {
    "staged": "blue",
    "running": "cyan",
    "completed": "green",
    "finished": "green",
    "canceled": "yellow",
    "not_found": "yellow",
    "retry": "yellow",
    "incomplete": "yellow",
    "failed": "red",
    "revoked": "red",
    "stopped": "red",
    "lost": "red",
    "not_sent": "red",
}


def format_jobs(found: Iterable[JobStatus]) -> Iterator[str]:
    """Yield a table, 80 characters wide, with a line for each job as it comes."""
    jobs = iter(found)
    first = list(islice(jobs, 1))  # if the store does not answer, nothing is shown
    yield click.style(f"{'JOB':36}  {'STATE':11} REQUESTS FAILED      COST  AGE", bold=True)
    for job in chain(first, jobs):
        state = f"running {job.done * 100 // job.requests}%" if job.state == "running" and job.done else job.state
        yield (
            f"{job.job_id:36}  {click.style(f'{state:11}', fg=_COLOURS[job.state])} {job.requests:>8,} "
            f"{job.done - job.succeeded:>6,} {_format_cost(job):>9}  {_format_age(job.submitted_at)}"
        )


def format_status(job: JobStatus, history: Iterable[HistoryEvent]) -> Iterator[str]:
    """Yield lines with all that is known about a job."""
    yield f"{click.style('Job', bold=True)}        {job.job_id}"
    yield from _format_state(job)
    yield from _costs_and_times(job)
    yield ""
    yield click.style(f"BATCH {'ID':33} {'STATE':11} REQUESTS POLLS 404s NEXT", bold=True)
    for batch in job.batches:
        yield from _format_batch(batch)
    yield ""
    yield click.style("TIMELINE", bold=True)
    for each in history:
        yield format_event(each)


def _format_state(job: JobStatus) -> Iterator[str]:
    yield f"State      {_color_word(job.state)}{f': {job.error}' if job.error else ''}"
    yield f"Requests   {job.requests:,}: {format_progress(job)}"
    if job.resubmitted or job.fallback:
        again = {"from a smaller batch": job.resubmitted, "through the Messages API": job.fallback}
        yield f"           of these {format_counts(again)}"
    if job.fallback_skipped:
        yield f"           {job.fallback_skipped:,} more deserved another chance, for which the budget does not suffice"
    if job.stopped:
        yield f"Stopped    {job.stopped}"
    if job.not_sent:
        yield f"Not sent   {click.style(job.not_sent, fg='red')}"
    if job.on_result_error:
        yield f"on_result  {click.style(job.on_result_error, fg='red')}"


def _costs_and_times(job: JobStatus) -> Iterator[str]:
    models = ", ".join(f"{model} {_format_dollars(cost)}" for model, cost in job.cost_by_model.items())
    yield f"Cost       {_format_dollars(job.cost)}{f' ({models})' if models else ''}"
    if job.cost_unknown:
        yield f"           and {format_unpriced(job.cost_unknown)}"
    yield f"Submitted  {_format_moment(job.submitted_at)}"
    for name, moment in (("Started", job.started_at), ("Ended", job.ended_at)):
        if moment is not None:
            yield f"{name:9}  {_format_moment(moment)}"


def _format_batch(batch: BatchStatus) -> Iterator[str]:
    yield (
        f"{batch.number:>5} {batch.batch_id or '-':33} {_color_word(batch.state, 11)} {batch.requests:>8,} "
        f"{batch.polls:>5} {batch.polls_404:>4} {_format_next(batch.next_poll_at)}"
    ).rstrip()
    if batch.error:
        yield f"      {click.style(batch.error, fg='red')}"


def format_event(event: HistoryEvent) -> str:
    """Return a line of the timeline."""
    batch = "" if event.batch is None else f"batch {event.batch}: "
    text = click.style(event.text, fg=_COLOURS.get(event.event))
    return f"{click.style(_format_moment(event.at), dim=True)}  {batch}{text}"


def format_size(job: JobStatus) -> str:
    """Return how large a job is."""
    return f"{format_count(job.requests, 'request')} in {format_count(len(job.batches), 'batch')}"


def format_progress(job: JobStatus) -> str:
    """Return how far a job is: ``800 succeeded, 12 errored, 188 processing; 404s: 3; next poll in 40 s``."""
    counts = {name: getattr(job, name) for name in (*OUTCOMES, "processing")}
    parts = [format_counts(counts) if job.requests else "not known before the first poll"]
    if job.polls_404:
        parts.append(f"404s: {job.polls_404:,}")
    if job.ended_at is None and job.next_poll_at is not None:
        parts.append(f"next poll {_format_next(job.next_poll_at)}")
    return "; ".join(parts)


def format_ending(job: JobStatus) -> str:
    """Return how a job ended."""
    return f"Job {job.job_id} {_color_word(job.state)}: {job.error or format_progress(job)} ({_format_cost(job)})"


def format_estimate(found: Estimate) -> Iterator[str]:
    """Yield lines with what a job would cost."""
    yield f"Requests            {found.requests:,}"
    yield f"Input tokens        about {found.input_tokens:,}"
    yield f"Output tokens       at most {found.max_output_tokens:,}"
    if not found.unknown:
        yield f"Cost                about {_format_dollars(found.cost)}, with the longest answers"
        for model, cost in found.by_model.items() if len(found.by_model) > 1 else ():
            yield f"  {model:16}  about {_format_dollars(cost)}"
        yield f"By the Messages API about {_format_dollars(found.fallback_cost)}"
        return
    yield f"Cost                at least {_format_dollars(found.at_least)}; {_format_limit(found.cost)}"
    for model, cost in found.by_model.items() if len(found.by_model) > 1 else ():
        yield f"  {model:16}  {_format_limit(cost)}"
    yield f"By the Messages API {_format_limit(found.fallback_cost)}"
    yield f"Not known           {found.reasons}"


def _format_limit(cost: float | None) -> str:
    return "no limit is known" if cost is None else f"up to {_format_dollars(cost)}"


def _format_cost(job: JobStatus) -> str:
    return f"{_format_dollars(job.cost)}{'+' if job.cost_unknown and job.cost is not None else ''}"


def _color_word(word: str, width: int = 0) -> str:
    return click.style(f"{word:{width}}", fg=_COLOURS.get(word))


def _format_dollars(cost: float | None) -> str:
    if cost is None:
        return "unknown"
    return f"${cost:,.2f}" if cost >= 1 or not cost else f"${cost:.4f}"


def _format_moment(moment: datetime) -> str:
    """Format a point in time in the time zone of this machine."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def _seconds_since(moment: datetime) -> float:
    return (datetime.now(timezone.utc) - moment).total_seconds()


def _format_next(moment: datetime | None) -> str:
    if moment is None:
        return ""
    seconds = -_seconds_since(moment)
    return f"in {seconds:.0f} s" if seconds > 0.5 else "now"


def _format_age(moment: datetime) -> str:
    seconds = max(_seconds_since(moment), 0)
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"
