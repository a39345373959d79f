"""Real web servers, on free ports, with the progress page mounted in them."""

from __future__ import annotations

import contextlib
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from socketserver import ThreadingMixIn
from typing import Any, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import uvicorn

from claude_batch_tasks.embedded import free_port


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    text: str


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None: ...


class _Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True


@contextlib.contextmanager
def serve_wsgi(app: Any, *, threads: bool = True) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, _Threads if threads else WSGIServer, _Quiet)
    server.set_app(lambda environ, start: app({**environ, "wsgi.multithread": threads}, start))  # else it is False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@contextlib.contextmanager
def serve_asgi(app: Any, **options: Any) -> Iterator[str]:
    port = free_port()
    config = uvicorn.Config(
        app, port=port, log_level="warning", interface="asgi3", timeout_graceful_shutdown=1, **options
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def ask(url: str, method: str = "GET", *, follow: bool = True, headers: Mapping[str, str] | None = None) -> Answer:
    """Send a request, and return what comes, whatever its status."""
    opener = urllib.request.build_opener(*([] if follow else [_NoRedirects]))
    request = urllib.request.Request(url, method=method, headers=dict(headers or {}))
    try:
        with opener.open(request, timeout=30) as answer:
            return Answer(answer.status, answer.headers, answer.read().decode())
    except urllib.error.HTTPError as exc:
        with exc:
            return Answer(exc.code, exc.headers, exc.read().decode())


@contextlib.contextmanager
def open_stream(url: str) -> Iterator[Iterator[tuple[str, str]]]:
    """Open a stream, and return its events as they come: the name and the data of each."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        yield _read_events(answer)


def _read_events(answer: Any) -> Iterator[tuple[str, str]]:
    fields: dict[str, str] = {}
    for line in answer:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            fields[name] = value
        elif "event" in fields:
            yield fields["event"], fields["data"]
            fields = {}
