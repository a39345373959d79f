"""Tasks of the project."""

from celery import shared_task
from django.db import transaction

from claude_batch_tasks import run_batch
from tests.transactions.shop.models import Order


@shared_task
def follow(summary):
    """Return what a job that a chain goes on from has counted."""
    return summary["succeeded"]


@shared_task
def submit_in_block(fail):
    """Submit a job inside a block of a worker's task; the block may fail after that."""
    with transaction.atomic():
        result = run_batch.delay([{"custom_id": "a", "params": make_params()}])
        Order.objects.create(job_id=result.id)
        if fail:
            raise ValueError(result.id)
    return result.id


def make_params(text="Good."):
    """Return the params of a request."""
    return {"model": "claude-haiku-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": text}]}
