"""The sealing of a pool: its asks become the requests of a job of the same id, which then starts.

A worker that notices that a pool is due sends the message that seals it. Everything here may happen twice, at the same
time, and stop anywhere: the store makes one job of an id, and sends the message again until the pool is sealed.
"""

from __future__ import annotations

from celery import Celery

from claude_batch_tasks import metrics
from claude_batch_tasks.errors import InvalidRequests, PayloadDamaged, StepFailed
from claude_batch_tasks.lifecycle.pools import dividing, pool_job
from claude_batch_tasks.lifecycle.pools.ending import AskEnding
from claude_batch_tasks.pool_records import PoolRecord
from claude_batch_tasks.records import JobRecord, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import message_chain, message_headers, publishing
from claude_batch_tasks.store import Store, open_store


def seal_pool(app: Celery, job_id: str) -> str:
    """Make a pool a job of the same id, and start it; return what was done, in words.

    Raises:
        StoreUnavailable: the store does not answer.
        InvalidRequests, InvalidSettings: this worker's settings do not go with the pool's options; it is due again.
        PayloadDamaged: its ask cannot be read.
    """
    store = open_store(Settings.of(app))
    pool = store.pools.begin_sealing(job_id)
    if pool is None or pool.state != "closed":
        return f"nothing to seal: {pool.state if pool else 'there is no such pool'}"
    job = store.jobs.read_job(job_id)
    if job is None and dividing.halve_known(store, job_id, pool):
        return "halved: the API refuses one of its asks"
    try:
        job = job or pool_job.make_job(app, store, job_id, pool)
    except (InvalidRequests, PayloadDamaged):
        if not dividing.halve_unfit(store, job_id, pool):
            raise
        return "halved: its asks do not fit into one job, or one of them is damaged"
    if job is None:
        _end_without_job(store, job_id, pool)
        return "nothing to seal: none of its asks is left"
    # As if its message had been sent: if this process ends here, the job is found.
    store.schedule.add_units([Unit(job_id)], store.now())
    store.pools.finish_sealing(job_id)
    if job.state != "staged":
        return f"was sealed: {job.state}"
    metrics.observe("pool_size", job.requests)
    with publishing.fixed_headers(message_headers.headers_of(job)):
        message_chain.make_first_message(app, job, job_id).apply_async(retry=False)
    return f"sealed: {job.requests} requests"


def handle_failure(app: Celery, job_id: str, reason: str, hostname: str | None, *, passing: bool = False) -> str | None:
    """Record that a pool became no job; after ``max_step_failures`` its asks fail, since nothing was sent or paid.

    Args:
        reason: why, without any part of a prompt.
        hostname: the name of the worker.
        passing: another worker can make a job of it, however long it takes until it is there.

    Returns:
        What was done, in words; None: it is a job, or there is no such pool.

    Raises:
        StoreUnavailable: the store does not answer.
        TransientError: the broker or the result back end does not answer.
    """
    settings = Settings.of(app)
    store = open_store(settings)
    if store.jobs.read_job(job_id) is not None or not (failures := store.pools.stop_sealing(job_id)):
        return None
    pool = store.pools.read_pool(job_id)
    if pool is None or passing or failures < settings.max_step_failures:
        return "not sealed"
    error = StepFailed(
        f"no job could be made of its pool, {failures:,} times in a row (max_step_failures): {reason}. Nothing was "
        "sent or paid. When the cause is corrected, ask again"
    )
    unmade = JobRecord(nonce="", requests=0, batches=0, submitted_at=pool.opened_at, pool=pool.name)
    ending, failed = AskEnding(app, store, settings, job_id, unmade, hostname=hostname), 0
    for asks in store.pools.read_asks(job_id, params=False):
        failed += ending.fail_unmade([ask.id for ask in asks if ask is not None], error)
    _end_without_job(store, job_id, pool)
    return f"given up: {failed} asks have failed"


def _end_without_job(store: Store, job_id: str, pool: PoolRecord) -> None:
    """Close a pool that becomes no job, and remove its asks."""
    dividing.release_waiting(store, pool)
    store.pools.finish_sealing(job_id)
    store.pools.drop_asks(job_id)
