"""A view of the progress page as it is in the store, also where the job or the store is not there."""

from __future__ import annotations

from celery import Celery

from claude_batch_tasks.contrib.web.job_view import job_snapshot
from claude_batch_tasks.contrib.web.list_view import list_snapshot
from claude_batch_tasks.contrib.web.markup import Markup, html_tag, join_content
from claude_batch_tasks.contrib.web.parts import page_link
from claude_batch_tasks.contrib.web.snapshots import Snapshot, View
from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.errors import AmbiguousJobId, BatchTasksError, JobNotFound, StoreUnavailable
from claude_batch_tasks.logs import get_logger

log = get_logger(__name__)

_AWAY = "The store of the jobs does not answer. This page tries again by itself."
_WRONG = "The jobs cannot be read. The log of the web server says why. This page tries again by itself."


def read_snapshot(app: Celery | None, view: View, *, show_custom_ids: bool) -> Snapshot:
    """Return a view from the store."""
    try:
        app = app or configured_app()
        if view.job_id is None:
            return list_snapshot(app, view)
        return job_snapshot(app, view, show_custom_ids=show_custom_ids)
    except AmbiguousJobId as exc:
        links = html_tag("ul", [html_tag("li", page_link(each, "job", id=each)) for each in exc.candidates])
        text = f"Several jobs have ids that begin with {view.job_id}:"
        return Snapshot("Several jobs", join_content(html_tag("p", text), links), 404)
    except JobNotFound:
        text = (
            f"There is no job {view.job_id} in the store. It was never submitted there, it expired, or it was deleted."
        )
        return Snapshot("No such job", html_tag("p", text, class_="empty"), 404)
    except BatchTasksError as exc:
        # A reason may name servers; who reads the page need not know them.
        log.warning("the progress page cannot read the store: %s", exc)
        trouble = _AWAY if isinstance(exc, StoreUnavailable) else _WRONG
        return Snapshot("Not available", Markup(), 503, live=True, trouble=trouble)
