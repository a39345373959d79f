"""What follows when a job's message was sent."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from celery import Celery
from celery.backends.database import session
from celery.exceptions import SoftTimeLimitExceeded

from claude_batch_tasks import errors, list_jobs, run_batch
from claude_batch_tasks.checks import presence
from claude_batch_tasks.embedded import free_port
from claude_batch_tasks.records import Unit
from claude_batch_tasks.store.redis import RedisStore
from claude_batch_tasks.tasks import sent_jobs
from tests.factories import make_job_record, make_params


def _fail_with(exc: BaseException) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise exc

    return fail


class TestAMessageThatWasSent:
    def test_is_no_error_whatever_fails_afterwards(
        self, store: RedisStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(presence, "warn_unserved", _fail_with(ValueError("redis://:secret@host")))
        with caplog.at_level(logging.WARNING):
            sent_jobs.record_sent(Celery(set_as_current=False), store, "job-1", make_job_record(), 0.0, [])
        assert store.schedule.are_scheduled([Unit("job-1")]) == [True]
        assert "job job-1: was sent, but not all of that could be recorded: ValueError" in caplog.messages
        assert "secret" not in caplog.text

    def test_asks_a_store_that_does_not_answer_once(self, store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store.schedule, "add_units", _fail_with(errors.StoreUnavailable("no answer")))
        monkeypatch.setattr(presence, "warn_unserved", _fail_with(AssertionError("it was asked again")))
        monkeypatch.setattr(sent_jobs.log, "warning", _fail_with(AssertionError("it was asked again")))
        sent_jobs.record_sent(Celery(set_as_current=False), store, "job-1", make_job_record(), 0.0, [])

    def test_obeys_a_time_limit(self, store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(presence, "warn_unserved", _fail_with(SoftTimeLimitExceeded()))
        with pytest.raises(SoftTimeLimitExceeded):
            sent_jobs.record_sent(Celery(set_as_current=False), store, "job-1", make_job_record(), 0.0, [])


class TestAResultBackEndThatCannotBeOpened:
    """A database is one that the first message opens: Celery creates its tables then."""

    @pytest.mark.latest  # earlier releases of Celery create them with the first result
    def test_leaves_no_job(self, app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
        app.conf.result_backend = f"db+postgresql+psycopg://user:secret@127.0.0.1:{free_port()}/shop"
        monkeypatch.setattr(session, "PREPARE_MODELS_MAX_RETRIES", 0)
        with pytest.raises(
            errors.BrokerUnavailable, match=r"the result back end cannot be used \(.*refused"
        ) as refused:
            run_batch.delay([{"custom_id": "a", "params": make_params()}])
        text = str(refused.value)
        assert "The job does not exist" in text
        assert "secret" not in text
        assert "\n" not in text
        assert list(list_jobs(app=app)) == []
