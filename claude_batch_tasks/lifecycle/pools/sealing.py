"""The sealing of a pool: its asks become the requests of a job of the same id, which then starts.

A worker that notices that a pool is due sends the message that seals it. Everything here may happen twice, at the same
time, and stop anywhere: the store makes one job of an id, and sends the message again until the pool is sealed.
"""

from __future__ import annotations

from celery import Celery

from claude_batch_tasks import metrics
from claude_batch_tasks.errors import InvalidRequests
from claude_batch_tasks.lifecycle.pools import dividing, pool_job
from claude_batch_tasks.records import Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import message_chain, message_headers, publishing
from claude_batch_tasks.store import open_store


def seal_pool(app: Celery, job_id: str) -> str:
    """Make a pool a job of the same id, and start it; return what was done, in words.

    Raises:
        StoreUnavailable: the store does not answer.
        InvalidRequests, InvalidSettings: this worker's settings do not go with the pool's options; it is due again.
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
    except InvalidRequests:
        if not dividing.halve_unfit(store, job_id, pool):
            raise
        return "halved: its asks do not fit into one job, because of max_cost"
    if job is None:
        dividing.release_waiting(store, pool)
        store.pools.finish_sealing(job_id)
        store.pools.drop_asks(job_id)
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
