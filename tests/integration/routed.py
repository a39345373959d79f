"""A project whose tasks are routed, and tell which message they got."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from celery import Celery, Task
from celery.signals import before_task_publish, task_postrun, task_prerun
from kombu import Exchange, Queue

from claude_batch_tasks import transport
from tests.support import is_worker

#: Where the messages that were run are written down: task, delivery information, headers, when it was run.
GOT = "routed:got"


def topic(name: str) -> Queue:
    """A queue that takes a part of what an exchange gets."""
    return Queue(name, Exchange(name, type="topic"), routing_key="claude.#", max_priority=9)


transport.install()
app = Celery("routed", broker=os.environ.get("CELERY_BROKER_URL"), backend=os.environ.get("CELERY_RESULT_BACKEND"))
app.conf.update(json.loads(os.environ.get("ROUTED_CONF", "{}")), include=["claude_batch_tasks.tasks"])
for name, value in os.environ.items():
    if name.startswith("CLAUDE_BATCH_"):
        app.conf[name.lower()] = value
if name := os.environ.get("ROUTED_TOPIC"):
    app.conf.task_queues = [topic(name)]


if folder := os.environ.get("ROUTED_SECURITY"):
    app.conf.update(
        security_key=f"{folder}/key", security_certificate=f"{folder}/cert", security_cert_store=f"{folder}/cert"
    )
    app.setup_security()


@app.task(name="routed.plain", bind=True)
def plain(self: Task[Any, Any], *args: Any, **kwargs: Any) -> str:
    """What a plain task would have done."""
    return "plain"


@app.task(name="routed.save")
def save(*args: Any) -> None:
    """Called with results."""


@app.task(name="routed.linked")
def linked(*args: Any, **kwargs: Any) -> str:
    """Follows a job, or is linked to it."""
    return "linked"


@app.task(name="routed.told")
def told(task_id: str) -> None:
    """Linked to a failure: Celery sends it, having one argument."""


class Tenants:
    """A tenant for each task, as packages for them have it: what is published gets the one that is current."""

    current = "public"

    @classmethod
    def enter(cls, task: Any = None, **_: Any) -> None:
        """Make the tenant of a task's message the current one."""
        cls.current = getattr(task.request, "_schema_name", "public")

    @classmethod
    def leave(cls, **_: Any) -> None:
        """Make none the current one."""
        cls.current = "public"

    @classmethod
    def mark(cls, headers: Any = None, **_: Any) -> None:
        """Write the current tenant onto a message."""
        headers["_schema_name"] = cls.current


if os.environ.get("ROUTED_TENANTS"):
    task_prerun.connect(Tenants.enter)
    task_postrun.connect(Tenants.leave)
    before_task_publish.connect(Tenants.mark)


def note(task: Any = None, **_: Any) -> None:
    """Write a message down."""
    request = task.request
    if not request.is_eager:
        entry = [str(request.task), dict(request.delivery_info or {}), dict(request.headers or {}), time.time()]
        app.backend.client.rpush(GOT, json.dumps(entry, default=str))


if is_worker():
    task_prerun.connect(note)
