"""The template filters that format numbers on the admin's pages of jobs."""

from __future__ import annotations

from django import template

from claude_batch_tasks import formatting
from claude_batch_tasks.contrib import figures, job_pages
from claude_batch_tasks.jobs.job_ids import short_id
from claude_batch_tasks.wire import answer_texts

register = template.Library()
register.filter("unpriced", formatting.format_unpriced)
register.filter("failures", job_pages.name_failures)
register.filter("incomplete", job_pages.name_incomplete)
register.filter("repairs", answer_texts.format_repairs)
register.filter("short_reason", job_pages.short_reason)
register.filter("short_id", short_id)
register.filter("share", job_pages.find_share)
register.filter("is_estimated", job_pages.is_estimated)
register.filter("describe_progress", job_pages.describe_progress)
register.filter("is_live", job_pages.is_live)
register.filter("dollars", figures.format_dollars)


@register.filter
def thousands(number: int) -> str:
    """Format a number with separators: 1,000,000."""
    return f"{number:,}"
