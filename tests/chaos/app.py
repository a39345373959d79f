"""The ready-made app as these tests run it: ``celery -A tests.chaos.app worker``.

A broker that hands out a dead worker's messages after seconds, crash points in everything, and a task to be called
back.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import redis
from kombu.transport import redis as transport

from claude_batch_tasks import Answer, BatchJob
from claude_batch_tasks.app import app
from tests.chaos import points

app.conf.broker_transport_options = {
    **app.conf.broker_transport_options,
    "visibility_timeout": float(os.environ["CHAOS_VISIBILITY_TIMEOUT"]),
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}
app.conf.worker_soft_shutdown_timeout = 1.0

if not hasattr(transport.Channel, "unacked_restore_throttle"):
    # Before kombu 5.7 neither can be set: it looks every 10 s, and acts on every tenth look only.
    transport.QoS.restore_visible = functools.partialmethod(transport.QoS.restore_visible, interval=1)

points.install(os.environ["CHAOS_URL"])


@app.task(name="tests.chaos.note", ignore_result=True)
def note(key: str) -> None:
    """Count a call back."""
    redis.Redis.from_url(os.environ["CHAOS_URL"]).hincrby("chaos:notes", key, 1)


@app.task(name="tests.chaos.heard", ignore_result=True)
def heard(answer: Answer, key: str) -> None:
    """Note an ask's answer, as what follows the ask gets it."""
    redis.Redis.from_url(os.environ["CHAOS_URL"]).rpush(f"chaos:heard:{key}", answer.text)


@app.task(name="tests.chaos.failed", ignore_result=True)
def failed(key: str) -> None:
    """Note that an ask has failed."""
    redis.Redis.from_url(os.environ["CHAOS_URL"]).rpush(f"chaos:heard:{key}", "(failed)")


@app.task(name="tests.chaos.told", ignore_result=True)
def told(job_id: str, custom_ids: list[str], key: str) -> None:
    """Note that a job's results are final, and what they are."""
    found: dict[str, Any] = {row.custom_id: row for row in BatchJob(job_id, app).results(ids=custom_ids)}
    for custom_id in custom_ids:
        row = found.get(custom_id)
        value = f"{row.type} ({row.source})" if row else "nothing"
        redis.Redis.from_url(os.environ["CHAOS_URL"]).rpush(f"chaos:told:{key}", f"{custom_id}\n{value}")
