"""The line a batch goes through: where each message stands in it, and how what is left of it is published.

A position is a number: the place of a message in the life of its unit. The steps of a batch carry the rest of their
line as a Celery chain; a line can be begun at any position, so a message that the broker lost can be sent again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from celery import Celery, chain
from celery.app.task import Context
from celery.canvas import Signature
from celery.result import allow_join_result
from kombu.utils import json

from claude_batch_tasks import rules
from claude_batch_tasks.records import JobRecord, Unit
from claude_batch_tasks.settings import visibility_timeout
from claude_batch_tasks.steps import message_headers, routing

NAME = "claude_batch_tasks."

#: What a turn goes through; a step's rank is its place here.
_TURN = ("create_batch", "poll_batch", "fetch_results", "fall_back")
_STRIDE = 1_000_000

#: The position of a batch or a lane that is through.
DONE = 10**15

#: The position of a job whose result Celery has stored.
ENDED = 1

#: What of the options of ``apply_async`` is the job's, and so its last task's, by what a request calls it: its place in
#: the caller's canvas, and what is told of it.
_CANVAS = {
    "link": "callbacks",
    "link_error": "errbacks",
    "chain": "chain",
    "chord": "chord",
    "group_id": "group",
    "group_index": "group_index",
    "root_id": "root_id",
    "parent_id": "parent_id",
    "shadow": "shadow",
    "ignore_result": "ignore_result",
    "stamped_headers": "stamped_headers",
    "reply_to": "reply_to",
}

#: What of these is left out: the default.
_ABSENT: tuple[Any, ...] = (None, [], ())


def position(turn: int, rank: int, seq: int = 0) -> int:
    """Of a step's message: which turn, which of its steps, and the message's own sequence number."""
    return (turn * len(_TURN) + rank) * _STRIDE + seq


def canvas(of: Mapping[str, Any] | Any) -> str:
    """The canvas of ``run_batch`` from the options it is sent with, or from the request it arrives as; JSON.

    Raises:
        TypeError: an argument in it that JSON cannot carry.
    """
    if isinstance(of, Mapping):
        options = of
    else:
        options = {name: getattr(of, theirs, None) for name, theirs in _CANVAS.items()} | (of.stamps or {})
    names = [*_CANVAS, *(options.get("stamped_headers") or ())]
    found = {name: options[name] for name in names if options.get(name) not in _ABSENT}
    if not found.get("ignore_result"):
        found.pop("ignore_result", None)
    return json.dumps(found)


def stamps(job: JobRecord) -> dict[str, Any]:
    """Return the options of ``apply_async`` that give a message the job's stamps."""
    placed = _canvas(job)
    names = placed.get("stamped_headers") or []
    return {"stamped_headers": names, **{name: placed[name] for name in names if name in placed}} if names else {}


def ignores_result(job: JobRecord) -> bool:
    """Return whether nothing is to be stored under the job's id: ``ignore_result=True``."""
    return bool(_canvas(job).get("ignore_result"))


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
    following = [
        *placed.get("chain", []),
        *({**step, "options": routing.portable(step.options)} for step in reversed(rest)),
    ]
    if task_id:
        options |= {"task_id": task_id, "retries": first.args[-1]}
    options = {**message_headers.option(job), **options}
    first.apply_async(chain=following, root_id=placed.get("root_id") or job_id, **options)


def run_steps(job: JobRecord, lines: list[list[Signature[Any]]]) -> None:
    """Go through a job's lines here and now, one after the other, up to the job's end."""
    for step in (step for steps in lines for step in steps):
        step.set(**message_headers.option(job))
    with allow_join_result():
        for steps in lines:
            # Apart from the job's end: where a step begins another turn, Celery leaves out what follows it here.
            chain(*steps[:-1]).apply()


def run_eagerly(job: JobRecord, lines: list[list[Signature[Any]]]) -> Any:
    """Go through a job's lines here and now, and through its end; return what the last of all tasks does."""
    run_steps(job, lines)
    following = [Signature.from_dict(task) for task in reversed(_canvas(job).get("chain", []))]
    with allow_join_result():
        return chain(lines[-1][-1], *following).apply().get()


def message(app: Celery, job: JobRecord, unit: Unit, since: int = 0, countdown: float = 0) -> Signature[Any]:
    """The message of a lane of a batch's requests on their way through the Messages API."""
    step = _step(app, job, "send_messages", unit.job_id, unit.batch, unit.lane, max(since, 0))
    return step.set(**message_headers.option(job), **_later(app, countdown))


def beginning(app: Celery, job: JobRecord, job_id: str, countdown: float = 0) -> Signature[Any]:
    """The message a job begins with, as the caller sent it."""
    signature = app.signature(NAME + "run_batch", kwargs={"job_id": job_id}, immutable=True)
    if job.expires_at is not None:
        signature.set(expires=datetime.fromtimestamp(job.expires_at, timezone.utc))
    return signature.set(
        task_id=job_id,
        **message_headers.option(job),
        **routing.follow(app, job, NAME + "run_batch"),
        **_canvas(job),
        **_later(app, countdown),
    )


def restoring(app: Celery, job: JobRecord, job_id: str) -> Signature[Any]:
    """The message of fetching again what the store has lost of a job's results."""
    signature = app.signature(NAME + "recover_jobs", kwargs={"job_id": job_id}, immutable=True)
    return signature.set(
        **{"ignore_result": False, **message_headers.option(job), **routing.follow(app, job, NAME + "recover_jobs")}
    )


def hop(app: Celery, wait: float) -> float:
    """The countdown a message may carry when the wait is this long: a part of it where the broker could not hold it."""
    seconds = min(wait, rules.longest_hop(visibility_timeout(app)))
    if broker_counts(app):
        # RabbitMQ's native delay counts in whole seconds and refuses a countdown between 0 and 1.
        return max(math.ceil(seconds), 1)
    return round(seconds, 2)


def broker_counts(app: Celery) -> bool:
    """Whether the broker may wait for what is left of a countdown by itself: RabbitMQ."""
    return urlsplit(str(app.conf.broker_url)).scheme in ("amqp", "amqps", "pyamqp", "librabbitmq")


def stays(app: Celery, wait: float) -> bool:
    """Whether a wait is spent in the store: it is long enough, or the broker could not hold it."""
    return wait > min(rules.LONGEST_IN_BROKER, rules.longest_hop(visibility_timeout(app)))


def request_of(job: JobRecord, job_id: str) -> Context:
    """Return what Celery knows of the task that stands for the job, while none of its messages is at hand."""
    placed = _canvas(job)
    known = {theirs: placed.get(ours) for ours, theirs in _CANVAS.items()}
    return Context({**known, "id": job_id, "task": NAME + "run_batch", "root_id": placed.get("root_id") or job_id})


def _step(app: Celery, job: JobRecord, name: str, *args: Any) -> Signature[Any]:
    return app.signature(NAME + name, args=args, immutable=True).set(**routing.follow(app, job, NAME + name, args))


def _later(app: Celery, countdown: float) -> dict[str, Any]:
    return {"countdown": hop(app, countdown)} if countdown > 0 else {}


def _canvas(job: JobRecord) -> dict[str, Any]:
    placed: dict[str, Any] = json.loads(job.canvas)
    return placed
