"""Pages of lists whose cursors are ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..prompts import ApiError
from .received import Received


def cut_page(received: Received, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one page of a list that is whole here, as the call asks for it.

    Raises:
        ApiError: a cursor is invalid.
    """
    query, limit = received.request.query_params, received.read_limit()
    after, before = query.get("after_id"), query.get("before_id")
    if after and before:
        raise ApiError("invalid_request_error", "Only one of after_id and before_id may be given")
    rest = list(entries)
    if after:
        rest = rest[_find_place(rest, "after_id", after) + 1 :]
    if before:
        rest = rest[: _find_place(rest, "before_id", before)]
    page = rest[-limit:] if before else rest[:limit]
    return {
        "data": page,
        "has_more": len(page) < len(rest),
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def _find_place(entries: Sequence[dict[str, Any]], name: str, cursor: str) -> int:
    for place, entry in enumerate(entries):
        if entry["id"] == cursor:
            return place
    raise ApiError("invalid_request_error", f"{name}: Invalid cursor '{cursor}'")
