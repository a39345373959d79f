"""The URLs of stores that are no Redis."""

from __future__ import annotations

from urllib.parse import urlsplit


def postgres_address(url: str) -> str:
    """Return the address in a PostgreSQL URL, without user, password and options, for texts of errors."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
