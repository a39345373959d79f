"""The check of the object store that payloads go to."""

from __future__ import annotations

from collections.abc import Iterator

from celery import Celery

from claude_batch_tasks.checks import configuration, problems
from claude_batch_tasks.checks.problems import Finding, ok
from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.store.objects import try_bucket


def check_object_store(app: Celery) -> Iterator[Finding]:
    """Check that an object can be written, found, read and removed, if payloads go to an object store."""
    if (url := configuration.readable_settings(app).payload_url) is None:
        return
    try:
        try_bucket(url)
    except StoreUnavailable as exc:
        yield problems.OBJECT_STORE.found(error=str(exc))
    else:
        yield ok(f"the object store at {url} works: an object was written, found, read and removed")
