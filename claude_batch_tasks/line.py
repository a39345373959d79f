"""The line a batch goes through: where each message stands in it, and how what is left of it is published.

A position is a number: the place of a message in the life of its unit. The steps of a batch carry the rest of their
line as a Celery chain; a line can be begun at any position, so a message that the broker lost can be sent again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from celery import Celery, chain
from celery.canvas import Signature
from kombu.utils import json

from claude_batch_tasks import policy
from claude_batch_tasks.settings import Settings, visibility_timeout
from claude_batch_tasks.store import JobRecord, Unit

NAME = "claude_batch_tasks."

#: What a new turn goes through again; a step's rank is its place here.
_TURN = ("create_batch", "poll_batch", "fetch_results")
_STRIDE = 1_000_000
FALL_BACK = 10**15
DONE = 2 * FALL_BACK

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
    """Of a step's message: which turn, which of create, poll, fetch, and the message's own sequence number."""
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
        turn: the turn its record is at.
        countdown: seconds before the first is due.
    """
    since = max(since, 0)
    signatures = []
    if since >= FALL_BACK or since >= position(turn + 1, 0):
        if since < DONE:
            signatures.append(_step(app, job, "fall_back", job_id, batch, 0, max(since - FALL_BACK, 0)))
    else:
        turn, rank = divmod(since // _STRIDE, len(_TURN))
        for number, name in enumerate(_TURN[rank:]):
            signatures.append(_step(app, job, name, job_id, batch, turn, 0 if number else since % _STRIDE))
            if number and name == "poll_batch":
                signatures[-1].set(countdown=hop(app, Settings.of(app).override(job.options).poll_min))
        signatures.append(_step(app, job, "fall_back", job_id, batch))
    # To logs and Flower the last link is what the caller began: they know it by the same id.
    finish = _step(app, job, "finish_job", job_id).set(task_id=job_id, shadow=NAME + "run_batch")
    signatures.append(finish.set(**{name: value for name, value in _canvas(job).items() if name != "chain"}))
    signatures[0].set(**_later(app, countdown))
    return signatures


def publish(job: JobRecord, job_id: str, signatures: list[Signature[Any]]) -> None:
    """Send the first of a line's messages; it carries the rest, and what comes after the job in the caller's chain."""
    first, *rest = signatures
    placed = _canvas(job)
    following = [*placed.get("chain", []), *map(dict, reversed(rest))]
    first.apply_async(chain=following, root_id=placed.get("root_id") or job_id)


def run_eagerly(job: JobRecord, signatures: list[Signature[Any]]) -> Any:
    """Go through a line here and now; what its last task returns."""
    following = [Signature.from_dict(task) for task in reversed(_canvas(job).get("chain", []))]
    return chain(*signatures, *following).apply().get()


def message(app: Celery, job: JobRecord, unit: Unit, since: int = 0, countdown: float = 0) -> Signature[Any]:
    """The message of one request on its way through the Messages API."""
    step = _step(app, job, "create_message", unit.job_id, unit.batch, unit.place, max(since, 0))
    return step.set(**_later(app, countdown))


def beginning(app: Celery, job: JobRecord, job_id: str, countdown: float = 0) -> Signature[Any]:
    """The message a job begins with, as the caller sent it."""
    signature = app.signature(NAME + "run_batch", kwargs={"job_id": job_id}, immutable=True)
    return signature.set(task_id=job_id, **routed(job.queue), **_canvas(job), **_later(app, countdown))


def routed(queue: str | None) -> dict[str, Any]:
    """The options of ``apply_async`` that send a job's task to the job's queue."""
    return {"queue": queue} if queue else {}


def hop(app: Celery, wait: float) -> float:
    """The countdown a message may carry when the wait is this long: a part of it where the broker could not hold it."""
    seconds = min(wait, policy.longest_hop(visibility_timeout(app)))
    if urlsplit(str(app.conf.broker_url)).scheme in ("amqp", "amqps", "pyamqp", "librabbitmq"):
        # RabbitMQ's native delay counts in whole seconds and refuses a countdown between 0 and 1.
        return max(math.ceil(seconds), 1)
    return round(seconds, 2)


def until(moment: float | None) -> float:
    """Seconds from now, none if it has passed."""
    return max((moment or 0) - time.time(), 0)


def _step(app: Celery, job: JobRecord, name: str, *args: Any) -> Signature[Any]:
    return app.signature(NAME + name, args=args, immutable=True).set(**routed(job.queue))


def _later(app: Celery, countdown: float) -> dict[str, Any]:
    return {"countdown": hop(app, countdown)} if countdown > 0 else {}


def _canvas(job: JobRecord) -> dict[str, Any]:
    placed: dict[str, Any] = json.loads(job.canvas)
    return placed
