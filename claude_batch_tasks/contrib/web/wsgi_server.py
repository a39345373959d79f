"""The progress page in terms of WSGI."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from claude_batch_tasks.contrib.web.answers import Answer, Asked


def read_environ(environ: dict[str, Any]) -> Asked:
    """Return what a request asks for."""
    mounted_at, path = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
    if not path and not mounted_at:
        path = "/"
    return Asked(environ["REQUEST_METHOD"], path, environ.get("QUERY_STRING", ""), quote(mounted_at.encode("latin-1")))


def send_answer(start_response: Callable[..., Any], answer: Answer, *, head: bool) -> Iterable[bytes]:
    """Send a whole answer."""
    length = ("Content-Length", str(len(answer.body)))
    start_response(f"{answer.status.value} {answer.status.phrase}", [*answer.headers, length])
    return [] if head else [answer.body]
