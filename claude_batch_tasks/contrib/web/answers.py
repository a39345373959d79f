"""What the progress page answers to a request, whatever kind of server it came through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from importlib import resources
from typing import NamedTuple
from urllib.parse import parse_qs

from claude_batch_tasks.contrib.web.document import POLICY, make_document
from claude_batch_tasks.contrib.web.snapshots import Snapshot, View

#: The files that belong to the page, and what they are.
_FILES = {"progress.css": "text/css", "progress.js": "text/javascript"}

_SAFE = (("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "same-origin"))
_PAGE = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", POLICY),
    ("Cache-Control", "no-store"),
    *_SAFE,
)
_TEXT = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"), *_SAFE)

#: The headers of a stream; the last one is for nginx, which would collect events else.
STREAM_HEADERS = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-cache, no-transform"),
    ("X-Accel-Buffering", "no"),
    *_SAFE,
)


class Asked(NamedTuple):
    """What a request asks for."""

    method: str
    path: str
    """The path below the place where the page is mounted; empty if the address has no slash after that place."""
    query: str
    mounted_at: str
    """The path up to there, as an address has it."""


class Answer(NamedTuple):
    """An answer that is known without the store."""

    status: HTTPStatus
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""


class Wanted(NamedTuple):
    """A view of the store that is asked for."""

    view: View
    as_stream: bool


def plan_answer(asked: Asked) -> Answer | Wanted:
    """Return the answer to a request, or which view of the store is to be shown."""
    if asked.method not in ("GET", "HEAD"):
        answer = text_answer(HTTPStatus.METHOD_NOT_ALLOWED)
        return answer._replace(headers=(*answer.headers, ("Allow", "GET, HEAD")))
    if not asked.path:
        return _add_slash(asked)
    name = asked.path[1:]
    if name in _FILES:
        return _file_answer(name)
    query = parse_qs(asked.query, errors="replace")
    if name in ("", "stream") or (name == "job" and query.get("id")):
        return Wanted(_read_view(query, with_job=name != ""), as_stream=name == "stream")
    return text_answer(HTTPStatus.NOT_FOUND)


def page_answer(snapshot: Snapshot, view: View, heading: str) -> Answer:
    """Return the page of a snapshot."""
    return Answer(HTTPStatus(snapshot.status), _PAGE, make_document(snapshot, view, heading).encode())


def text_answer(status: HTTPStatus) -> Answer:
    """Return an answer that says no more than its status."""
    return Answer(status, _TEXT, f"{status.value} {status.phrase}\n".encode())


def _add_slash(asked: Asked) -> Answer:
    """Return a redirection to the address with a slash, from which relative links are right."""
    query = f"?{asked.query}" if asked.query else ""
    # Relative as well: a proxy in front may know the page under another path.
    location = f"./{asked.mounted_at.rpartition('/')[2]}/{query}"
    return Answer(HTTPStatus.TEMPORARY_REDIRECT, (("Location", location), *_TEXT))


@cache
def _file_answer(name: str) -> Answer:
    content = resources.files("claude_batch_tasks.contrib.web").joinpath("static", name).read_bytes()
    # The address of a file has the release in it.
    headers = (("Content-Type", f"{_FILES[name]}; charset=utf-8"), ("Cache-Control", "max-age=86400"), *_SAFE)
    return Answer(HTTPStatus.OK, headers, content)


def _read_view(query: Mapping[str, Sequence[str]], *, with_job: bool) -> View:
    def last_value(name: str) -> str:
        return query.get(name, ("",))[-1]

    job_id = last_value("id") or None
    if with_job and job_id is not None:
        return View(job_id, batches=_parse_page(last_value("batches")), history=_parse_page(last_value("history")))
    return View(text=last_value("q")[:512], phase=last_value("phase")[:64], before=last_value("before")[:64])


def _parse_page(number: str) -> int:
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 9 else 1
