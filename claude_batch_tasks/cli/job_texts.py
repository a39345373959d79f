"""The lines of text that show jobs to people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from itertools import chain, islice

import click

from claude_batch_tasks.cli.output import Line
from claude_batch_tasks.formatting import format_count, format_counts, format_unpriced
from claude_batch_tasks.jobs.estimating import Estimate
from claude_batch_tasks.jobs.job_status import BatchStatus, JobStatus
from claude_batch_tasks.records import HistoryEvent
from claude_batch_tasks.wire import answer_texts
from claude_batch_tasks.wire.result_rows import OUTCOMES

#: The least width of a terminal in which a table has whole job ids.
_WIDE = 120

#: The most characters of a note that stand in the row of a narrow table.
_NOTE = 23

#: Where the second line of a field of `status` begins.
_INDENT = 11

_COLOURS = {
    "staged": "blue",
    "queued": "blue",
    "running": "cyan",
    "saving results": "cyan",
    "delivering": "cyan",
    "canceling": "yellow",
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


#: What people are shown of a batch's state, where it is another word.
_BATCH_STATES = {"staged": "queued", "in_progress": "running", "unsent": "not sent"}


def format_jobs(found: Iterable[JobStatus], width: int | None) -> Iterator[Line]:
    """Yield a table with a line for each job as it comes.

    Args:
        width: of the terminal; None: it goes elsewhere, and nothing is shortened.
    """
    narrow = width is not None and width < _WIDE
    ids = 8 if narrow else 36
    jobs = iter(found)
    first = list(islice(jobs, 1))  # if the store does not answer, nothing is shown
    yield Line(click.style(f"{'JOB':{ids}}  {'STATE':14} REQUESTS FAILED      COST  AGE  NOTE", bold=True), cut=True)
    for job in chain(first, jobs):
        row = (
            f"{job.job_id[:ids]:{ids}}  {_color_word(_format_phase(job), 14)} {job.requests:>8,} "
            f"{job.done - job.succeeded:>6,} {_format_cost(job):>9} {format_age(job.submitted_at):>4}  "
        )
        notes = [note for note in (job.label, _format_problem(job)) if note]
        if not narrow:
            notes, below = [": ".join(notes)], []
        else:  # what does not fit beside the job's figures has a line of its own
            beside = 1 if notes and len(notes[0]) <= _NOTE else 0
            notes, below = notes[:beside], notes[beside:]
        yield Line(f"{row}{''.join(notes)}".rstrip(), cut=True)
        for note in below:
            yield Line(f"{'':{ids}}  {note}", indent=ids + 2)


def _format_phase(job: JobStatus) -> str:
    """Return the phase of a job, with how far it is if it runs; ``~``: by the time that similar batches took."""
    if job.phase != "running" or job.progress is None or not job.progress.fraction:
        return job.phase
    return f"running {'' if job.progress.measured else '~'}{job.progress.fraction:.0%}"


def _format_problem(job: JobStatus) -> str:
    """Return what is wrong with a job, or which of its requests failed; empty if there is nothing to say."""
    if job.error:
        return click.style(_join_lines(_shorten_error(job)), fg="red")
    if job.waiting_for_worker:
        return click.style("no worker", fg="yellow")
    problems = [f"{count.type} {count.count:,}" for count in job.failures if count.incomplete is None]
    if incomplete := answer_texts.count_incomplete(job.incomplete):
        problems.append(click.style(f"incomplete {incomplete:,}", fg="yellow"))
    if job.delivery_failures:
        problems.append(click.style(f"on_result failed {job.delivery_failures:,}", fg="red"))
    return ", ".join(problems)


def _shorten_error(job: JobStatus) -> str:
    """Return why a job failed, without what is stored of it and what to do, which ``status`` shows."""
    return _without_id(job).partition(". ")[0]


def _without_id(job: JobStatus) -> str:
    """Return the error of a job without its id and the word "failed", which stand beside it."""
    before, found, reason = (job.error or "").partition(" failed: ")
    if not found or not before.startswith(f"job {job.job_id}"):
        return job.error or ""
    where = before.removeprefix(f"job {job.job_id}").removeprefix(", ")
    return f"{where}: {reason}" if where else reason


def _join_lines(text: str) -> str:
    return " ".join(text.split())


def format_status(job: JobStatus, history: Iterable[HistoryEvent], waits: str | None = None) -> Iterator[Line]:
    """Yield lines with all that is known about a job.

    Args:
        waits: that it waits for a worker, if so.
    """
    yield _field("Job", job.job_id)
    if job.label:
        yield _field("Label", job.label)
    if job.metadata:
        yield _field("Metadata", ", ".join(f"{key}={value}" for key, value in job.metadata.items()))
    if job.parent:
        yield _field("Retry of", job.parent)
    for job_id in job.retries:
        yield _field("Retried as", job_id)
    yield from _format_state(job, waits)
    yield from _format_outcomes(job)
    yield from _format_delivery(job)
    yield from _costs_and_times(job)
    yield Line("")
    head = f"BATCH {'ID':32} {'STATE':11} REQUESTS POLLS 404s NEXT POLL"
    yield Line(click.style(head, bold=True), cut=True)
    for batch in job.batches:
        yield from _format_batch(batch)
    yield Line("")
    yield Line(click.style("TIMELINE", bold=True))
    for each in history:
        yield format_event(each)


def _field(name: str, text: str) -> Line:
    return Line(f"{click.style(name, bold=True)}{' ' * (_INDENT - len(name))}{text}", indent=_INDENT)


def _format_state(job: JobStatus, waits: str | None) -> Iterator[Line]:
    progress = job.progress.text if job.progress is not None else ""
    about = _without_id(job) or progress or answer_texts.format_incomplete(job.incomplete)
    yield _field("State", f"{_color_word(job.phase)}{f': {about}' if about else ''}")
    if waits:
        yield _field("Waits", click.style(waits, fg="yellow"))
    if job.limited:
        yield _field("Limited", job.limited)
    if job.stopped:
        yield _field("Stopped", job.stopped)
    if job.not_sent:
        yield _field("Not sent", click.style(job.not_sent, fg="red"))


def _format_outcomes(job: JobStatus) -> Iterator[Line]:
    yield _field("Requests", f"{job.requests:,}: {format_progress(job)}")
    if job.resubmitted or job.fallback:
        again = {"from a smaller batch": job.resubmitted, "through the Messages API": job.fallback}
        yield _field("", f"of these {format_counts(again)}")
    if job.fallback_skipped:
        yield _field(
            "", f"{job.fallback_skipped:,} more were not sent again: the limit on cost or requests was reached"
        )
    if failed := [f"{count.count:,} {count.type}" for count in job.failures if count.incomplete is None]:
        yield _field("Failures", ", ".join(failed))
    if job.incomplete:
        yield _field("Incomplete", answer_texts.format_reasons(job.incomplete))
    if job.repairs:
        yield _field("Repairs", answer_texts.format_reasons(job.repairs))


def _format_delivery(job: JobStatus) -> Iterator[Line]:
    """Yield how many answers `on_result` got, if the job has one."""
    if job.announced:
        counts = {"failed": job.delivery_failures, "not confirmed": job.unconfirmed}
        others = f"; {format_counts(counts)}" if any(counts.values()) else ""
        yield _field("Delivered", f"{job.delivered:,} of {job.announced:,} requests, to on_result{others}")
    if job.on_result_error:
        yield _field("on_result", click.style(job.on_result_error, fg="red"))


def _costs_and_times(job: JobStatus) -> Iterator[Line]:
    models = ", ".join(f"{model} {_format_dollars(cost)}" for model, cost in job.cost_by_model.items())
    yield _field("Cost", f"{_format_dollars(job.cost)}{f' ({models})' if models else ''}")
    if job.cost_unknown:
        yield _field("", f"and {format_unpriced(job.cost_unknown)}")
    yield _field("Submitted", _format_moment(job.submitted_at))
    for name, moment in (("Started", job.started_at), ("Ended", job.ended_at)):
        if moment is not None:
            yield _field(name, _format_moment(moment))


def _format_batch(batch: BatchStatus) -> Iterator[Line]:
    state = _color_word(_BATCH_STATES.get(batch.state, batch.state), 11)
    row = (
        f"{batch.number:>5} {batch.batch_id or '-':32} {state} {batch.requests:>8,} {batch.polls:>5} "
        f"{batch.polls_404:>4} {_format_next(batch.next_poll_at)}"
    )
    yield Line(row.rstrip(), cut=True)
    if batch.error:
        yield Line(f"      {click.style(batch.error, fg='red')}", indent=6)


def format_event(event: HistoryEvent) -> Line:
    """Return a line of the timeline."""
    batch = "" if event.batch is None else f"batch {event.batch}: "
    text = click.style(event.text, fg=_COLOURS.get(event.event))
    return Line(f"{click.style(_format_moment(event.at), dim=True)}  {batch}{text}", indent=21)


def format_size(job: JobStatus) -> str:
    """Return how large a job is."""
    return f"{format_count(job.requests, 'request')} in {format_count(len(job.batches), 'batch')}"


def format_progress(job: JobStatus) -> str:
    """Return how far a job is: ``800 succeeded, 12 errored, 188 processing; 404s: 3; next poll in 40 s``."""
    counts = {name: getattr(job, name) for name in (*OUTCOMES, "processing")}
    if not job.requests:
        parts = ["not known before the first poll"]
    else:
        parts = [format_counts(counts) if any(counts.values()) else "no outcomes"]
    if job.not_found:
        parts.append(f"404s: {job.not_found:,}")
    if job.ended_at is None and job.next_poll_at is not None:
        parts.append(f"next poll {_format_next(job.next_poll_at)}")
    return "; ".join(parts)


def format_bar(job: JobStatus) -> str:
    """Return how far a job is, for the line with the bar: ``running: 40 % of the requests; next poll in 40 s``."""
    # The number of an adopted job's requests is not known before its batch was seen.
    size = format_count(job.requests, "request") if job.requests else ""
    about = job.progress.text if job.progress is not None else size
    text = f"{job.phase}: {about}" if about else job.phase
    if job.next_poll_at is not None:
        text += f"; next poll {_format_next(job.next_poll_at)}"
    return text


def format_ending(job: JobStatus) -> str:
    """Return how a job ended."""
    incomplete = answer_texts.format_incomplete(job.incomplete)
    about = _without_id(job) or "; ".join(filter(None, (incomplete, format_progress(job))))
    return f"Job {job.job_id} {_color_word(job.state)}: {about} ({_format_cost(job)})"


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


def format_most(found: Estimate) -> str:
    """Return what a job costs at most: ``at most $0.02 in a batch ($0.04 through the Messages API)``."""
    if found.cost is None or found.fallback_cost is None:
        return f"no limit is known ({found.reasons})" if found.unknown else "no limit is known"
    batch, messages = _format_dollars(found.cost), _format_dollars(found.fallback_cost)
    return f"at most about {batch} in a batch ({messages} through the Messages API)"


def _format_limit(cost: float | None) -> str:
    return "no limit is known" if cost is None else f"up to {_format_dollars(cost)}"


def _format_cost(job: JobStatus) -> str:
    return f"{_format_dollars(job.cost)}{'+' if job.cost_unknown and job.cost is not None else ''}"


def _color_word(word: str, width: int = 0) -> str:
    return click.style(f"{word:{width}}", fg=_COLOURS.get(word, _COLOURS.get(word.split()[0])))


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


def format_age(moment: datetime) -> str:
    """Return how long ago something was: ``40s``, ``5m``."""
    seconds = max(_seconds_since(moment), 0)
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"
