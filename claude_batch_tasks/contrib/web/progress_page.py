"""The progress page as an application of a web server: in WSGI, in ASGI, and in Django."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from celery import Celery

from claude_batch_tasks.contrib.web import answers, asgi_server, django_view, flask_view, streams, wsgi_server
from claude_batch_tasks.contrib.web.answers import Answer, Asked, Wanted
from claude_batch_tasks.contrib.web.snapshots import Snapshot, Snapshots, View
from claude_batch_tasks.contrib.web.views import read_snapshot
from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.errors import InvalidSettings


class ProgressPage:
    """A read-only page of the jobs in the store: a list, and a page for each job, which update themselves.

    It shows ids, labels, counts, errors and costs, and no prompt and no answer. It has no login of its own: every
    user whom the application lets through sees all jobs.

    Args:
        app: the Celery app whose settings say where the store is; default: the current one.
        allow: is called with the WSGI environment, the ASGI scope (then it may be ``async``) or Django's request, and
            returns whether to answer; if not, the answer is 403.
        show_custom_ids: False hides the custom_ids of failed requests, which are shown as examples.
        heading: the heading of the page.
        max_streams: how many browsers of each process may hold a thread of a WSGI server, which their updates come
            through. The others, and all where the server has one thread, ask again every 3 seconds. In ASGI an update
            holds no thread, and there is no limit.
    """

    def __init__(
        self,
        app: Celery | None = None,
        *,
        allow: Callable[[Any], Any] | None = None,
        show_custom_ids: bool = True,
        heading: str = "Claude batches",
        max_streams: int = 2,
    ) -> None:
        self._app = app
        self._allow = allow
        self._show_custom_ids = show_custom_ids
        self._heading = heading
        self._places = streams.Places(max_streams)
        self._snapshots = Snapshots(self._read)

    def wsgi(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request as a WSGI application, which Flask and others mount."""
        asked = wsgi_server.read_environ(environ)
        planned = answers.plan_answer(asked) if self._is_allowed(environ) else _REFUSED
        if isinstance(planned, Wanted) and planned.as_stream:
            start_response("200 OK", list(answers.STREAM_HEADERS))
            places = self._places if environ.get("wsgi.multithread") else None
            return () if asked.method == "HEAD" else self._stream(planned.view, places)
        answer = planned if isinstance(planned, Answer) else self._make_page(planned.view)
        return wsgi_server.send_answer(start_response, answer, head=asked.method == "HEAD")

    async def asgi(self, scope: asgi_server.Scope, receive: asgi_server.Receive, send: asgi_server.Send) -> None:
        """Answer a request as an ASGI application, which FastAPI, Starlette and others mount."""
        if scope["type"] != "http":
            await asgi_server.refuse_other(scope, receive, send)
            return
        asked = asgi_server.read_scope(scope)
        planned = answers.plan_answer(asked) if await self._is_allowed_async(scope) else _REFUSED
        head = asked.method == "HEAD"
        if isinstance(planned, Wanted) and planned.as_stream:
            await self._send_stream(planned.view, receive, send, head=head)
            return
        if isinstance(planned, Wanted):
            self._find_app()
            snapshot, _ = await streams.ask_in_loop(self._snapshots, planned.view)
            planned = answers.page_answer(snapshot, planned.view, self._heading)
        await asgi_server.send_answer(send, planned, head=head)

    def django_urls(self, login: Callable[[Any], Any]) -> list[Any]:
        """Return URL patterns for Django: ``path("batches/", include(page.django_urls(login_required)))``.

        Args:
            login: a decorator of views that lets in only who may see the page, such as ``login_required`` or
                ``staff_member_required``.
        """
        return django_view.list_urls(login(self._django_view))

    def flask_blueprint(self, login: Callable[[Any], Any]) -> Any:
        """Return a blueprint for Flask: ``app.register_blueprint(page.flask_blueprint(login_required), ...)``.

        Args:
            login: a decorator of views that lets in only who may see the page, such as Flask-Login's
                ``login_required``.
        """
        return flask_view.make_blueprint(self.wsgi, login)

    def _django_view(self, request: Any, name: str) -> Any:
        planned = answers.plan_answer(Asked(request.method, f"/{name}", request.META.get("QUERY_STRING", ""), ""))
        if not self._is_allowed(request):
            planned = _REFUSED
        if not isinstance(planned, Wanted):
            return django_view.whole_response(planned)
        if not planned.as_stream:
            return django_view.whole_response(self._make_page(planned.view))
        if request.method == "HEAD":
            return django_view.whole_response(Answer(HTTPStatus.OK, answers.STREAM_HEADERS))
        self._find_app()
        if hasattr(request, "scope"):  # Django would collect all of a plain iterator there
            chunks: Any = streams.stream_in_loop(self._snapshots, planned.view)
        else:
            chunks = self._stream(planned.view, self._places if request.META.get("wsgi.multithread") else None)
        return django_view.stream_response(answers.STREAM_HEADERS, chunks)

    def _make_page(self, view: View) -> Answer:
        self._find_app()
        snapshot, _ = self._snapshots.ask_view(view).result()
        return answers.page_answer(snapshot, view, self._heading)

    def _stream(self, view: View, places: streams.Places | None) -> Iterable[bytes]:
        self._find_app()
        return streams.stream_in_thread(self._snapshots, view, places)

    async def _send_stream(
        self, view: View, receive: asgi_server.Receive, send: asgi_server.Send, *, head: bool
    ) -> None:
        self._find_app()
        client = asgi_server.Client(receive)
        try:
            chunks = None if head else streams.stream_in_loop(self._snapshots, view, client.wait_until_gone)
            await asgi_server.send_stream(send, answers.STREAM_HEADERS, chunks)
        finally:
            client.stop_listening()

    def _is_allowed(self, request: Any) -> bool:
        if self._allow is None:
            return True
        allowed = self._allow(request)
        if inspect.isawaitable(allowed):  # which would count as true
            raise TypeError("allow may be async only where the page is mounted with its asgi application")
        return bool(allowed)

    async def _is_allowed_async(self, scope: Any) -> bool:
        if self._allow is None:
            return True
        called = inspect.iscoroutinefunction(self._allow)
        allowed = self._allow(scope) if called else await asyncio.to_thread(self._allow, scope)
        return bool(await allowed if inspect.isawaitable(allowed) else allowed)

    def _find_app(self) -> None:
        """Remember the current Celery app of the thread of a request: the threads that read the store have none."""
        if self._app is None:
            with suppress(InvalidSettings):
                self._app = configured_app()

    def _read(self, view: View) -> Snapshot:
        return read_snapshot(self._app, view, show_custom_ids=self._show_custom_ids)


_REFUSED = answers.text_answer(HTTPStatus.FORBIDDEN)
