"""Numbers as the admin's pages of jobs write them."""

from __future__ import annotations

from django import template

from claude_batch_tasks import formatting

register = template.Library()
register.filter("unpriced", formatting.unpriced)


@register.filter
def thousands(number: int) -> str:
    """1,000,000."""
    return f"{number:,}"


@register.filter
def dollars(cost: float | None) -> str:
    """$0.0123, as many digits as tell something."""
    if cost is None:
        return "unknown"
    if cost >= 1:
        return f"${cost:,.2f}"
    return f"${cost:.4g}" if cost >= 1e-4 or not cost else f"${cost:.6f}"
