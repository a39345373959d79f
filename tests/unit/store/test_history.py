"""The list of all jobs, and what is kept of what happened to each."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import redis
from celery import Celery

from claude_batch_tasks import BatchJob, list_jobs
from claude_batch_tasks.embedded import free_port
from claude_batch_tasks.errors import JobNotFound
from claude_batch_tasks.records import BatchRecord, HistoryEvent, JobRecord, Unit
from claude_batch_tasks.store import history
from claude_batch_tasks.store.redis import RedisStore, open_store_at


def add(store: RedisStore, job_id: str, at: float = 1.5, state: str = "running") -> str:
    record = JobRecord(nonce="n", requests=1, batches=1, submitted_at=at, state=state)  # type: ignore[arg-type]
    assert store.jobs.create_job(job_id, record, [BatchRecord(first=0, count=1, body_bytes=9)], 600, staged=False)
    return job_id


def entry(number: int) -> HistoryEvent:
    at = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=number)
    return HistoryEvent(at=at, event="retry", batch=0, text=f"entry {number}", details={"countdown": 1.5})


class TestTheListOfJobs:
    def test_begins_with_the_newest(self, store: RedisStore) -> None:
        for number in (2, 1, 3):
            add(store, f"job {number}", number)
        assert list(store.jobs.job_ids()) == ["job 3", "job 2", "job 1"]
        assert list(store.jobs.job_ids(before=3)) == ["job 2", "job 1"]

    def test_leaves_none_out_where_many_were_submitted_at_one_moment(self, store: RedisStore) -> None:
        made = {add(store, f"job {number}", number // 150) for number in range(450)}
        found = list(store.jobs.job_ids())
        assert len(found) == 450
        assert set(found) == made

    def test_forgets_those_that_have_expired(self, store: RedisStore, redis_client: redis.Redis) -> None:
        for number in range(250):
            add(store, f"job {number}", number)
        for number in range(0, 250, 2):
            redis_client.delete(f"claude_batch:{{job {number}}}:job")
        assert len(list(store.jobs.job_ids())) == 125
        assert redis_client.zcard("claude_batch:jobs") == 125

    def test_has_none_of_a_later_moment_where_many_before_it_have_expired(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        redis_client.zadd("claude_batch:jobs", {f"gone {number}": 100 + number for number in range(150)})
        for job_id, at in (("old", 5), ("at that moment", 1000)):
            add(store, job_id, at)
        assert list(store.jobs.job_ids(before=1000)) == ["old"]

    def test_is_cleared_of_the_expired_by_and_by_also_where_nobody_asks_for_it(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        for number in range(250):
            redis_client.zadd("claude_batch:jobs", {f"gone {number}": number})
        add(store, "here", 1000)
        for _ in range(100):
            store.jobs.forget_expired()
        assert redis_client.zrange("claude_batch:jobs", 0, -1) == [b"here"]

    def test_has_a_job_that_an_earlier_release_submitted_once_anything_happens_to_it(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        redis_client.zrem("claude_batch:jobs", add(store, "old", 5.0))
        store.history.append_event("old", entry(1))
        assert redis_client.zscore("claude_batch:jobs", "old") == 5.0

    def test_loses_what_is_deleted(self, store: RedisStore) -> None:
        store.jobs.delete_job(add(store, "job"))
        assert list(store.jobs.job_ids()) == []


class TestListJobs:
    def test_tells_the_status_of_each(self, app: Celery) -> None:
        store = open_store_at(str(app.conf.broker_url))
        now = float(int(time.time()))  # as exactly as a datetime has it
        for number, state in enumerate(("failed", "running", "completed", "running")):
            add(store, f"job {number}", now + number, state)
        assert [status.job_id for status in list_jobs()] == ["job 3", "job 2", "job 1", "job 0"]
        assert [status.job_id for status in list_jobs(states=["running"], limit=1)] == ["job 3"]
        before = datetime.fromtimestamp(now + 2, timezone.utc)
        assert [status.state for status in list_jobs(before=before)] == ["running", "failed"]

    def test_says_at_the_call_what_is_wrong(self, app: Celery) -> None:
        with pytest.raises(ValueError, match=r"states must be 'staged' or .*, not 'done'"):
            list_jobs(states=["done"])  # type: ignore[list-item]
        with pytest.raises(ValueError, match="before must have a time zone"):
            list_jobs(before=datetime(2026, 1, 1))


class TestAHistory:
    def test_is_told_in_order_with_its_details(self, store: RedisStore) -> None:
        add(store, "job")
        for number in range(3):
            store.history.append_event("job", entry(number))
        assert store.history.read_events("job") == [entry(0), entry(1), entry(2)]

    def test_keeps_the_beginning_and_the_end_of_a_long_one(self, store: RedisStore) -> None:
        add(store, "job")
        for number in range(1234):
            store.history.append_event("job", entry(number))
        told = store.history.read_events("job")
        assert len(told) == 1001
        assert told[:200] == [entry(number) for number in range(200)]
        assert (told[200].event, told[200].text) == ("left_out", "234 entries are no longer kept")
        assert told[201:] == [entry(number) for number in range(434, 1234)]
        assert sorted(told, key=lambda event: event.at) == told

    def test_expires_with_its_job_and_is_deleted_with_it(self, store: RedisStore, redis_client: redis.Redis) -> None:
        add(store, "job")
        for number in range(201):
            store.history.append_event("job", entry(number))
        kept = redis_client.keys("*:history*")
        assert len(kept) == 2
        assert all(0 < redis_client.ttl(key) <= 600 for key in kept)
        store.jobs.persist_job("job")
        store.history.append_event("job", entry(201))
        assert all(redis_client.ttl(key) == -1 for key in kept)
        store.jobs.expire_job("job", 50)
        store.history.append_event("job", entry(202))
        assert all(0 < redis_client.ttl(key) <= 50 for key in kept)
        store.jobs.delete_job("job")
        store.history.append_event("job", entry(203))
        assert redis_client.keys("*:history*") == []

    def test_goes_with_a_job_that_an_earlier_release_let_expire(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        add(store, "job")
        store.jobs.persist_job("job")
        store.history.append_event("job", entry(1))
        redis_client.delete("claude_batch:{job}:job")
        store.jobs.forget_expired()
        assert redis_client.keys("*:history*") == []

    def test_is_the_jobs(self, app: Celery) -> None:
        store = open_store_at(str(app.conf.broker_url))
        store.history.append_event(add(store, "job"), entry(1))
        assert BatchJob("job").history() == [entry(1)]
        with pytest.raises(JobNotFound):
            BatchJob("another").history()


class TestTelling:
    def test_is_a_line_with_fields_and_an_entry(self, store: RedisStore, caplog: pytest.LogCaptureFixture) -> None:
        add(store, "job")
        with caplog.at_level(logging.INFO):
            history.note(store, Unit("job", 2), "created", "created, 5 requests", batch_id="msgbatch_1", requests=5)
        (line,) = caplog.records
        assert line.getMessage() == "job job batch 2 (msgbatch_1): created, 5 requests"
        told = {name: value for name, value in vars(line).items() if name.startswith("claude_batch_")}
        assert told == {
            "claude_batch_event": "created",
            "claude_batch_job_id": "job",
            "claude_batch_batch": 2,
            "claude_batch_batch_id": "msgbatch_1",
            "claude_batch_requests": 5,
        }
        (event,) = store.history.read_events("job")
        assert (event.event, event.batch, event.text) == ("created", 2, "created, 5 requests")
        assert event.details == {"batch_id": "msgbatch_1", "requests": 5}

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

        unit, before = Unit(add(store, "job"), 0), logging.getLogRecordFactory()
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
        jobs = [add(store, job_id) for job_id in ("one", "two")]
        with caplog.at_level(logging.INFO):
            for job_id in jobs:
                history.note(store, Unit(job_id), "not_found", f"a 404 of {job_id}")
                history.note(store, Unit(job_id), "created", f"created, {len(job_id)} requests")
        kinds = [record.msg for record in caplog.records]
        assert len(set(kinds)) == 2
        assert kinds[:2] == kinds[2:]
        assert caplog.messages[:2] == ["job one: not found: a 404 of one", "job one: created, 3 requests"]
