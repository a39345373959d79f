"""The ready-made app, in which an exception can be raised at any boundary of a step: ``-A tests.integration.breaking``.

A boundary is a point of the chaos tests (before, after and in the middle of every call of the store, the API, the
broker and the result back end), or one of those here: where a step's threads are started, where it writes to the log,
where its signals are sent, where Celery begins and ends it.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import threading
from typing import Any

import redis
from celery import Task, current_task
from celery.app import trace
from celery.backends.base import Backend
from celery.signals import task_postrun, task_prerun

from claude_batch_tasks import signals
from claude_batch_tasks.app import app
from claude_batch_tasks.steps.message_chain import NAME
from tests.chaos import points
from tests.integration.breaks import KINDS, PLANS, SEEN

_TAKE = """
redis.call('SADD', KEYS[2], ARGV[2])
local plan = redis.call('HGET', KEYS[1], ARGV[1])
if not plan then
  return ''
end
local point, kind, times = string.match(plan, '^(.*)|(.*)|(.*)$')
if point ~= ARGV[2] or tonumber(times) < 1 then
  return ''
end
redis.call('HSET', KEYS[1], ARGV[1], point .. '|' .. kind .. '|' .. (tonumber(times) - 1))
return kind
"""


class Breaks(points.Points):
    """Points at which an exception is raised in a job's steps, as its plan says."""

    def passed(self, what: str) -> None:
        who, job_id = self._who(), _job_id()
        if who is None or job_id is None:
            return
        kind = _script(os.getpid())(keys=[PLANS, SEEN], args=[job_id, f"{who}: {what}"]).decode()
        if kind == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind:
            raise KINDS[kind](f"{what} was broken off")


@functools.cache
def _script(pid: int) -> Any:
    client = redis.Redis.from_url(os.environ["CELERY_BROKER_URL"])
    return client.register_script(_TAKE)


def _job_id() -> str | None:
    if not current_task:
        return None
    request = current_task.request
    found = request.kwargs.get("job_id") or (request.args[0] if request.args else None)
    return found if isinstance(found, str) else None


_breaks = Breaks(os.environ["CELERY_BROKER_URL"])
_breaks.wrap_all()


class Handler(logging.Handler):
    """A log handler of the user's own."""

    def emit(self, record: logging.LogRecord) -> None:
        if "interrupted" not in record.getMessage():
            _breaks.passed("writing to the log")


logging.getLogger("claude_batch_tasks").addHandler(Handler())


def _around(owner: Any, name: str, what: str, only: Any = None) -> None:
    method = getattr(owner, name)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        if only is None or only(*args):
            _breaks.passed(f"before {what}")
        value = method(*args, **kwargs)
        if only is None or only(*args):
            _breaks.passed(f"after {what}")
        return value

    setattr(owner, name, call)


_around(threading.Thread, "start", "starting a thread", lambda thread: thread.name.startswith("claude-batch-lease"))
_around(Backend, "mark_as_done", "mark_as_done")
_around(Backend, "process_cleanup", "process_cleanup")
_around(Task, "on_success", "on_success")
_around(type(app.loader), "on_task_init", "on_task_init")
_around(type(app.loader), "on_process_cleanup", "on_process_cleanup")
trace.saferepr = lambda value, *args, _saferepr=trace.saferepr: (_breaks.passed("saferepr"), _saferepr(value))[1]


def _of_ours(sender: Any = None, **_: Any) -> None:
    if str(getattr(sender, "name", "")).startswith(NAME):
        _breaks.passed("a signal's receiver")


for _signal in (signals.batch_created, signals.batch_ended, signals.results_published, signals.job_finished):
    _signal.connect(_of_ours)
task_prerun.connect(_of_ours)
task_postrun.connect(_of_ours)
