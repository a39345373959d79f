"""The chain of a batch: the position of each message in it, and how the remaining messages are published.

A position is a number: where a message stands in the life of its unit. Each step of a batch carries the rest of its
chain as a Celery chain. A chain can begin at any position, so a message that the broker lost can be sent again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Protocol
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

#: The header with the seconds for which a step's message must wait.
COUNTDOWN = "claude_batch_countdown"

#: The steps of one generation; a step's number is its index here.
_TURN = ("create_batch", "poll_batch", "fetch_results", "fall_back")
_STRIDE = 1_000_000

#: The position of a batch or a sender that has finished.
DONE = 10**15

#: The position of a job whose result Celery has stored.
ENDED = 1

#: The options of ``apply_async`` that belong to the job, and so to its last task, with their names in a request: its
#: place in the caller's canvas, and how it is reported.
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


class Placed(Protocol):
    """What has a place in the caller's canvas: a job, or an ask."""

    canvas: str


#: Default values, which are left out.
_ABSENT: tuple[Any, ...] = (None, [], ())


def position_of(turn: int, rank: int, seq: int = 0) -> int:
    """Return the position of a step's message: of a generation, a step in it, and a message of that step."""
    return (turn * len(_TURN) + rank) * _STRIDE + seq


def encode_canvas(of: Mapping[str, Any] | Any) -> str:
    """Return the canvas of ``run_batch`` as JSON, from the options it is sent with or from the request it arrives as.

    Raises:
        TypeError: the canvas holds an argument that JSON cannot carry.
    """
    options = of if isinstance(of, Mapping) else options_of_request(of)
    names = [*_CANVAS, *(options.get("stamped_headers") or ())]
    found = {name: options[name] for name in names if options.get(name) not in _ABSENT}
    if not found.get("ignore_result"):
        found.pop("ignore_result", None)
    return json.dumps(found)


def add_parent(job: Placed, headers: Mapping[str, Any]) -> str:
    """Return a job's canvas with the task inside which it was submitted, as the headers of its message name that."""
    found = {name: headers[name] for name in ("root_id", "parent_id") if headers.get(name) not in (None, headers["id"])}
    return json.dumps({**found, **_decode_canvas(job)})


def options_of_request(request: Any) -> dict[str, Any]:
    """Return the options of ``apply_async`` that gave a task its place in the caller's canvas."""
    return {name: getattr(request, theirs, None) for name, theirs in _CANVAS.items()} | (request.stamps or {})


def stamp_options(job: Placed) -> dict[str, Any]:
    """Return the options of ``apply_async`` that give a message the job's stamps."""
    placed = _decode_canvas(job)
    names = placed.get("stamped_headers") or []
    return {"stamped_headers": names, **{name: placed[name] for name in names if name in placed}} if names else {}


def ignores_result(job: Placed) -> bool:
    """Return whether nothing may be stored under the job's id (``ignore_result=True``)."""
    return bool(_decode_canvas(job).get("ignore_result"))


def make_steps(
    app: Celery, job_id: str, job: JobRecord, batch: int, *, since: int = 0, turn: int = 0, countdown: float = 0
) -> list[Signature[Any]]:
    """Return the messages of a batch's chain from a position on; the last is ``finish_job`` under the job's own id.

    Args:
        since: the position; -1 or 0 for a batch that was not begun.
        countdown: seconds before the first message is due.
    """
    signatures = []
    if since < DONE:
        turn, rank = divmod(max(since, 0) // _STRIDE, len(_TURN))
        for number, name in enumerate(_TURN[rank:]):
            seq = 0 if number else max(since, 0) % _STRIDE
            signatures.append(_make_step(app, job, name, job_id, batch, turn, seq))
    # In logs and in Flower, the last link is the task that the caller began: it has the same id there.
    finish = _make_step(app, job, "finish_job", job_id).set(task_id=job_id, shadow=NAME + "run_batch")
    signatures.append(finish.set(**{name: value for name, value in _decode_canvas(job).items() if name != "chain"}))
    signatures[0].set(**_countdown_option(app, countdown))
    return signatures


def publish_chain(
    job: JobRecord, job_id: str, signatures: list[Signature[Any]], *, task_id: str | None = None, **options: Any
) -> None:
    """Publish the first message of a chain; it carries the rest, and what follows the job in the caller's chain.

    Args:
        task_id: the id of a waiting task that continues.
        options: more options of ``apply_async``.
    """
    first, *rest = signatures
    placed = _decode_canvas(job)
    following = [
        *placed.get("chain", []),
        *({**step, "options": routing.make_portable(step.options)} for step in reversed(rest)),
    ]
    if task_id:
        options |= {"task_id": task_id, "retries": first.args[-1]}
    options = {**message_headers.headers_option(job), **options}
    first.apply_async(chain=following, root_id=placed.get("root_id") or job_id, **options)


def options_of_next(app: Celery, job: JobRecord, following: Signature[Any]) -> dict[str, Any]:
    """Return the options that send the next message of a chain where the job's messages go."""
    route = routing.follow_route(app, job, str(following.task), following.args)
    return {**message_headers.headers_option(job), **route}


def run_steps(job: JobRecord, lines: list[list[Signature[Any]]]) -> None:
    """Run a job's chains in this process, one after the other, up to the job's end."""
    for step in (step for steps in lines for step in steps):
        step.set(**message_headers.headers_option(job))
    for steps in lines:
        # Without the job's end: if a step begins another generation, Celery leaves out the steps that follow it here.
        run_in_process(steps)


def run_in_process(signatures: list[Signature[Any]]) -> None:
    """Run a batch's chain in this process, up to the job's end."""
    with allow_join_result():
        chain(*signatures[:-1]).apply()


def run_eagerly(job: JobRecord, lines: list[list[Signature[Any]]]) -> Any:
    """Run a job's chains and its end in this process; return what the very last task returns."""
    run_steps(job, lines)
    following = [Signature.from_dict(task) for task in reversed(_decode_canvas(job).get("chain", []))]
    with allow_join_result():
        return chain(lines[-1][-1], *following).apply().get()


def make_sender_message(
    app: Celery, job: JobRecord, unit: Unit, since: int = 0, countdown: float = 0
) -> Signature[Any]:
    """Return the message of a sender, which sends requests of a batch through the Messages API."""
    step = _make_step(app, job, "send_messages", unit.job_id, unit.batch, unit.lane, max(since, 0))
    return step.set(**message_headers.headers_option(job), **_countdown_option(app, countdown))


def make_first_message(app: Celery, job: JobRecord, job_id: str, countdown: float = 0) -> Signature[Any]:
    """Return the first message of a job, as the caller sent it."""
    signature = app.signature(NAME + "run_batch", kwargs={"job_id": job_id}, immutable=True)
    if job.expires_at is not None:
        signature.set(expires=datetime.fromtimestamp(job.expires_at, timezone.utc))
    return signature.set(
        task_id=job_id,
        **message_headers.headers_option(job),
        **routing.follow_route(app, job, NAME + "run_batch"),
        **_decode_canvas(job),
        **_countdown_option(app, countdown),
    )


def make_recovery_message(app: Celery, job: JobRecord, job_id: str) -> Signature[Any]:
    """Return the message that has lost results of a job fetched again."""
    signature = app.signature(NAME + "recover_jobs", kwargs={"job_id": job_id}, immutable=True)
    return signature.set(
        **{
            "ignore_result": False,
            **message_headers.headers_option(job),
            **routing.follow_route(app, job, NAME + "recover_jobs"),
        }
    )


def limit_countdown(app: Celery, wait: float) -> float:
    """Return the countdown for a message that waits this long: only a part of it if the broker could not hold it."""
    seconds = min(wait, rules.longest_countdown(visibility_timeout(app)))
    if broker_counts(app):
        # RabbitMQ's native delay counts in whole seconds and refuses a countdown between 0 and 1.
        return max(math.ceil(seconds), 1)
    return round(seconds, 2)


def broker_counts(app: Celery) -> bool:
    """Return whether the broker itself may wait for the rest of a countdown: RabbitMQ."""
    return urlsplit(str(app.conf.broker_url)).scheme in ("amqp", "amqps", "pyamqp", "librabbitmq")


def waits_in_store(app: Celery, wait: float) -> bool:
    """Return whether a unit spends a wait in the store: the wait is long enough, or the broker could not hold it."""
    return wait > min(rules.LONGEST_IN_BROKER, rules.longest_countdown(visibility_timeout(app)))


def request_of(job: Placed, job_id: str, task: str = NAME + "run_batch") -> Context:
    """Return Celery's view of the task that stands for the job, while none of the job's messages is at hand.

    Args:
        task: the name of that task.
    """
    placed = _decode_canvas(job)
    known = {theirs: placed.get(ours) for ours, theirs in _CANVAS.items()}
    return Context({**known, "id": job_id, "task": task, "root_id": placed.get("root_id") or job_id})


def _make_step(app: Celery, job: JobRecord, name: str, *args: Any) -> Signature[Any]:
    return app.signature(NAME + name, args=args, immutable=True).set(
        **routing.follow_route(app, job, NAME + name, args)
    )


def _countdown_option(app: Celery, countdown: float) -> dict[str, Any]:
    return {"countdown": limit_countdown(app, countdown)} if countdown > 0 else {}


def _decode_canvas(job: Placed) -> dict[str, Any]:
    placed: dict[str, Any] = json.loads(job.canvas)
    return placed
