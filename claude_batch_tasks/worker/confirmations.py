"""What a worker does when a task ends that is a call of a job's ``on_result``: it records how, and nothing else.

Celery's signals report the end. Whatever happens here, the application's task ends as it does without this package.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from celery import Celery, signals

from claude_batch_tasks import errors, rules
from claude_batch_tasks.lifecycle import delivery
from claude_batch_tasks.lifecycle.delivery import tracking
from claude_batch_tasks.logs import get_logger

log = get_logger(__name__)

#: How many ends wait at most for a store that does not answer; with more, the oldest are forgotten: their requests
#: count as not confirmed.
_MOST = 10_000

#: Ends that are not recorded yet.
_waiting: deque[Callable[[], None]] = deque(maxlen=_MOST)
_lock = threading.Lock()
_recording = threading.Event()

#: Requests in the worker's main process by task id, as long as Celery has them: it does not say with every signal of
#: that process whose end it is.
_received: WeakValueDictionary[str, Any] = WeakValueDictionary()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _recording.clear()
    _waiting.clear()


os.register_at_fork(after_in_child=_after_fork)


def connect_signals() -> None:
    """Connect to the signals that report how a task ended."""
    signals.task_received.connect(remember_request)
    signals.task_success.connect(confirm_success)
    signals.task_failure.connect(confirm_failure)
    signals.task_retry.connect(note_retry)
    signals.task_revoked.connect(confirm_revoked)
    signals.task_unknown.connect(confirm_unknown)


def remember_request(request: Any = None, **_: Any) -> None:
    """Remember a request that a worker received, until it ends."""
    if request is not None and request.request_dict.get(delivery.HEADER):
        _received[request.id] = request


def confirm_success(sender: Any = None, **_: Any) -> None:
    """Record that a call of ``on_result``, or one of its tasks, ended well."""
    if tracked := _read_header(sender.request):
        app, task = sender.app, sender.name
        _record(lambda: delivery.record_success(app, tracked, task))


def confirm_failure(sender: Any = None, task_id: Any = None, exception: Any = None, **_: Any) -> None:
    """Record that a call of ``on_result`` failed permanently."""
    request = sender.request
    if request.id != task_id:  # in the main process, after a time limit
        received = _received.get(task_id)
        request = None if received is None else received._context
    if tracked := _read_header(request):
        _record_failure(sender.app, tracked, sender.name, exception)


def note_retry(sender: Any = None, request: Any = None, **_: Any) -> None:
    """Record that a call of ``on_result`` is tried again later."""
    if tracked := _read_header(request):
        app = sender.app
        _record(lambda: delivery.record_activity(app, tracked))


def confirm_revoked(sender: Any = None, request: Any = None, signum: Any = None, expired: Any = None, **_: Any) -> None:
    """Record that a call of ``on_result`` was revoked, or expired before a worker took it."""
    # Where signum is a text, the task was not revoked: a lost connection ended it, and its message comes back.
    if not isinstance(signum, str) and (tracked := _read_header(request)):
        _record_failure(sender.app, tracked, sender.name, "expired" if expired else "revoked")


def confirm_unknown(sender: Any = None, message: Any = None, name: Any = None, **_: Any) -> None:
    """Record that a worker threw a call of ``on_result`` away, because it does not know the task."""
    headers = getattr(message, "headers", None) or {}
    if headers.get(delivery.HEADER) and (tracked := tracking.decode_header(headers[delivery.HEADER])):
        _record_failure(sender.app, tracked, str(name), "NotRegistered")


def _read_header(request: Any) -> tracking.Tracked | None:
    header = None if request is None else tracking.find_header(request)
    return tracking.decode_header(header) if header else None


def _record_failure(app: Celery, tracked: tracking.Tracked, task: str, reason: Any) -> None:
    # The type alone: an exception that waits here would keep the frames of the task in memory.
    kind = reason if isinstance(reason, str) else type(reason).__name__
    _record(lambda: delivery.record_failure(app, tracked, task, kind))


def _record(work: Callable[[], None]) -> None:
    """Record an end now, or later in a thread, as long as this process lives, if the store does not answer."""
    if not _waiting and _try_recording(work):
        return
    with _lock:
        _waiting.append(work)
        if _recording.is_set():
            return
        _recording.set()
    try:
        threading.Thread(target=_record_waiting, name="claude-batch-confirmations", daemon=True).start()
    except RuntimeError:  # the process may start no thread: the next end tries again
        _recording.clear()


def _try_recording(work: Callable[[], None]) -> bool:
    """Record an end; return False if the store does not answer."""
    try:
        work()
    except errors.StoreUnavailable:
        return False
    except Exception:
        # The task's own end matters more: its requests count as not confirmed, and redeliver() hands them over again.
        log.exception("how a call of on_result ended was not recorded")
    return True


def _record_waiting() -> None:
    """Record what waits, until nothing does."""
    try:
        _record_all()
    except BaseException:  # no memory, a log handler that raises: the next end starts another thread
        _recording.clear()
        raise


def _record_all() -> None:
    pause = 0.5
    while True:
        with _lock:
            if not _waiting:
                _recording.clear()
                return
            work = _waiting[0]
        if _try_recording(work):
            with _lock:
                if _waiting and _waiting[0] is work:  # else it was the oldest of too many
                    _waiting.popleft()
        else:
            time.sleep(pause)
            pause = min(pause * 2, rules.OUTAGE_RETRY_MAX)
