"""The Celery tasks, one module each, in the order in which a batch lives.

``run_batch`` → ``create_batch`` → ``poll_batch`` → ``fetch_results`` → ``fall_back`` → ``finish_job``. From
``fall_back`` a batch may go through the three before it again, smaller; the rest then goes through the Messages API in
``send_messages``. Each batch of a job has a chain of its own. The last link of every chain is ``finish_job`` under the
id that ``run_batch.delay()`` returned. The batch that finishes last sends it; the others drop it.

``ask`` is for one request: asks of many processes become one job, of which each ends when its own outcome is final.
"""

from __future__ import annotations

from claude_batch_tasks import worker
from claude_batch_tasks.tasks.asks import ask
from claude_batch_tasks.tasks.create_batch import create_batch
from claude_batch_tasks.tasks.fall_back import fall_back
from claude_batch_tasks.tasks.fetch_results import fetch_results
from claude_batch_tasks.tasks.finish_job import finish_job
from claude_batch_tasks.tasks.operator import cancel_batch, recover_jobs
from claude_batch_tasks.tasks.poll_batch import poll_batch
from claude_batch_tasks.tasks.run_batch import run_batch
from claude_batch_tasks.tasks.seal_pool import seal_pool
from claude_batch_tasks.tasks.send_messages import send_messages

__all__ = [
    "ask",
    "cancel_batch",
    "create_batch",
    "fall_back",
    "fetch_results",
    "finish_job",
    "poll_batch",
    "recover_jobs",
    "run_batch",
    "seal_pool",
    "send_messages",
]

worker.connect_signals()
