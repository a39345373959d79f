"""The page of one job on the progress page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from celery import Celery

from claude_batch_tasks.contrib.figures import format_dollars
from claude_batch_tasks.contrib.job_pages import is_live, name_incomplete
from claude_batch_tasks.contrib.web.markup import Content, Markup, html_tag, join_content
from claude_batch_tasks.contrib.web.parts import (
    Column,
    make_table,
    other_pages,
    page_link,
    phase_pill,
    progress_bar,
    show_moment,
)
from claude_batch_tasks.contrib.web.snapshots import Snapshot, View
from claude_batch_tasks.formatting import format_unpriced
from claude_batch_tasks.jobs.batch_job import BatchJob
from claude_batch_tasks.jobs.job_ids import find_job_id, short_id
from claude_batch_tasks.jobs.job_status import BatchStatus, JobStatus
from claude_batch_tasks.records import HistoryEvent
from claude_batch_tasks.wire import answer_texts

#: The rows of one page of batches, or of events.
ROWS = 25

_BATCHES = (
    Column("No.", "number"),
    Column("Anthropic's id", "id"),
    Column("State"),
    Column("Requests", "number"),
    Column("Polls", "number"),
    Column("404s", "number"),
    Column("Next poll", "when"),
)
_ERROR = Column("Error", "text bad")
_FAILURES = (Column("Type"), Column("Requests", "number"), Column("Example", "id"), Column("Message", "text"))
_EVENTS = (Column("When", "when"), Column("Event"), Column("Batch", "number"), Column("What happened", "text"))


class _Part(NamedTuple):
    """Some rows of many, and where they are."""

    rows: Sequence[Any]
    first: int
    pages: Markup | None


def job_snapshot(app: Celery, view: View, *, show_custom_ids: bool) -> Snapshot:
    """Return how a job stands."""
    job_id = find_job_id(view.job_id or "", app)
    job = BatchJob(job_id, app)
    status = job.status()
    content = join_content(
        _make_heading(status),
        html_tag("dl", _list_facts(status), class_="facts"),
        _failures_section(status, show_custom_ids),
        _batches_section(view, status.batches),
        _history_section(view, job.history()[::-1]),
    )
    label = status.label or short_id(job_id)
    share = f"{status.done:,} of {status.requests:,}, " if status.requests else ""
    return Snapshot(f"{label}: {share}{status.phase}", content, live=is_live(status))


def _make_heading(job: JobStatus) -> Markup:
    label = job.label
    return html_tag(
        "header",
        html_tag("h1", label or f"Job {short_id(job.job_id)}", " ", phase_pill(job)),
        html_tag("p", html_tag("code", job.job_id), class_="id"),
        html_tag("p", progress_bar(job, with_estimate=False), class_="progress"),
        html_tag("p", job.progress.text, class_="quiet") if job.progress is not None else None,
        html_tag("p", name_incomplete(job), class_="quiet") if job.incomplete else None,
    )


def _list_facts(job: JobStatus) -> Iterator[Markup]:
    for name, value in _find_facts(job):
        if value not in (None, ""):
            yield html_tag("div", html_tag("dt", name), html_tag("dd", value))


def _find_facts(job: JobStatus) -> Iterator[tuple[str, Content]]:
    yield "Error", html_tag("span", job.error, class_="bad") if job.error else None
    yield "Waits for a worker", job.waiting_for_worker
    yield "Stopped", f"Nothing more is sent: {job.stopped}" if job.stopped else None
    yield "Limit", job.limited
    yield "Not sent", job.not_sent
    yield "Outcomes", _describe_outcomes(job)
    yield "Sent again", _describe_attempts(job)
    yield "Repairs", answer_texts.format_repairs(job.repairs)
    yield "Delivered", _describe_delivery(job)
    yield "on_result", job.on_result_error
    yield "Cost", _describe_cost(job)
    yield "Polls", _describe_polls(job)
    yield "Submitted", show_moment(job.submitted_at)
    yield "Started", show_moment(job.started_at)
    yield "Ended", show_moment(job.ended_at)
    yield "Retries of", _link_jobs([job.parent])
    yield "Retried by", _link_jobs(job.retries)
    yield from job.metadata.items()


def _describe_outcomes(job: JobStatus) -> str:
    outcomes = ("succeeded", "errored", "expired", "canceled")
    counted = ((getattr(job, name), name) for name in outcomes)
    return ", ".join(f"{count:,} {name}" for count, name in counted if count) or "none yet"


def _describe_attempts(job: JobStatus) -> str:
    counted = (
        (job.resubmitted, "in a smaller batch"),
        (job.fallback, "through the Messages API"),
        (job.fallback_skipped, "not sent again"),
    )
    return ", ".join(f"{count:,} {what}" for count, what in counted if count)


def _describe_delivery(job: JobStatus) -> str | None:
    if not job.announced:
        return None
    counted = ((job.delivery_failures, "failed"), (job.unconfirmed, "not confirmed"))
    others = "".join(f", {count:,} {what}" for count, what in counted if count)
    return f"{job.delivered:,} of {job.announced:,}{others}"


def _describe_cost(job: JobStatus) -> str:
    by_model = ", ".join(f"{model}: {format_dollars(cost)}" for model, cost in job.cost_by_model.items())
    unknown = f", and {format_unpriced(job.cost_unknown)}" if job.cost_unknown else ""
    return f"{format_dollars(job.cost)}{f' ({by_model})' if by_model else ''}{unknown}"


def _describe_polls(job: JobStatus) -> Markup:
    missed = f", {job.polls_404:,} answered 404" if job.polls_404 else ""
    soon = [", the next at ", show_moment(job.next_poll_at)] if job.next_poll_at else None
    return join_content(f"{job.polls:,}{missed}", soon)


def _link_jobs(job_ids: Sequence[str | None]) -> Markup | None:
    links = [page_link(short_id(each), "job", id=each) for each in job_ids if each]
    return join_content(*([each, " "] for each in links)) if links else None


def _failures_section(job: JobStatus, show_custom_ids: bool) -> Markup | None:
    if not job.failures:
        return None
    rows = (
        (
            each.type,
            f"{each.count:,}",
            each.example if show_custom_ids or each.example is None else "hidden",
            each.message,
        )
        for each in job.failures
    )
    return _make_section("Failures, and incomplete answers", make_table(_FAILURES, rows), None)


def _batches_section(view: View, batches: Sequence[BatchStatus]) -> Markup:
    part = _choose_rows(batches, view.batches, "batches", view)
    with_error = any(batch.error for batch in part.rows)
    rows = [
        [
            f"{batch.number:,}",
            html_tag("code", batch.batch_id) if batch.batch_id else html_tag("span", "none yet", class_="quiet"),
            batch.state,
            f"{batch.requests:,}",
            f"{batch.polls:,}",
            f"{batch.polls_404:,}",
            show_moment(batch.next_poll_at),
            *([batch.error] if with_error else []),
        ]
        for batch in part.rows
    ]
    columns = [*_BATCHES, _ERROR] if with_error else _BATCHES
    return _make_section("Batches", make_table(columns, rows), part.pages)


def _history_section(view: View, events: Sequence[HistoryEvent]) -> Markup:
    part = _choose_rows(events, view.history, "history", view)
    rows = (
        (show_moment(each.at), each.event, "" if each.batch is None else f"{each.batch:,}", each.text)
        for each in part.rows
    )
    return _make_section("History, the latest first", make_table(_EVENTS, rows, "events"), part.pages)


def _make_section(title: str, table: Markup, pages: Markup | None) -> Markup:
    return html_tag("section", html_tag("h2", title), html_tag("div", table, class_="wide"), pages)


def _choose_rows(rows: Sequence[Any], page: int, name: str, view: View) -> _Part:
    """Return the rows of a page, and links to the pages beside it."""
    last = max(-(-len(rows) // ROWS), 1)
    page = min(max(page, 1), last)
    first = (page - 1) * ROWS + 1
    shown = rows[first - 1 : first - 1 + ROWS]

    def link_page(text: str, number: int) -> Markup:
        others = {"batches": view.batches, "history": view.history, name: number}
        return page_link(text, "job", id=view.job_id, **others)

    if last == 1:
        return _Part(shown, first, None)
    before = link_page("Previous", page - 1) if page > 1 else None
    after = link_page("Next", page + 1) if page < last else None
    where = html_tag("span", f"{first:,} to {first + len(shown) - 1:,} of {len(rows):,}")
    return _Part(shown, first, other_pages(before, where, after))
