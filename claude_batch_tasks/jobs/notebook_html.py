"""Tables in HTML, which notebooks show for a job's status or an estimate."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape


def format_table(title: str, rows: Mapping[str, str | None]) -> str:
    """Return a table with a title and a row for each name whose value is not empty. All texts are escaped."""
    cells = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in rows.items()
        if value
    )
    return f'<table><caption style="text-align:left">{escape(title)}</caption>{cells}</table>'


def format_dollars(cost: float | None) -> str:
    """Return an amount of US dollars: ``$12.40``, ``$0.0123``, ``not known``."""
    if cost is None:
        return "not known"
    return f"${cost:,.2f}" if cost >= 1 or not cost else f"${cost:.4f}"
