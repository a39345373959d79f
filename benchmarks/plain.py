"""What is usually written by hand: a task for each batch that looks every minute, one for each request. An app."""

from __future__ import annotations

import functools
import os
from typing import Any

import anthropic
from celery import Celery

app = Celery("plain", broker=os.environ.get("CELERY_BROKER_URL"))
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, task_ignore_result=True)


@app.task(bind=True, max_retries=None)  # type: ignore[untyped-decorator]
def watch(self: Any, batch_id: str, every: float) -> None:
    """Look at the batch until it has ended, then read its results."""
    client = anthropic.Anthropic()
    if client.messages.batches.retrieve(batch_id).processing_status != "ended":
        raise self.retry(countdown=every)
    for _ in client.messages.batches.results(batch_id):
        pass


@app.task(bind=True, max_retries=None, autoretry_for=(anthropic.APIStatusError,), retry_backoff=1, retry_jitter=True)  # type: ignore[untyped-decorator]
def ask(self: Any, params: dict[str, Any]) -> None:
    """Send one request through the Messages API, with the SDK's own retries and Celery's after them."""
    _client().messages.create(**params)


@app.task  # type: ignore[untyped-decorator]
def nothing() -> None:
    """Do nothing."""


@functools.lru_cache
def _client() -> anthropic.Anthropic:
    return anthropic.Anthropic()
