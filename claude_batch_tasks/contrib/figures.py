"""How the admin and the progress page write costs and numbers."""

from __future__ import annotations


def format_dollars(cost: float | None) -> str:
    """Format a cost in US dollars with as many digits as matter: $0.0123."""
    if cost is None:
        return "unknown"
    if cost >= 1:
        return f"${cost:,.2f}"
    return f"${cost:.4g}" if cost >= 1e-4 or not cost else f"${cost:.6f}"
