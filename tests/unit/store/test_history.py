"""What happened to a job, as it is told in logs and in its history, and jobs as applications list them."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, list_jobs
from claude_batch_tasks.embedded import free_port
from claude_batch_tasks.errors import InvalidSettings, JobNotFound
from claude_batch_tasks.records import Unit
from claude_batch_tasks.store import history
from claude_batch_tasks.store.redis import RedisStore, open_store_at
from tests.unit.store.contract.samples import create_bare_job, job_record, make_event


class TestListJobs:
    def test_tells_the_status_of_each(self, app: Celery) -> None:
        store = open_store_at(str(app.conf.broker_url))
        now = float(int(time.time()))  # as exactly as a datetime has it
        for number, state in enumerate(("failed", "running", "completed", "running")):
            create_bare_job(store, f"job {number}", submitted_at=now + number, state=state)
        assert [status.job_id for status in list_jobs()] == ["job 3", "job 2", "job 1", "job 0"]
        assert [status.job_id for status in list_jobs(states=["running"], limit=1)] == ["job 3"]
        before = datetime.fromtimestamp(now + 2, timezone.utc)
        assert [status.state for status in list_jobs(before=before)] == ["running", "failed"]

    def test_finds_jobs_by_label_and_metadata(self, app: Celery) -> None:
        store = open_store_at(str(app.conf.broker_url))
        for number, (label, metadata) in enumerate(
            (("nightly", {"team": "search", "run": "1"}), ("nightly", {"team": "ads"}), (None, {"team": "search"}))
        ):
            create_bare_job(store, f"job {number}", submitted_at=1000.0 + number, label=label, metadata=metadata)
        create_bare_job(store, "job 3", submitted_at=1003.0)

        def find(**wanted: Any) -> list[str]:
            return [status.job_id for status in list_jobs(**wanted)]

        assert find(label="nightly") == ["job 1", "job 0"]
        assert find(metadata={"team": "search"}) == ["job 2", "job 0"]
        assert find(label="nightly", metadata={"team": "search", "run": 1}) == ["job 0"]
        assert find(label="nightly", states=["failed"]) == []
        assert find(label="nightly", limit=1) == ["job 1"]
        assert len(find(metadata={})) == 4

    def test_finds_jobs_by_state_and_by_phase(self, app: Celery) -> None:
        store = open_store_at(str(app.conf.broker_url))
        records: list[dict[str, Any]] = [
            *({"state": "staged"}, {"state": "running"}, {"state": "running", "cancel_requested": True}),
            {"state": "completed"},
        ]
        for number, record in enumerate(records):
            create_bare_job(store, f"job {number}", submitted_at=1000.0 + number, **record)

        def find(*states: Any) -> list[str]:
            return [status.job_id for status in list_jobs(states=states)]

        assert find("queued") == find("staged") == ["job 0"]
        assert find("running") == ["job 2", "job 1"], "a job that is canceled has this state"
        assert find("canceling") == ["job 2"]
        assert find("canceling", "completed") == ["job 3", "job 2"]
        assert find("saving results") == find("delivering") == []

    def test_reads_the_records_of_those_alone_that_may_fit(self, app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
        store = open_store_at(str(app.conf.broker_url))
        for number in range(250):
            label = "weekly" if number % 100 == 3 else "nightly"
            create_bare_job(store, f"job {number}", submitted_at=1000.0 + number, label=label)
        read, read_job = [], type(store.jobs).read_job
        monkeypatch.setattr(type(store.jobs), "read_job", lambda self, id_: read.append(id_) or read_job(self, id_))
        assert [status.job_id for status in list_jobs(label="weekly")] == ["job 203", "job 103", "job 3"] == read

    def test_says_at_the_call_what_is_wrong(self, app: Celery) -> None:
        with pytest.raises(ValueError, match=r"states must be 'staged' or .*, not 'done'"):
            list_jobs(states=["done"])  # type: ignore[list-item]
        with pytest.raises(ValueError, match="before must have a time zone"):
            list_jobs(before=datetime(2026, 1, 1))
        with pytest.raises(InvalidSettings, match="label must be"):
            list_jobs(label="")
        with pytest.raises(InvalidSettings, match=r"metadata\['run'\] must be"):
            list_jobs(metadata={"run": None})  # type: ignore[dict-item]


class TestAHistory:
    def test_is_the_jobs(self, app: Celery) -> None:
        store = open_store_at(str(app.conf.broker_url))
        store.history.append_event(create_bare_job(store, "job"), make_event(1))
        assert BatchJob("job").history() == [make_event(1)]
        with pytest.raises(JobNotFound):
            BatchJob("another").history()


class TestTelling:
    def test_is_a_line_with_fields_and_an_entry(self, store: RedisStore, caplog: pytest.LogCaptureFixture) -> None:
        create_bare_job(store, "job")
        with caplog.at_level(logging.INFO):
            history.note(store, Unit("job", 2), "created", "created, 5 requests", batch_id="msgbatch_1", requests=5)
        (line,) = caplog.records
        assert line.getMessage() == "job job batch 3 (msgbatch_1): created, 5 requests"
        told = {name: value for name, value in vars(line).items() if name.startswith("claude_batch_")}
        assert told == {
            "claude_batch_event": "created",
            "claude_batch_job_id": "job",
            "claude_batch_batch": 3,
            "claude_batch_batch_id": "msgbatch_1",
            "claude_batch_requests": 5,
        }
        (event,) = store.history.read_events("job")
        assert (event.event, event.batch, event.text) == ("created", 3, "created, 5 requests")
        assert event.details == {"batch_id": "msgbatch_1", "requests": 5}

    def test_is_a_line_with_the_label_of_its_job(self, store: RedisStore, caplog: pytest.LogCaptureFixture) -> None:
        job = job_record(label="nightly", metadata={"team": "search"})
        create_bare_job(store, "job")
        with caplog.at_level(logging.INFO):
            history.note(store, Unit("job", 2), "ended", "ended", job=job)
            history.note(store, Unit("job", 2), "ended", "ended", job=job_record())
        assert [getattr(line, "claude_batch_label", None) for line in caplog.records] == ["nightly", None]
        assert [event.details for event in store.history.read_events("job")] == [{}, {}]

    def test_disturbs_nobody_when_the_store_is_down(self, caplog: pytest.LogCaptureFixture) -> None:
        store = open_store_at(f"redis://127.0.0.1:{free_port()}/0")
        with caplog.at_level(logging.INFO):
            history.note(store, Unit("job"), "started", "started")
        assert caplog.messages == ["job job: started"]

    def test_leaves_the_fields_of_an_applications_own_records_alone(
        self, store: RedisStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Record(logging.LogRecord):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.request_id = self.event = self.status = self.batch = "the application's"

        unit, before = Unit(create_bare_job(store, "job"), 0), logging.getLogRecordFactory()
        logging.setLogRecordFactory(Record)
        try:
            with caplog.at_level(logging.INFO):
                history.note(store, unit, "retry", "again", request_id="req_1", status=500)
        finally:
            logging.setLogRecordFactory(before)
        (line,) = caplog.records
        assert {getattr(line, name) for name in ("request_id", "event", "status", "batch")} == {"the application's"}
        assert (getattr(line, "claude_batch_request_id", None), getattr(line, "claude_batch_status", None)) == (
            "req_1",
            500,
        )
        assert store.history.read_events("job")[0].details == {"request_id": "req_1", "status": 500}

    def test_is_of_one_kind_with_those_of_other_jobs(self, store: RedisStore, caplog: pytest.LogCaptureFixture) -> None:
        jobs = [create_bare_job(store, job_id) for job_id in ("one", "two")]
        with caplog.at_level(logging.INFO):
            for job_id in jobs:
                history.note(store, Unit(job_id), "not_found", f"a 404 of {job_id}")
                history.note(store, Unit(job_id), "created", f"created, {len(job_id)} requests")
        kinds = [record.msg for record in caplog.records]
        assert len(set(kinds)) == 2
        assert kinds[:2] == kinds[2:]
        assert caplog.messages[:2] == ["job one: not found: a 404 of one", "job one: created, 3 requests"]
