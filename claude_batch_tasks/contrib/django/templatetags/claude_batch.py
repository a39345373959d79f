"""The template filters that format numbers on the admin's pages of jobs."""

from __future__ import annotations

from django import template

from claude_batch_tasks import formatting

register = template.Library()
register.filter("unpriced", formatting.format_unpriced)


@register.filter
def thousands(number: int) -> str:
    """Format a number with separators: 1,000,000."""
    return f"{number:,}"


@register.filter
def dollars(cost: float | None) -> str:
    """Format a cost in US dollars with as many digits as matter: $0.0123."""
    if cost is None:
        return "unknown"
    if cost >= 1:
        return f"${cost:,.2f}"
    return f"${cost:.4g}" if cost >= 1e-4 or not cost else f"${cost:.6f}"
