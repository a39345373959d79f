"""The messages that make pools jobs: the main process of each worker sends those of pools that are due."""

from __future__ import annotations

from celery import Celery

from claude_batch_tasks import rules
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import JobRecord, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import dispatch, publishing, routing
from claude_batch_tasks.steps.message_chain import NAME
from claude_batch_tasks.store import Store, history, open_store

log = get_logger(__name__)

#: Pools whose messages are sent between two queries for pools that are due.
_AT_ONCE = 50

#: The longest time between two of these queries, seconds.
_BETWEEN = 1.0


def send_due(app: Celery) -> float:
    """Send the messages that seal pools which are due; return the seconds until the next call of this function.

    Raises:
        StoreUnavailable: the store does not answer.
        kombu.exceptions.OperationalError: the broker does not answer; pools whose messages were not sent are due again.
    """
    with dispatch.no_fork:
        settings = Settings.of(app)
        store = open_store(settings)
        due, pause = store.pools.take_due(_AT_ONCE, settings.recover_after)
    for number, job_id in enumerate(due):
        try:
            with dispatch.no_fork:  # one pool at a time: forks wait no longer than one message takes
                _send_message(app, store, job_id)
        except Exception:
            store.pools.wait_again(due[number:], rules.LONGEST_IN_BROKER)
            raise
    if len(due) == _AT_ONCE:
        return 0.0
    return _BETWEEN if pause is None else min(max(pause, 0.05), _BETWEEN)


def _send_message(app: Celery, store: Store, job_id: str) -> None:
    """Send the message that seals a pool to where its job's messages go."""
    if (pool := store.pools.read_pool(job_id)) is None:
        return
    job = JobRecord(nonce="", requests=0, batches=0, submitted_at=0.0, queue=pool.queue, route=pool.route)
    name = NAME + "seal_pool"
    signature = app.signature(name, args=(job_id,), immutable=True).set(**routing.follow_route(app, job, name))
    try:
        signature.apply_async(retry=False)
    except Exception as exc:
        if publishing.is_outage(app, exc):
            raise
        # Its own fault, such as an unknown queue; not that of the others.
        extra = history.fields(Unit(job_id), "not_sent")
        log.exception("job %s: the message that makes its pool a job cannot be sent", job_id, extra=extra)
