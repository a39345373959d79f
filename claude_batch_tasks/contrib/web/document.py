"""The HTML document around a view of the progress page. All of it is allowed by a strict content security policy."""

from __future__ import annotations

from claude_batch_tasks._version import __version__
from claude_batch_tasks.contrib.web.list_view import search_form
from claude_batch_tasks.contrib.web.markup import Markup, html_tag, join_content
from claude_batch_tasks.contrib.web.parts import page_address, page_link
from claude_batch_tasks.contrib.web.snapshots import Snapshot, View

#: What a browser may load and do for our pages.
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'self'; base-uri 'none'"
)

#: Seconds after which a browser without JavaScript loads a page again that may have changed.
_RELOAD = 10


def make_document(snapshot: Snapshot, view: View, heading: str) -> str:
    """Return the document of a view."""
    stream = page_address("stream", **_list_parameters(view)) if snapshot.live else None
    reload = html_tag("meta", http_equiv="refresh", content=str(_RELOAD)) if snapshot.live else None
    head = html_tag(
        "head",
        html_tag("meta", charset="utf-8"),
        html_tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        html_tag("meta", name="color-scheme", content="light dark"),
        html_tag("title", f"{snapshot.title} · {heading}"),
        html_tag("link", rel="stylesheet", href=f"progress.css?{__version__}"),
        html_tag("script", src=f"progress.js?{__version__}", defer=True),
        html_tag("noscript", reload) if reload else None,
    )
    trouble = html_tag("p", snapshot.trouble, id="trouble", role="status", hidden=snapshot.trouble is None)
    body = html_tag(
        "body",
        html_tag("nav", page_link(heading, "./"), class_="top"),
        html_tag(
            "main",
            search_form(view) if view.job_id is None else None,
            trouble,
            html_tag("div", snapshot.content, id="view", data_stream=stream, data_heading=heading),
        ),
    )
    return join_content(Markup("<!doctype html>"), html_tag("html", head, body, lang="en"))


def _list_parameters(view: View) -> dict[str, str | int | None]:
    """Return the query with which a view is asked for."""
    if view.job_id is not None:
        return {"id": view.job_id, "batches": view.batches, "history": view.history}
    return {"q": view.text, "phase": view.phase, "before": view.before}
