"""The list of jobs on the progress page."""

from __future__ import annotations

from celery import Celery

from claude_batch_tasks.contrib.figures import format_dollars
from claude_batch_tasks.contrib.job_pages import (
    SEARCHED,
    is_live,
    name_failures,
    name_incomplete,
    parse_moment,
    read_job_page,
    short_reason,
)
from claude_batch_tasks.contrib.web.markup import Content, Markup, html_tag, join_content
from claude_batch_tasks.contrib.web.parts import (
    Column,
    make_table,
    other_pages,
    page_address,
    page_link,
    phase_pill,
    progress_bar,
    show_moment,
)
from claude_batch_tasks.contrib.web.snapshots import Snapshot, View
from claude_batch_tasks.jobs.job_ids import short_id
from claude_batch_tasks.jobs.job_status import JobStatus
from claude_batch_tasks.rules import PHASES

_COLUMNS = (
    Column("Job", "id"),
    Column("Phase"),
    Column("Progress", "progress"),
    Column("Not succeeded", "number"),
    Column("Cost", "number"),
    Column("Submitted", "when"),
)


def list_snapshot(app: Celery, view: View) -> Snapshot:
    """Return the jobs of a page of the list."""
    page = read_job_page(text=view.text, phase=view.phase, before=parse_moment(view.before), app=app)
    searched = view.text or view.phase
    if page.jobs:
        content = make_table(_COLUMNS, map(_make_row, page.jobs))
    else:
        content = html_tag("p", "No job matches." if searched else "There are no jobs yet.", class_="empty")
    if page.unfinished:
        note = f"This page ends here, because {SEARCHED:,} jobs were searched. Older ones may match too."
        content = join_content(content, html_tag("p", note, class_="quiet"))
    newest = page_link("Newest", "./", q=view.text, phase=view.phase) if view.before else None
    older = page_link("Older", "./", q=view.text, phase=view.phase, before=repr(page.older)) if page.older else None
    pages = other_pages(newest, older)
    # A new job comes to the first page at any time.
    live = not view.before or any(map(is_live, page.jobs))
    return Snapshot("Jobs", join_content(content, pages), live=live)


def search_form(view: View) -> Markup:
    """Return the form with which jobs are searched for."""
    phases = [html_tag("option", "any phase", value="")]
    phases += [html_tag("option", phase, value=phase, selected=phase == view.phase) for phase in PHASES]
    return html_tag(
        "form",
        html_tag(
            "input",
            type="search",
            name="q",
            value=view.text,
            placeholder="Job id or label",
            aria_label="Beginning of a job id, or a part of a label",
        ),
        html_tag("select", phases, name="phase", aria_label="Phase"),
        html_tag("button", "Search"),
        page_link("Clear", "./") if view.text or view.phase else None,
        action="./",
        method="get",
        role="search",
    )


def _make_row(job: JobStatus) -> tuple[Content, ...]:
    label = job.label
    named = html_tag("a", html_tag("code", short_id(job.job_id)), href=page_address("job", id=job.job_id))
    failed = job.errored + job.expired + job.canceled
    return (
        join_content(named, html_tag("span", label, class_="label") if label else None),
        join_content(phase_pill(job), _show_reason(job)),
        progress_bar(job),
        html_tag("span", f"{failed:,}", class_="bad" if failed else "quiet", title=name_failures(job) or None),
        format_dollars(job.cost) + ("+" if job.cost_unknown and job.cost is not None else ""),
        show_moment(job.submitted_at),
    )


def _show_reason(job: JobStatus) -> Markup | None:
    """Return why a job failed, that it waits for a worker, or that answers are not complete, as a short text."""
    text = "no worker" if job.waiting_for_worker else short_reason(job) or name_incomplete(job)
    if not text:
        return None
    short = text if len(text) <= 80 else f"{text[:79]}…"
    return html_tag("span", short, class_="reason", title=job.waiting_for_worker or job.error)
