"""Which workers run, as they report to the store, and whether one takes the messages of a job.

Nobody asks the workers: that would take seconds, and brokers such as SQS have no remote control. Workers before 0.3 do
not report.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from celery import Celery

from claude_batch_tasks.checks import broker_address
from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.formatting import format_duration
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import JobRecord, Unit, WorkerPresence
from claude_batch_tasks.steps import routing
from claude_batch_tasks.steps.message_chain import NAME
from claude_batch_tasks.store import HasPresence, history

log = get_logger(__name__)

#: Seconds between two reports of a worker, and after which one that does not report any more counts as gone.
REPORT_EVERY, REPORT_TTL = 15.0, 60.0

#: Seconds by which a message must be overdue before a status says so.
PATIENCE = 30.0

#: Seconds for which a process that has found a worker for a queue does not search for one again.
_FOUND_FOR = 60.0

#: Names that a text has at most.
_SOME = 3

#: Until when a queue needs no search, by the app's broker and the queue: forever, once this process has warned.
_settled: dict[tuple[str, str], float] = {}


def find_queue(app: Celery, job: JobRecord) -> str | None:
    """Return the name of the queue that the message of a job's ``run_batch`` goes to; None: it is not known."""
    with suppress(Exception):  # a router of the app's own may raise anything
        options = routing.follow_route(app, job, routing.RUN_BATCH)
        queue: Any = app.amqp.router.route(options, routing.RUN_BATCH).get("queue")
        return None if queue is None else str(getattr(queue, "name", queue))
    return None


def list_queues(app: Celery) -> dict[str, list[str]]:
    """Return the queues that our tasks are sent to, each with the names of its tasks."""
    app.finalize(auto=True)
    job = JobRecord(
        nonce="", requests=0, batches=0, submitted_at=0, route=routing.encode_route(routing.find_route(app, {}))
    )
    queues = defaultdict(list)
    for name in sorted(app.tasks, key=lambda name: (name != NAME + "run_batch", name)):
        if name.startswith(NAME):
            queue = app.amqp.router.route(routing.follow_route(app, job, name), name).get("queue")
            if queue is not None:
                queues[str(getattr(queue, "name", queue))].append(name)
    return dict(queues)


def describe_workers(workers: Sequence[WorkerPresence], queue: str) -> str:
    """Return which workers listen on a queue: ``Workers that listen on queue 'nightly': none.``"""
    listening = [worker.hostname for worker in workers if queue in worker.queues]
    if listening:
        return f"Workers that listen on queue {queue!r}: {name_some(listening)}."
    others = sorted({other for worker in workers for other in worker.queues})
    known = f" Workers listen on: {name_some(list(map(repr, others)))}." if others else ""
    return f"Workers that listen on queue {queue!r}: none.{known}"


def describe_wait(seconds: float, workers: Sequence[WorkerPresence], queue: str | None) -> str:
    """Return what a status says of a message that no worker has taken for so many seconds."""
    text = f"No worker has picked this up for {format_duration(seconds)}."
    return text if queue is None else f"{text} {describe_workers(workers, queue)}"


def warn_unserved(app: Celery, store: HasPresence, job_id: str, job: JobRecord) -> None:
    """Log a warning if no worker listens on the queue that a job was sent to: once for each process and queue.

    It costs one short call of the store, once a minute. A failure of the store is ignored here.
    """
    queue = find_queue(app, job)
    if queue is None:
        return
    asked = broker_address.first_url(app), queue
    if _settled.get(asked, 0.0) > time.monotonic() or broker_address.is_in_memory(app):
        return
    try:
        workers = store.presence.list_workers()
    except StoreUnavailable:
        return
    served = any(queue in worker.queues for worker in workers)
    _settled[asked] = time.monotonic() + _FOUND_FOR if served else float("inf")
    if not served:
        hint = broker_address.explain_default(app)
        log.warning(
            "job %s is stored and sent, and waits until a worker takes it. %s Start one: celery -A %s worker -Q %s "
            "(workers before 0.3 do not report themselves)%s",
            job_id,
            describe_workers(workers, queue),
            guess_app(app),
            queue,
            f". {hint}" if hint else "",
            extra=history.fields(Unit(job_id), "no_worker", queue=queue),
        )


def name_other_broker(app: Celery, workers: Sequence[WorkerPresence], queue: str) -> str:
    """Return that the workers of a queue name another broker than this process; empty if one names the same."""
    theirs = {worker.broker for worker in workers if queue in worker.queues and worker.broker}
    ours = broker_address.describe_broker(app) if theirs else ""
    if not theirs or ours in theirs:
        return ""
    return f" Their broker is {name_some(sorted(theirs))}, that of this process {ours}."


def explain_wait(
    app: Celery,
    job: JobRecord,
    due: Sequence[float | None],
    now: float,
    workers: Callable[[], Sequence[WorkerPresence]],
) -> str | None:
    """Return why a job waits for a worker; None: it does not, or not for long.

    Args:
        due: when each of its messages was due.
        now: the time by the store's clock.
        workers: returns the workers that run; called only if the job waits.
    """
    late = [now - at for at in due if at is not None and now - at > PATIENCE]
    if not late:
        return None
    queue, found = find_queue(app, job), workers()
    text = describe_wait(max(late), found, queue)
    return text if queue is None else text + name_other_broker(app, found, queue)


def guess_app(app: Celery) -> str:
    """Return what is likely to follow ``celery -A``."""
    return "claude_batch_tasks.app" if app.main == "claude_batch_tasks" else str(app.main or "APP")


def name_some(names: Sequence[str]) -> str:
    """Return the first names as a text, and how many more there are."""
    more = f" and {len(names) - _SOME} more" if len(names) > _SOME else ""
    return ", ".join(names[:_SOME]) + more
