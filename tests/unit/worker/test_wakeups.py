"""What ends the pauses of a worker's threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace

import pytest
from celery import Celery

from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.steps import dispatch
from claude_batch_tasks.store.interface import WakeupListener
from claude_batch_tasks.worker.repeated_work import Work, keep_doing
from tests.support import wait_until


class Listener:
    """What became due is put into ``due``; an exception there is raised."""

    def __init__(self) -> None:
        self.due: queue.Queue[Exception | None] = queue.Queue()
        self.closed = 0

    def wait(self, seconds: float) -> bool:
        try:
            if exc := self.due.get(timeout=seconds):
                raise exc
        except queue.Empty:
            return False
        while not self.due.empty():
            self.due.get()
        return True

    @contextmanager
    def listen(self) -> Iterator[WakeupListener]:
        try:
            yield self
        finally:
            self.closed += 1


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Listener:
    listener = Listener()
    store = SimpleNamespace(wakeups=listener)
    monkeypatch.setattr(dispatch, "open_store", lambda _: store)
    return listener


@pytest.fixture
def over() -> Iterator[threading.Event]:
    over = threading.Event()
    yield over
    over.set()


def run_often(run: Callable[[], float], over: threading.Event, woken: threading.Event | None = None) -> None:
    keep_doing(Work("tests", run, "testing", lambda: None, woken=woken), over)


def test_work_is_done_when_something_becomes_due(app: Celery, listener: Listener, over: threading.Event) -> None:
    woken, done = threading.Event(), []
    run_often(lambda: done.append(1) or 600.0, over, woken)  # type: ignore[func-returns-value]
    run_often(lambda: dispatch.follow_wakeups(app, over, [woken]), over)
    wait_until(lambda: len(done) >= 2, 10)  # the second time because something may have been missed before
    for _ in range(3):
        before = len(done)
        listener.due.put(None)
        wait_until(lambda before=before: len(done) > before, 10)


def test_many_wake_ups_are_few(app: Celery, listener: Listener, over: threading.Event) -> None:
    woken, done = threading.Event(), []
    for _ in range(1000):
        listener.due.put(None)
    run_often(lambda: dispatch.follow_wakeups(app, over, [woken]), over)
    wait_until(woken.is_set, 10)
    run_often(lambda: done.append(1) or 600.0, over, woken)  # type: ignore[func-returns-value]
    wait_until(listener.due.empty, 10)
    listener.due.put(None)
    wait_until(listener.due.empty, 10)
    wait_until(lambda: len(done) >= 2, 10)
    assert len(done) <= 4


def test_work_ends_in_the_middle_of_its_pause(over: threading.Event) -> None:
    woken, ended = threading.Event(), threading.Event()
    keep_doing(Work("tests", lambda: 600.0, "testing", lambda: None, ended.set, woken), over)
    over.set()
    woken.set()
    assert ended.wait(10)


def test_the_listener_ends_with_the_worker(app: Celery, listener: Listener, over: threading.Event) -> None:
    following = threading.Thread(target=lambda: dispatch.follow_wakeups(app, over, []))
    following.start()
    over.set()
    following.join(10)
    assert not following.is_alive()
    assert listener.closed == 1


def test_a_listener_that_failed_is_opened_again(app: Celery, listener: Listener, over: threading.Event) -> None:
    woken = threading.Event()
    listener.due.put(StoreUnavailable("gone"))
    run_often(lambda: dispatch.follow_wakeups(app, over, [woken]), over)
    wait_until(lambda: listener.closed == 1, 10)
    woken.clear()
    assert woken.wait(10)  # what became due in between may have been missed


def test_a_store_that_wakes_nobody_is_not_asked_all_the_time(
    app: Celery, over: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def silent() -> Iterator[None]:
        yield None

    listen: Callable[[], AbstractContextManager[None]] = silent
    monkeypatch.setattr(dispatch, "open_store", lambda _: SimpleNamespace(wakeups=SimpleNamespace(listen=listen)))
    assert dispatch.follow_wakeups(app, over, []) > 60
