"""A project that writes down how its tasks, and a job's, begin and end."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

from celery import Celery, Task
from celery.signals import (
    task_failure,
    task_internal_error,
    task_postrun,
    task_prerun,
    task_revoked,
    task_success,
)
from kombu.exceptions import OperationalError

from tests.integration.rig import HEARD, RAN

app = Celery("ending", broker=os.environ.get("CELERY_BROKER_URL"), backend=os.environ.get("CELERY_RESULT_BACKEND"))
app.conf.update(json.loads(os.environ.get("ENDING_CONF", "{}")), include=["claude_batch_tasks.tasks"])
for _name, _value in os.environ.items():
    if _name.startswith("CLAUDE_BATCH_"):
        app.conf[_name.lower()] = _value


@app.task(name="ending.plain", bind=True)
def plain(self: Task[Any, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """What a plain task would have done."""
    return {"state": "completed"}


@app.task(name="ending.failing")
def failing(*args: Any) -> None:
    """A plain task that fails."""
    raise ValueError("no")


@app.task(name="ending.add")
def add(summary: Any, more: int) -> int:
    """Follows a task; it takes one argument more."""
    return more


class Unreachable(Task):  # type: ignore[type-arg]
    """Cannot be sent for a while, as if the broker were away: ``ENDING_OUTAGE`` says why, and how often."""

    abstract = True

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Send it when it can be."""
        error, _, times = os.environ.get("ENDING_OUTAGE", "::0").partition("::")
        if app.backend.client.incr("ending:tries") <= int(times):
            raise {"OperationalError": OperationalError, "OSError": OSError, "RuntimeError": RuntimeError}[error](
                "away"
            )
        return super().apply_async(*args, **options)


@app.task(name="ending.last", base=Unreachable)
def last(*args: Any) -> str:
    """Follows a task, when it can be sent."""
    return "last"


@app.task(name="ending.follow")
def follow(*args: Any, **kwargs: Any) -> str:
    """Follows a task, or is linked to it."""
    return "followed"


@app.task(name="ending.narrow", shared=False)
def narrow(job_id: str) -> None:
    """Takes too little to be called with results; only this app knows it."""


@app.task(name="ending.told")
def told(task_id: str) -> None:
    """Linked to a failure: Celery sends it, having one argument."""


@app.task(name="ending.save")
def save(job_id: str, ids: list[str], *own: Any) -> None:
    """Called with results."""
    app.backend.client.rpush("ending:saved", json.dumps([job_id, ids, *own]))


def _hear(name: str, signal: Any) -> None:
    def heard(sender: Any = None, task_id: str | None = None, **more: Any) -> None:
        request = more.get("request") or getattr(sender, "request", None)
        task_id = task_id or getattr(request, "id", None)
        exc = more.get("exception")
        entry = [
            name,
            str(getattr(sender, "name", sender)),
            task_id,
            [os.getpid(), threading.get_ident()],
            time.time(),
            str(more.get("state") or (exc is not None and type(exc).__name__) or ""),
        ]
        app.backend.client.rpush(HEARD, json.dumps(entry))

    signal.connect(heard, weak=False)


for _name, _signal in (
    ("prerun", task_prerun),
    ("postrun", task_postrun),
    ("success", task_success),
    ("failure", task_failure),
    ("internal", task_internal_error),
    ("revoked", task_revoked),
):
    _hear(_name, _signal)


@task_prerun.connect
def _note(task: Any = None, **_: Any) -> None:
    """Write down what a task's message says of it."""
    request = task.request
    stamps = {name: getattr(request, name, None) for name in request.stamped_headers or ()}
    entry = {
        "task": request.task,
        "id": request.id,
        "shadow": request.shadow,
        "expires": request.expires,
        "root": request.root_id,
        "parent": request.parent_id,
        "stamps": request.stamps or stamps,
        "stamped": request.stamped_headers,
        "reply_to": request.reply_to,
        "ignore_result": request.ignore_result,
        "argsrepr": request.argsrepr,
        "kwargsrepr": request.kwargsrepr,
        "nesting": request.replaced_task_nesting,
    }
    app.backend.client.rpush(RAN, json.dumps(entry, default=str))


@app.task(name="ending.replacing", bind=True)
def replacing(self: Task[Any, Any], ours: bool) -> Any:
    """Replaced by another task."""
    from claude_batch_tasks import run_batch
    from tests.integration.rig import requests

    raise self.replace(run_batch.s(requests("replaced", 2)) if ours else plain.s())
