"""The template filters that format numbers on the admin's pages of jobs."""

from __future__ import annotations

from typing import Any

from django import template

from claude_batch_tasks import formatting
from claude_batch_tasks.contrib import figures, job_pages
from claude_batch_tasks.jobs.job_ids import short_id

register = template.Library()
register.filter("unpriced", formatting.format_unpriced)
register.filter("failures", job_pages.name_failures)
register.filter("short_reason", job_pages.short_reason)
register.filter("short_id", short_id)
register.filter("is_live", job_pages.is_live)
register.filter("dollars", figures.format_dollars)


@register.filter
def thousands(number: int) -> str:
    """Format a number with separators: 1,000,000."""
    return f"{number:,}"


@register.filter
def progress_share(job: Any) -> int:
    """Return how much of a job is done, in thousandths."""
    progress = getattr(job, "progress", None)
    share: float = job.done / job.requests if progress is None else progress.fraction
    return round(1000 * share)
