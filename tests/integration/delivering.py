"""An application whose ``on_result`` fails in all the ways in which a task can, as long as it is told to."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from celery import Task, shared_task

from claude_batch_tasks.app import app

#: Under what it finds what it is to do, and where it writes what it was called with.
MODE, SAVED, RUNS = "delivering:mode", "delivering:saved", "delivering:runs"


if "DELIVERING_VISIBILITY" in os.environ:  # a dead worker's messages come again after so many seconds
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options,
        "visibility_timeout": float(os.environ["DELIVERING_VISIBILITY"]),
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    }


def _saved(custom_ids: list[str]) -> None:
    app.backend.client.rpush(SAVED, json.dumps(custom_ids))


def _misbehave() -> None:
    """Do what the tests say."""
    mode = (app.backend.client.get(MODE) or b"").decode()
    app.backend.client.incr(RUNS)
    if mode == "raise":
        raise ValueError("the answer is SECRET")
    if mode == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "hang":
        time.sleep(60)


@shared_task(name="delivering.save", ignore_result=True, acks_late=False)
def save(job_id: str, custom_ids: list[str]) -> None:
    """Write answers down."""
    _misbehave()
    _saved(custom_ids)


@shared_task(name="delivering.save_late", acks_late=True, reject_on_worker_lost=True)
def save_late(job_id: str, custom_ids: list[str]) -> None:
    """Likewise; if the worker dies, another one does it."""
    _misbehave()
    _saved(custom_ids)


@shared_task(name="delivering.save_in_time", time_limit=1)
def save_in_time(job_id: str, custom_ids: list[str]) -> None:
    """Likewise, in a second."""
    _misbehave()
    _saved(custom_ids)


@shared_task(
    bind=True, name="delivering.save_again", autoretry_for=(ConnectionError,), max_retries=2, default_retry_delay=0
)
def save_again(self: Task[Any, Any], job_id: str, custom_ids: list[str], succeeds_at: int) -> None:
    """Likewise, at the third try, say."""
    if self.request.retries < succeeds_at:
        raise ConnectionError("the database is away")
    _saved(custom_ids)


@shared_task(name="delivering.parse")
def parse(job_id: str, custom_ids: list[str]) -> list[str]:
    """Hand on what is to be written."""
    return custom_ids


@shared_task(name="delivering.write")
def write(custom_ids: list[Any]) -> None:
    """Write what another task, or several, handed on."""
    _misbehave()
    _saved(custom_ids)


@shared_task(name="delivering.note")
def note(job_id: str, custom_ids: list[str]) -> None:
    """Do nothing."""


@shared_task(name="delivering.save_slowly", acks_late=True, reject_on_worker_lost=True)
def save_slowly(job_id: str, custom_ids: list[str]) -> None:
    """Write answers down one part after the other, so that a worker is killed in the middle of it."""
    for begin in range(0, len(custom_ids), 250):
        time.sleep(0.1)
        _saved(custom_ids[begin : begin + 250])


@shared_task(name="delivering.save_slowly_once", acks_late=False)
def save_slowly_once(job_id: str, custom_ids: list[str]) -> None:
    """Likewise, of a message that is lost with its worker."""
    save_slowly.run(job_id, custom_ids)


@shared_task(name="delivering.save_when_told")
def save_when_told(job_id: str, custom_ids: list[str]) -> None:
    """Write answers down as soon as the test says so."""
    while app.backend.client.get(MODE) != b"go":
        time.sleep(0.1)
    _saved(custom_ids)
