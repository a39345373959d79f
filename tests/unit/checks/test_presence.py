"""Which workers run, whether a job waits for one, and how the broker's address is shown."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone

import pytest
from celery import Celery

from claude_batch_tasks.checks import broker_address, presence
from claude_batch_tasks.records import JobRecord, WorkerPresence


def worker(hostname: str, *queues: str, broker: str | None = None) -> WorkerPresence:
    at = datetime(2026, 1, 1, tzinfo=timezone.utc)
    return WorkerPresence(hostname=hostname, queues=queues, version="1", broker=broker, started_at=at, last_seen=at)


@pytest.fixture
def plain_app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    app = Celery("project", set_as_current=False)
    yield app
    app.close()


class TestTheTextOfWorkers:
    def test_names_those_of_the_queue(self) -> None:
        workers = [worker(f"celery@{name}", "celery", "nightly") for name in "abcde"]
        text = presence.describe_workers(workers, "nightly")
        assert text == "Workers that listen on queue 'nightly': celery@a, celery@b, celery@c and 2 more."

    def test_names_the_queues_of_others(self) -> None:
        assert presence.describe_workers([], "celery") == "Workers that listen on queue 'celery': none."
        others = presence.describe_workers([worker("celery@a", "other", "third")], "celery")
        assert others == "Workers that listen on queue 'celery': none. Workers listen on: 'other', 'third'."


class TestTheWaitOfAJob:
    JOB = JobRecord(nonce="n", requests=1, batches=1, submitted_at=1.0)

    def test_is_said_when_a_message_is_30_seconds_overdue(self, plain_app: Celery) -> None:
        text = presence.explain_wait(plain_app, self.JOB, [None, 950.0, 960.0], 1000.0, list)
        assert text == "No worker has picked this up for 50 s. Workers that listen on queue 'celery': none."

    @pytest.mark.parametrize("due", [[], [None], [1000.0], [971.0], [5000.0]])
    def test_is_not_said_before_and_the_workers_are_not_read(self, plain_app: Celery, due: list[float | None]) -> None:
        assert presence.explain_wait(plain_app, self.JOB, due, 1000.0, lambda: pytest.fail("they were read")) is None

    def test_names_no_queue_that_is_not_known(self) -> None:
        assert presence.describe_wait(100.0, [], None) == "No worker has picked this up for 100 s."


def test_workers_at_another_broker_are_named(plain_app: Celery) -> None:
    plain_app.conf.broker_url = "redis://here:6379/0"
    same = worker("celery@a", "celery", broker="redis://here:6379/0")
    other = worker("celery@b", "celery", broker="redis://there:6379/0")
    assert presence.name_other_broker(plain_app, [other, same], "celery") == ""
    assert presence.name_other_broker(plain_app, [other], "nightly") == ""
    assert presence.name_other_broker(plain_app, [other], "celery") == (
        " Their broker is redis://there:6379/0, that of this process redis://here:6379/0."
    )


def test_the_queue_of_a_job_is_that_of_its_messages(plain_app: Celery) -> None:
    job = JobRecord(nonce="n", requests=1, batches=1, submitted_at=1.0)
    assert presence.find_queue(plain_app, job) == "celery"
    job.queue = "nightly"
    assert presence.find_queue(plain_app, job) == "nightly"


class TestABrokerThatNobodyHasSet:
    def test_is_named_with_the_setting(self, plain_app: Celery) -> None:
        assert broker_address.explain_default(plain_app) == (
            "No broker URL is configured, so Celery uses amqp://localhost:5672//. Set broker_url = "
            "'redis://host:6379/0'"
        )

    def test_is_none_where_one_is_set(self, plain_app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CELERY_BROKER_URL", "redis://host/0")
        assert broker_address.explain_default(plain_app) == ""
        monkeypatch.delenv("CELERY_BROKER_URL")
        plain_app.conf.broker_url = "redis://user:secret@host/0"
        assert broker_address.explain_default(plain_app) == ""
        assert broker_address.describe_broker(plain_app) == "redis://host:6379/0"

    def test_is_that_of_the_ready_made_app(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
        app = Celery("claude_batch_tasks", broker="redis://localhost:6379/0", set_as_current=False)
        text = broker_address.explain_default(app)
        assert text.startswith("The broker is redis://localhost:6379/0, the default. If yours is another, set CELERY_")
        app.close()


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("localhost:6379/0", "redis://localhost:6379/0"),
        ("user:secret@localhost:6380/0", "rediss://user:password@localhost:6380/0"),
        ("localhost:16379/0", "redis://localhost:16379/0"),
        ("localhost", "amqp://localhost"),
        ("rabbit:5672//", "amqp://rabbit:5672//"),
        ("localhost:6379/0?password=secret", "redis://localhost:6379/0?password=***"),
    ],
)
def test_a_url_without_a_scheme_is_named_with_the_right_one(plain_app: Celery, given: str, right: str) -> None:
    plain_app.conf.broker_url = given
    assert broker_address.explain_default(plain_app) == (
        f"The broker URL has no scheme, so Celery reads it as the host of a RabbitMQ: write {right}"
    )
    assert "secret" not in broker_address.describe_broker(plain_app)


def test_an_address_of_which_kombu_makes_no_connection_is_unusable(plain_app: Celery) -> None:
    plain_app.conf.broker_url = "redis://localhost/0?password=secret"  # a TypeError
    assert broker_address.describe_broker(plain_app) == "unusable"
    assert not broker_address.is_in_memory(plain_app)
