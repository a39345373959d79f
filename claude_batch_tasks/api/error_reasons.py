"""The reason why something in front of the API refused a call, taken from the body of its answer."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any

#: Fields in which gateways put their reason, in lower case: AWS and Kong (``message``), FastAPI (``detail``, a list of
#: ``msg``), problem documents (``title``, ``detail``), OAuth (``error``, ``error_description``), Apigee (``fault``).
_FIELDS = (
    "title", "error", "errors", "fault", "faultstring", "message", "msg", "detail", "details", "error_description",
    "reason",
)  # fmt: skip
_LISTS = ("errors", "detail", "details")

#: The most values that are shown, and how deep in the body they may be.
_MOST = 3
_DEEPEST = 4

#: The most characters of the first line of a text, which unlike a named field may hold anything.
_LONGEST_LINE = 200

_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


def reason_of(body: bytes, content_type: str | None) -> str | None:
    """Return the reason that a body gives, as one line; None: it gives none.

    For JSON the reason is taken from fields for reasons, for an HTML page from its title, for plain text from the first
    line. The rest is left out, because it may quote the request.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _one_line(_of_page(text.strip(), content_type or "text/plain"))
    found = list(dict.fromkeys(_of_json(value, 0))) if isinstance(value, dict) else []
    return _one_line(": ".join(found[:_MOST]))


def _of_page(text: str, content_type: str) -> str:
    if title := _TITLE.search(text):
        return html.unescape(title[1])
    if text.startswith(("<", "{", "[")) or not content_type.startswith("text/plain"):
        return ""
    return text.partition("\n")[0][:_LONGEST_LINE]


def _of_json(value: dict[str, Any], depth: int) -> Iterator[str]:
    named = {str(name).lower(): found for name, found in value.items()}
    for name in _FIELDS:
        found = named.get(name)
        if isinstance(found, str) and found:
            yield found
        elif depth < _DEEPEST and isinstance(found, dict):
            yield from _of_json(found, depth + 1)
        elif depth < _DEEPEST and isinstance(found, list) and name in _LISTS:
            yield from _of_list(found, depth + 1)


def _of_list(parts: list[Any], depth: int) -> Iterator[str]:
    for part in parts:
        if isinstance(part, dict):
            yield from _of_json(part, depth)
        elif isinstance(part, str):
            yield part


def _one_line(text: str) -> str | None:
    return " ".join(text.split()) or None
