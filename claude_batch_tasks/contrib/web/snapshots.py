"""What the progress page shows, read once for all who view the same."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from claude_batch_tasks.contrib.web.markup import Markup
from claude_batch_tasks.steady import monotonic_now

#: Seconds between two reads of the same, at least and at most.
_SHORTEST, _LONGEST = 2.0, 60.0

#: How often the time that a read took is waited before the next one: a large job is read less often.
_REST = 10

#: How many views are remembered.
_VIEWS = 100

#: Threads that read the store, in each process.
_THREADS = 4


class View(NamedTuple):
    """What somebody wants to see: the list of jobs, or one job."""

    job_id: str | None = None
    text: str = ""
    """What is searched for: the beginning of a job's id, or a part of a label."""
    phase: str = ""
    before: str = ""
    """Only jobs that were submitted before that moment, in epoch seconds."""
    batches: int = 1
    history: int = 1
    """The number of the page of batches, and of events."""


class Snapshot(NamedTuple):
    """A view as it was at a moment."""

    title: str
    content: Markup
    status: int = 200
    """The HTTP status that it is sent with."""
    live: bool = False
    """Whether it may change."""
    trouble: str | None = None
    """Why there is nothing to show now."""


class _Read:
    """One read of a view, running or finished."""

    __slots__ = ("due", "future")

    def __init__(self) -> None:
        self.future: Future[tuple[Snapshot, float]] = Future()
        self.due: float | None = None
        """From when on the view is read again; None: the read still runs."""


class Snapshots:
    """The latest snapshot of each view. However many ask, the store is asked once in a while for each view.

    Args:
        read: returns a snapshot from the store.
    """

    def __init__(self, read: Callable[[View], Snapshot]) -> None:
        self._read = read
        self._set_up()

    def _set_up(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._reads: dict[View, _Read] = {}
        self._pool = ThreadPoolExecutor(_THREADS, "claude-batch-progress")

    def ask_view(self, view: View) -> Future[tuple[Snapshot, float]]:
        """Return the latest snapshot, and for how many seconds it stays the latest."""
        if os.getpid() != self._pid:
            self._set_up()  # after a fork there are no threads, and the lock may be held for ever
        with self._lock:
            found = self._reads.pop(view, None)
            if found is None or (found.due is not None and found.due <= monotonic_now()):
                found = _Read()
                self._pool.submit(self._run, view, found)
            self._reads[view] = found  # the last in the order
            for old in list(self._reads)[:-_VIEWS]:
                del self._reads[old]
            return found.future

    def _run(self, view: View, read: _Read) -> None:
        begun = monotonic_now()
        try:
            snapshot = self._read(view)
        except BaseException as exc:  # noqa: BLE001 - who asked raises it
            read.due = monotonic_now()
            read.future.set_exception(exc)
            return
        now = monotonic_now()
        pause = min(max(_SHORTEST, _REST * (now - begun)), _LONGEST)
        read.due = now + pause
        read.future.set_result((snapshot, pause))
