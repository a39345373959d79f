"""What errors of PostgreSQL say, on one line."""

from __future__ import annotations

import psycopg


def describe(exc: Exception) -> str:
    """Return what an error says on one line, without the statement that the server quotes."""
    said = exc.diag.message_primary if isinstance(exc, psycopg.Error) else None
    return " ".join((said or str(exc)).split())
