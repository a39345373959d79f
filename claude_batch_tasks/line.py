"""The line a batch goes through: where each message stands in it, and how what is left of it is published.

A position is a number: the place of a message in the life of its unit. The steps of a batch carry the rest of their
line as a Celery chain; a line can be begun at any position, so a message that the broker lost can be sent again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from celery import Celery, chain
from celery.canvas import Signature
from celery.result import allow_join_result
from kombu.utils import json

from claude_batch_tasks import policy
from claude_batch_tasks.settings import visibility_timeout
from claude_batch_tasks.store import JobRecord, Unit

NAME = "claude_batch_tasks."

#: What a turn goes through; a step's rank is its place here.
_TURN = ("create_batch", "poll_batch", "fetch_results", "fall_back")
_STRIDE = 1_000_000

#: The position of a batch or a lane that is through.
DONE = 10**15

#: The position of a job whose result Celery has stored.
ENDED = 1

#: What a task's place in the caller's canvas consists of, as ``apply_async`` takes it and as a request has it.
_CANVAS = {
    "link": "callbacks",
    "link_error": "errbacks",
    "chain": "chain",
    "chord": "chord",
    "group_id": "group",
    "group_index": "group_index",
    "root_id": "root_id",
    "parent_id": "parent_id",
}


def position(turn: int, rank: int, seq: int = 0) -> int:
    """Of a step's message: which turn, which of its steps, and the message's own sequence number."""
    return (turn * len(_TURN) + rank) * _STRIDE + seq


def canvas(of: Mapping[str, Any] | Any) -> str:
    """The canvas of ``run_batch`` from the options it is sent with, or from the request it arrives as; JSON.

    Raises:
        TypeError: an argument in it that JSON cannot carry.
    """
    options = of if isinstance(of, Mapping) else {name: getattr(of, theirs, None) for name, theirs in _CANVAS.items()}
    return json.dumps({name: options[name] for name in _CANVAS if options.get(name) not in (None, [], ())})


def steps(
    app: Celery, job_id: str, job: JobRecord, batch: int, *, since: int = 0, turn: int = 0, countdown: float = 0
) -> list[Signature[Any]]:
    """The messages of a batch's line from a position on; the last is ``finish_job`` under the job's own id.

    Args:
        since: the position; of a batch that nobody has begun, -1 or 0.
        countdown: seconds before the first is due.
    """
    signatures = []
    if since < DONE:
        turn, rank = divmod(max(since, 0) // _STRIDE, len(_TURN))
        for number, name in enumerate(_TURN[rank:]):
            seq = 0 if number else max(since, 0) % _STRIDE
            signatures.append(_step(app, job, name, job_id, batch, turn, seq))
    # To logs and Flower the last link is what the caller began: they know it by the same id.
    finish = _step(app, job, "finish_job", job_id).set(task_id=job_id, shadow=NAME + "run_batch")
    signatures.append(finish.set(**{name: value for name, value in _canvas(job).items() if name != "chain"}))
    signatures[0].set(**_later(app, countdown))
    return signatures


def publish(
    job: JobRecord, job_id: str, signatures: list[Signature[Any]], *, task_id: str | None = None, **options: Any
) -> None:
    """Send the first of a line's messages; it carries the rest, and what comes after the job in the caller's chain.

    Args:
        task_id: of a task that waited, and goes on.
        options: more of ``apply_async``'s.
    """
    first, *rest = signatures
    placed = _canvas(job)
    following = [*placed.get("chain", []), *map(dict, reversed(rest))]
    if task_id:
        options |= {"task_id": task_id, "retries": first.args[-1]}
    first.apply_async(chain=following, root_id=placed.get("root_id") or job_id, **options)


def run_eagerly(job: JobRecord, lines: list[list[Signature[Any]]]) -> Any:
    """Go through a job's lines here and now, one after the other; what the last of all tasks returns."""
    following = [Signature.from_dict(task) for task in reversed(_canvas(job).get("chain", []))]
    with allow_join_result():
        for steps in lines:
            # Apart from the job's end: where a step begins another turn, Celery leaves out what follows it here.
            chain(*steps[:-1]).apply()
        return chain(lines[-1][-1], *following).apply().get()


def message(app: Celery, job: JobRecord, unit: Unit, since: int = 0, countdown: float = 0) -> Signature[Any]:
    """The message of a lane of a batch's requests on their way through the Messages API."""
    step = _step(app, job, "send_messages", unit.job_id, unit.batch, unit.lane, max(since, 0))
    return step.set(**_later(app, countdown))


def beginning(app: Celery, job: JobRecord, job_id: str, countdown: float = 0) -> Signature[Any]:
    """The message a job begins with, as the caller sent it."""
    signature = app.signature(NAME + "run_batch", kwargs={"job_id": job_id}, immutable=True)
    return signature.set(task_id=job_id, **routed(job.queue), **_canvas(job), **_later(app, countdown))


def restoring(app: Celery, job: JobRecord, job_id: str) -> Signature[Any]:
    """The message of fetching again what the store has lost of a job's results."""
    signature = app.signature(NAME + "recover_jobs", kwargs={"job_id": job_id}, immutable=True)
    return signature.set(**{"ignore_result": False, **routed(job.queue)})


def routed(queue: str | None) -> dict[str, Any]:
    """The options of ``apply_async`` that send a job's task to the job's queue."""
    return {"queue": queue} if queue else {}


def hop(app: Celery, wait: float) -> float:
    """The countdown a message may carry when the wait is this long: a part of it where the broker could not hold it."""
    seconds = min(wait, policy.longest_hop(visibility_timeout(app)))
    if broker_counts(app):
        # RabbitMQ's native delay counts in whole seconds and refuses a countdown between 0 and 1.
        return max(math.ceil(seconds), 1)
    return round(seconds, 2)


def broker_counts(app: Celery) -> bool:
    """Whether the broker may wait for what is left of a countdown by itself: RabbitMQ."""
    return urlsplit(str(app.conf.broker_url)).scheme in ("amqp", "amqps", "pyamqp", "librabbitmq")


def stays(app: Celery, wait: float) -> bool:
    """Whether a wait is spent in the store: it is long enough, or the broker could not hold it."""
    return wait > min(policy.LONGEST_IN_BROKER, policy.longest_hop(visibility_timeout(app)))


def _step(app: Celery, job: JobRecord, name: str, *args: Any) -> Signature[Any]:
    return app.signature(NAME + name, args=args, immutable=True).set(**routed(job.queue))


def _later(app: Celery, countdown: float) -> dict[str, Any]:
    return {"countdown": hop(app, countdown)} if countdown > 0 else {}


def _canvas(job: JobRecord) -> dict[str, Any]:
    placed: dict[str, Any] = json.loads(job.canvas)
    return placed
