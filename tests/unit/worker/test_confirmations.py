"""Celery's signals about tasks that are calls of ``on_result``."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context

from claude_batch_tasks import errors
from claude_batch_tasks.lifecycle import delivery
from claude_batch_tasks.lifecycle.delivery import tracking
from claude_batch_tasks.worker import confirmations

HEADER = tracking.encode_header("job-1", [(3, 2)], 0, 1)
TRACKED = tracking.Tracked("job-1", [(3, 2)], 0, 1)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was recorded: how, of which requests, and why."""
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr(delivery, "record_success", lambda app, tracked, task: found.append(("ok", tracked, task)))
    monkeypatch.setattr(delivery, "record_failure", lambda app, tracked, task, why: found.append((why, tracked, task)))
    monkeypatch.setattr(delivery, "record_activity", lambda app, tracked: found.append(("again", tracked)))
    return found


@pytest.fixture(autouse=True)
def _nothing_waits() -> Iterator[None]:
    confirmations._waiting.clear()
    yield
    confirmations._waiting.clear()
    confirmations._recording.clear()


def task(header: Any = HEADER, **request: Any) -> Any:
    """Return a task while it runs."""
    return SimpleNamespace(
        name="tests.save",
        app=Celery("x", set_as_current=False),
        request=Context(id="task-1", **{delivery.HEADER: header}, **request),
    )


class TestAnEnd:
    def test_is_recorded_with_its_requests(self, recorded: list[Any]) -> None:
        sender = task()
        confirmations.confirm_success(sender=sender, result=7)
        confirmations.confirm_failure(sender=sender, task_id="task-1", exception=KeyError("an answer"))
        confirmations.note_retry(sender=sender, request=sender.request, reason="x")
        confirmations.confirm_revoked(sender=sender, request=sender.request, signum=None, expired=True)
        confirmations.confirm_revoked(sender=sender, request=sender.request, signum=15, expired=False)
        message = SimpleNamespace(headers={delivery.HEADER: HEADER})
        confirmations.confirm_unknown(sender=SimpleNamespace(app=sender.app), message=message, name="nobody.save")
        of = (TRACKED, "tests.save")
        assert recorded == [
            ("ok", *of),
            ("KeyError", *of),
            ("again", TRACKED),
            ("expired", *of),
            ("revoked", *of),
            ("NotRegistered", TRACKED, "nobody.save"),
        ]

    def test_of_a_connection_is_not_that_of_the_task(self, recorded: list[Any]) -> None:
        sender = task()
        confirmations.confirm_revoked(sender=sender, request=sender.request, signum="gone", expired=False)
        assert recorded == []

    def test_after_a_time_limit_is_found_by_the_task_id(self, recorded: list[Any]) -> None:
        """In the main process there is no request then."""

        class Request:
            id, request_dict = "task-1", {delivery.HEADER: HEADER}
            _context = Context(id="task-1", **{delivery.HEADER: HEADER})

        request = Request()
        confirmations.remember_request(request=request)
        sender = SimpleNamespace(name="tests.save", app=None, request=Context())
        confirmations.confirm_failure(sender=sender, task_id="task-1", exception=TimeoutError())
        confirmations.confirm_failure(sender=sender, task_id="task-2", exception=TimeoutError())
        assert [why for why, *_ in recorded] == ["TimeoutError"]
        del request, Request.id
        assert len(confirmations._received) == 0, "it is remembered no longer than Celery has it"

    @pytest.mark.parametrize("header", [None, "", "{", "of a later release", 7])
    def test_of_another_task_is_nobodys_business(self, header: Any, recorded: list[Any]) -> None:
        sender = task(header)
        confirmations.confirm_success(sender=sender)
        confirmations.confirm_failure(sender=sender, task_id="task-1", exception=ValueError())
        confirmations.note_retry(sender=sender, request=sender.request)
        confirmations.confirm_revoked(sender=sender, request=sender.request)
        confirmations.confirm_unknown(sender=sender, message=SimpleNamespace(headers={delivery.HEADER: header}))
        confirmations.confirm_unknown(sender=sender, message=None)
        assert recorded == []


class TestAStoreThatIsAway:
    @pytest.fixture
    def threads(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """Threads that would have been started: call them."""
        found: list[Any] = []

        class Thread:
            def __init__(self, target: Any, **_: Any) -> None:
                self.start = lambda: found.append(target)

        monkeypatch.setattr(threading, "Thread", Thread)
        return found

    @pytest.fixture
    def outage(self, monkeypatch: pytest.MonkeyPatch, recorded: list[Any]) -> threading.Event:
        away = threading.Event()
        away.set()

        def record(app: Any, tracked: Any, name: str) -> None:
            if away.is_set():
                raise errors.StoreUnavailable("away")
            recorded.append(tracked)

        monkeypatch.setattr(delivery, "record_success", record)
        monkeypatch.setattr(confirmations, "time", SimpleNamespace(sleep=lambda _: away.clear()))
        return away

    def test_gets_to_know_it_later(self, threads: list[Any], outage: threading.Event, recorded: list[Any]) -> None:
        for _ in range(3):
            confirmations.confirm_success(sender=task())
        assert (recorded, len(threads)) == ([], 1)
        threads[0]()
        assert recorded == [TRACKED] * 3
        confirmations.confirm_success(sender=task())
        assert (len(recorded), len(threads)) == (4, 1)

    def test_holds_up_one_task_only(self, threads: list[Any], outage: threading.Event, recorded: list[Any]) -> None:
        confirmations.confirm_success(sender=task())
        outage.clear()
        confirmations.confirm_success(sender=task())
        assert recorded == [], "it waits behind the first"
        threads[0]()
        assert len(recorded) == 2

    def test_does_not_fill_the_memory(self, threads: list[Any], outage: threading.Event) -> None:
        for _ in range(confirmations._MOST + 10):
            confirmations.confirm_success(sender=_SENDER)
        assert len(confirmations._waiting) == confirmations._MOST

    def test_and_a_thread_that_breaks_is_followed_by_another(
        self, threads: list[Any], outage: threading.Event, recorded: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def break_off(work: Any) -> bool:
            raise MemoryError

        confirmations.confirm_success(sender=task())
        with monkeypatch.context() as patched:
            patched.setattr(confirmations, "_try_recording", break_off)
            with pytest.raises(MemoryError):
                threads.pop()()
        outage.clear()
        confirmations.confirm_success(sender=task())
        threads.pop()()
        assert len(recorded) == 2

    def test_and_no_thread_to_be_had_breaks_nothing(
        self, outage: threading.Event, recorded: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(**_: Any) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading, "Thread", refuse)
        confirmations.confirm_success(sender=task())
        outage.clear()
        started: list[Any] = []
        monkeypatch.setattr(
            threading, "Thread", lambda target, **_: SimpleNamespace(start=lambda: started.append(target))
        )
        confirmations.confirm_success(sender=task())
        started[0]()
        assert len(recorded) == 2, "the next one tries again"


def test_nothing_that_goes_wrong_here_reaches_the_task(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise errors.InvalidSettings("no store is set")

    monkeypatch.setattr(delivery, "record_success", fail)
    confirmations.confirm_success(sender=task())
    assert "how a call of on_result ended was not recorded" in caplog.text


_SENDER = task()
