"""The progress page in terms of Django, which is imported only when it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from claude_batch_tasks.contrib.web.answers import Answer


def list_urls(view: Callable[..., Any]) -> list[Any]:
    """Return the patterns of the pages below the place where they are included."""
    from django.urls import path

    return [path("", view, {"name": ""}), path("<str:name>", view)]


def whole_response(answer: Answer) -> Any:
    """Return an answer as a response."""
    from django.http import HttpResponse

    return HttpResponse(answer.body, status=answer.status.value, headers=dict(answer.headers))


def stream_response(headers: Iterable[tuple[str, str]], chunks: Any) -> Any:
    """Return a stream as a response."""
    from django.http import StreamingHttpResponse

    return StreamingHttpResponse(chunks, headers=dict(headers))
