"""The parts that both views of the progress page have: a phase, a bar, a moment, a table, links to other pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import NamedTuple
from urllib.parse import urlencode

from claude_batch_tasks.contrib.job_pages import describe_progress, find_share, is_estimated
from claude_batch_tasks.contrib.web.markup import Content, Markup, html_tag, join_content
from claude_batch_tasks.jobs.job_status import JobStatus


class Column(NamedTuple):
    """A column of a table."""

    name: str
    class_: str | None = None


def page_link(content: Content, name: str, **query: str | int | None) -> Markup:
    """Return a link to a page of ours; it is relative, and so is right wherever the page is mounted."""
    return html_tag("a", content, href=page_address(name, **query))


def page_address(name: str, **query: str | int | None) -> str:
    """Return the address of a page of ours, without what of the query is empty."""
    given = {key: str(value).encode(errors="replace") for key, value in query.items() if value not in (None, "")}
    return f"{name}?{urlencode(given)}" if given else name


def phase_pill(job: JobStatus) -> Markup:
    """Return the phase of a job as a coloured word."""
    return html_tag("span", job.phase, class_=f"pill {_css_name(job.phase)}")


def progress_bar(job: JobStatus, *, with_estimate: bool = True) -> Markup:
    """Return how far a job is, as a bar and as text.

    Args:
        with_estimate: whether the text has an estimate in percent too.
    """
    if not job.requests:
        return html_tag("span", "not known yet", class_="quiet")
    bar = html_tag(
        "progress",
        max=1000,
        value=find_share(job),
        class_=f"{_css_name(job.phase)}{' estimated' if is_estimated(job) else ''}",
        aria_label="Progress",
    )
    text = describe_progress(job) if with_estimate else f"{job.done:,} of {job.requests:,}"
    title = job.progress.text if job.progress else None
    return join_content(bar, " ", html_tag("span", text, class_="count", title=title))


def show_moment(moment: datetime | None) -> Markup | None:
    """Return a moment in UTC; a script shows it in the viewer's own time."""
    if moment is None:
        return None
    moment = moment.astimezone(timezone.utc)
    return html_tag("time", moment.strftime("%Y-%m-%d %H:%M:%S UTC"), datetime=moment.isoformat(timespec="seconds"))


def make_table(columns: Sequence[Column], rows: Iterable[Sequence[Content]], class_: str | None = None) -> Markup:
    """Return a table, whose rows are cards on a narrow screen."""
    head = html_tag("tr", [html_tag("th", column.name, scope="col", class_=column.class_) for column in columns])
    body = [
        html_tag(
            "tr",
            [
                html_tag("td", cell, class_=column.class_, data_name=column.name)
                for column, cell in zip(columns, row, strict=True)
            ],
        )
        for row in rows
    ]
    return html_tag("table", html_tag("thead", head), html_tag("tbody", body), class_=class_)


def other_pages(*links: Content) -> Markup | None:
    """Return the links to other pages, if there are any."""
    there = [link for link in links if link]
    return html_tag("nav", there, aria_label="Pages", class_="pages") if there else None


def _css_name(phase: str) -> str:
    return phase.replace(" ", "-")
