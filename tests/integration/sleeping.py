"""The ready-made app, in which a pool process that is at a certain place falls asleep there, once.

A place is the alias of the client whose job gets there. The folder ``SLEEPS`` has the process id of each that sleeps,
in a file that is named like the place.
"""

from __future__ import annotations

import copy
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from claude_batch_tasks import api
from claude_batch_tasks.api import body_limits
from claude_batch_tasks.app import app
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.steps.step import Step

__all__ = ["app"]

#: Before the first part of a body, in the middle of it, before its last part, when its sender has proved that it is its
#: own, and when it has sent all of it; likewise of a call of the Messages API.
CREATES = ("first", "middle", "last", "proved", "unanswered")
CALLS = ("taken", "taken_stream", "call_proved", "call_unanswered")

_body, _create_message, _confirm_lease = submission.read_body, api.create_message, Step.confirm_lease
_parts = body_limits._Confirmed.__iter__
_sending = threading.local()


def sleep(place: str) -> None:
    """Fall asleep, unless somebody did so there before."""
    file = Path(os.environ["SLEEPS"], place)
    try:
        with open(file, "x") as out:
            out.write(f"{os.getpid()}\n")
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(0.1)  # a signal to oneself may take a moment


def body(store: Any, job_id: str, job: Any, batch: int, record: Any) -> Iterator[bytes]:
    parts = list(_body(store, job_id, job, batch, record))
    for number, part in enumerate(parts):
        if job.client == {0: "first", 1: "middle", len(parts) - 1: "last"}.get(number):
            sleep(job.client)
        yield part


def create_message(client: Any, params: bytes, **more: Any) -> Any:
    for place in ("taken", "taken_stream"):
        if f'"{place} 0"'.encode() in params:
            sleep(place)
    return _create_message(client, params, **more)


def confirm_lease(step: Any, place: int | None = None) -> None:
    store, name = step.store, "proved" if place is None else "call_proved"
    if step.job.client == name:
        # Not the store's own methods, which other threads use as well.
        step.store = copy.copy(store)
        step.store.leases = _Sleepy(store.leases, name)
        step.store.message_queue = _Sleepy(store.message_queue, name)
    try:
        _confirm_lease(step, place)
    finally:
        step.store = store
    _sending.name = step.job.client


def parts_of(confirmed: Any) -> Iterator[bytes]:
    yield from _parts(confirmed)
    if _sending.name == ("unanswered" if confirmed._call.endpoint == "create" else "call_unanswered"):
        sleep(_sending.name)


class _Sleepy:
    """A part of a store that answers whose a lease is, upon which the process sleeps."""

    def __init__(self, part: Any, place: str) -> None:
        self._part, self._place = part, place

    def renew_lease(self, *args: Any) -> bool:
        held = bool(self._part.renew_lease(*args))
        sleep(self._place)
        return held

    def confirm_request(self, *args: Any) -> bool:
        held = bool(self._part.confirm_request(*args))
        sleep(self._place)
        return held

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)


if "SLEEPS" in os.environ:  # a worker; who starts it imports this too
    submission.read_body, api.create_message = body, create_message
    Step.confirm_lease, body_limits._Confirmed.__iter__ = confirm_lease, parts_of  # type: ignore[method-assign]
