"""What a step does besides its work."""

from __future__ import annotations

import contextlib
import time
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Ignore

from claude_batch_tasks import errors, tasks
from claude_batch_tasks.records import Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import Fail, job_summary
from claude_batch_tasks.steps.step import LeaseLost, Step
from tests.factories import make_batch_record, make_job_record


class TestPatience:
    @pytest.mark.parametrize(
        ("waited", "more", "ends"), [(9, 0, False), (11, 0, True), (11, 60, False), (71, 60, True)]
    )
    def test_ends_when_it_is_over_and_last_looks_have_been_made(self, waited: float, more: float, ends: bool) -> None:
        job = make_job_record(started_at=time.time() - waited)
        store: Any = SimpleNamespace(now=time.time)
        running = Step(store, Settings(max_wait=10.0), job, Unit("job", 0), "me", ("job", 0, 0, 0), None)
        with pytest.raises(errors.WaitExceeded) if ends else contextlib.nullcontext():
            running.check_deadline(more)


class TestSomethingLong:
    def test_breaks_off_when_the_lease_is_lost(self) -> None:
        """What was made of its parts so far must not pass for the whole."""
        job = make_job_record()
        store: Any = None
        running = Step(store, Settings(), job, Unit("job", 0), "me", ("job", 0, 0, 0), None)
        parts = running.while_held([1, 2, 3])
        assert next(parts) == 1
        running.lost.set()
        with pytest.raises(LeaseLost):
            next(parts)


class TestALeaseThatIsLostWhileAFailureIsRecorded:
    @pytest.mark.parametrize("decided", [True, False], ids=["returned", "raised"])
    def test_ends_the_message_with_a_line_in_the_log(
        self, decided: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        store: Any = SimpleNamespace(
            leases=SimpleNamespace(write_record=lambda *_, **__: False),
            records=SimpleNamespace(read_batch=lambda *_: make_batch_record(state="failed")),
            jobs=SimpleNamespace(read_job=lambda _: make_job_record()),
        )
        error = errors.ResultsMissing("gone")

        def body(*_: Any) -> Fail:
            if decided:
                return Fail(error)
            raise error

        with Celery("taken", set_as_current=False) as app:
            app.loader.import_task_module("claude_batch_tasks.tasks")
            task = app.tasks[tasks.fetch_results.name]
            monkeypatch.setattr(task, "body", body)
            task.push_request()
            running = Step(store, Settings(), make_job_record(), Unit("job", 0), "me", ("job", 0, 0, 0), task)
            monkeypatch.setattr(running, "find_job", make_job_record)
            task.request.step = running
            with pytest.raises(Ignore, match="taken over"):
                task._run_body(running)
            task.pop_request()
        assert [record.message for record in caplog.records if "another worker has taken over" in record.message]


class TestProgress:
    @pytest.mark.parametrize("seconds", [0.0, 0.05])
    def test_takes_a_small_part_of_the_time(self, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many batches the job has, whose records are read for it."""
        shown: list[str] = []
        now = 0.0

        def batches(job_id: str) -> list[Any]:
            nonlocal now
            now += seconds
            return []

        store: Any = SimpleNamespace(
            leases=SimpleNamespace(renew_lease=lambda *_: True), records=SimpleNamespace(read_batches=batches)
        )
        job = make_job_record()
        monkeypatch.setattr(job_summary, "publish_progress", lambda task, job_id, job, count, text: shown.append(text))
        with Celery("progress", set_as_current=False) as app:
            app.loader.import_task_module("claude_batch_tasks.tasks")
            task = app.tasks[tasks.poll_batch.name]
            task.push_request()
            unit, args = Unit(f"takes {seconds}"), ("job", 0, 0, 0)
            task.request.step = Step(store, Settings(), job, unit, "me", args, task)
            clock = SimpleNamespace(monotonic=lambda: now, thread_time=lambda: now)
            monkeypatch.setattr(job_summary, "time", clock)
            while now < 2:
                task.show_progress("looked")
                now += 0.01
            task.pop_request()
        assert len(shown) == (2 if seconds else 200)
