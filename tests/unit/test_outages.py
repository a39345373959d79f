"""What holds while a store, a broker or a result back end is away: the decisions, without workers."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from claude_batch_tasks import transport
from claude_batch_tasks.errors import InvalidSettings, StoreUnavailable
from claude_batch_tasks.lifecycle import unsaved_answers
from claude_batch_tasks.records import BatchRecord, JobRecord, Unit
from claude_batch_tasks.results.stored.messages_outcomes import kept_outcome, message_outcome
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import publishing
from claude_batch_tasks.steps.result_backend import Forgiving
from claude_batch_tasks.steps.step import retry_limits
from claude_batch_tasks.store.redis import RedisStore, open_store_at
from claude_batch_tasks.worker import repeated_work

JOB, LANE = "job/../é", Unit("job/../é", 0, 0)
ANSWER = message_outcome(b'{"id":"msg_1","type":"message"}')
GIVEN_UP = kept_outcome("the answer was lost", tried=True)


@pytest.fixture
def store() -> RedisStore:
    store = RedisStore(fakeredis.FakeRedis(), "fake")
    job = JobRecord(nonce="n", requests=3, batches=1, client="default", options={}, canvas="{}", submitted_at=0.0)
    store.jobs.create_job(JOB, job, [BatchRecord(first=0, count=3, body_bytes=0)], 3600, staged=False)
    return store


class TestARefusalThatPasses:
    @pytest.mark.parametrize(
        "exc",
        [
            exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
            exceptions.ReadOnlyError("You can't write against a read only replica."),
            exceptions.ClusterDownError("The cluster is down"),
            exceptions.MasterDownError("Link with MASTER is down"),
            exceptions.TryAgainError("Multiple keys request during rehashing of slot"),
            exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots, but it's unable to persist"),
            exceptions.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
            exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."),
            exceptions.ResponseError("BUSY Redis is busy running a script."),
            exceptions.ResponseError("UNBLOCKED force unblock from blocking operation"),
            exceptions.ResponseError("Error running script: @user_script: 1: -OOM command not allowed"),
        ],
    )
    def test_is_told_apart(self, exc: exceptions.ResponseError) -> None:
        assert transport.is_refused_for_now(exc)

    @pytest.mark.parametrize(
        "text",
        [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "unknown command 'FLY'",
            "NOPERM this user has no permissions to run the 'set' command",
            "BUSYGROUP Consumer Group name already exists",
        ],
    )
    def test_is_no_mistake_of_ours(self, text: str) -> None:
        assert not transport.is_refused_for_now(exceptions.ResponseError(text))


class TestEveryConnectionOfOurs:
    def test_to_the_store_has_time_outs_and_keep_alive(self) -> None:
        kwargs = open_store_at("redis://localhost:1/0")._redis.connection_pool.connection_kwargs
        assert (kwargs["socket_timeout"], kwargs["socket_connect_timeout"], kwargs["socket_keepalive"]) == (10, 5, True)

    def test_to_the_store_has_those_of_its_url(self) -> None:
        kwargs = open_store_at("redis://localhost:1/0?socket_timeout=33")._redis.connection_pool.connection_kwargs
        assert kwargs["socket_timeout"] == 33

    def test_to_the_store_is_made_anew_when_it_was_idle(self, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        store = open_store_at(f"{redis_url}?client_name=idle")  # which no other test has open
        assert store.jobs.read_job("none") is None
        (connection,) = store._redis.connection_pool._connections
        first = connection._sock
        assert store.jobs.read_job("none") is None
        assert connection._sock is first
        connection.heard -= transport.ANSWER_TIMEOUT + 1
        assert store.jobs.read_job("none") is None
        assert connection._sock is not first

    @pytest.mark.parametrize(
        ("broker", "option", "value"),
        [("redis://localhost:1/0", "socket_timeout", 10.0), ("amqp://localhost:1//", "confirm_publish", True)],
    )
    def test_over_which_messages_are_sent_has_time_outs(self, broker: str, option: str, value: Any) -> None:
        app = Celery("test", broker=broker, set_as_current=False)
        producers, _ = publishing._producer_pool(app)
        assert producers.connections.connection.transport_options[option] == value

    def test_over_which_messages_are_sent_has_those_of_the_app(self) -> None:
        app = Celery("test", broker="redis://localhost:1/0", set_as_current=False)
        app.conf.broker_transport_options = {"socket_timeout": 33}
        producers, _ = publishing._producer_pool(app)
        assert producers.connections.connection.transport_options["socket_timeout"] == 33


class TestSendingAMessage:
    def test_to_a_broker_that_refuses_is_one_error(self, redis_url: str) -> None:
        app = Celery("test", broker=redis_url, set_as_current=False)
        with pytest.raises(OperationalError, match="not allowed"), publishing.bounded_options(app, {}):
            raise exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")

    def test_to_a_queue_that_the_app_does_not_know_is_its_own_fault(self, redis_url: str) -> None:
        app = Celery("test", broker=redis_url, set_as_current=False)
        with pytest.raises(KeyError), publishing.bounded_options(app, {}):
            raise KeyError("queue")


def test_a_store_that_is_away_is_tried_again_soon_however_long_the_countdowns_are() -> None:
    settings = Settings(store_url="redis://localhost:1/0", retry_min=60, retry_max=900)
    assert retry_limits(settings, StoreUnavailable("away")) == (15, 15)
    assert retry_limits(settings, OperationalError("away")) == (15, 15)
    assert retry_limits(settings, ValueError()) == (60, 900)


def test_an_outage_is_said_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("claude_batch_tasks.rules.OUTAGE_RETRY_MAX", 0.01)
    over, calls = threading.Event(), 0

    def work() -> float:
        nonlocal calls
        calls += 1
        if calls < 6:
            raise StoreUnavailable("away")
        over.set()
        return 0.0

    with caplog.at_level(logging.WARNING):
        repeated_work.keep_doing(repeated_work.Work("test", work, "sending", lambda: None), over)
        over.wait(10)
        threads = [thread for thread in threading.enumerate() if thread.name == "test"]
        for thread in threads:
            thread.join(5)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "sending works again" in said[1]


class _Away:
    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            raise redis.TimeoutError("silence")

        return call


class TestAResultBackEndThatIsAway:
    def test_ends_no_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("claude_batch_tasks.steps.result_backend._paused_until", 0.0)
        Forgiving(_Away(), courtesy=True).mark_as_retry("id", ValueError(), "traceback")

    def test_is_told_again_how_a_job_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("claude_batch_tasks.steps.result_backend._paused_until", 0.0)
        request = type("Request", (), {})()
        Forgiving(_Away(), courtesy=False).mark_as_done("id", {}, request, True)
        assert request.unsaved


class TestAnAnswerThatComesAfterItWasGivenUp:
    def test_is_the_outcome(self, store: RedisStore) -> None:
        assert store.message_queue.save_outcome(LANE, 1, GIVEN_UP, given_up=True)
        assert store.message_queue.save_outcome(LANE, 1, ANSWER)
        assert store.results.find_outcomes(JOB, 0, [1]) == {1: ANSWER}
        assert not store.message_queue.save_outcome(LANE, 1, b"another")

    def test_is_not_when_the_batch_is_final(self, store: RedisStore) -> None:
        store.message_queue.save_outcome(LANE, 1, GIVEN_UP, given_up=True)
        store._redis.hset(f"claude_batch:{{{JOB}}}:batch:0", "final", "true")
        assert not store.message_queue.save_outcome(LANE, 1, ANSWER)
        assert store.results.find_outcomes(JOB, 0, [1]) == {1: GIVEN_UP}

    def test_does_not_replace_what_was_decided(self, store: RedisStore) -> None:
        store.message_queue.save_outcome(LANE, 1, kept_outcome("no money is left", tried=False))
        assert not store.message_queue.save_outcome(LANE, 1, ANSWER)


class TestTheSpool:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return Settings(store_url="redis://localhost:1/0", spool_dir=str(tmp_path / "a" / "spool"))

    def answer(self, place: int = 1) -> unsaved_answers.Answer:
        return unsaved_answers.Answer(JOB, 0, 0, place, ANSWER, 7)

    def test_holds_answers_until_the_store_takes_them(self, settings: Settings, store: RedisStore) -> None:
        for place in (0, 1, 2, 2):
            assert unsaved_answers.write_answer(settings, self.answer(place))
        (folder,) = {path.parent for path in Path(settings.spool_dir or "").iterdir()}
        assert len(list(folder.iterdir())) == 3
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
        assert unsaved_answers.bring_in(settings, store) == 3
        assert dict(store.results.read_outcomes(JOB, 0)) == {0: ANSWER, 1: ANSWER, 2: ANSWER}
        assert list(folder.iterdir()) == []
        assert unsaved_answers.bring_in(settings, store) == 0

    def test_keeps_what_the_store_does_not_take(self, settings: Settings) -> None:
        unsaved_answers.write_answer(settings, self.answer())
        away = RedisStore(redis.Redis(port=1, retry=Retry(NoBackoff(), 0)), "away")
        with pytest.raises(StoreUnavailable):
            unsaved_answers.bring_in(settings, away)
        assert len(list(Path(settings.spool_dir or "").iterdir())) == 1

    def test_deletes_what_is_stored_already(self, settings: Settings, store: RedisStore) -> None:
        unsaved_answers.write_answer(settings, self.answer())
        store.message_queue.save_outcome(LANE, 1, ANSWER)
        assert unsaved_answers.bring_in(settings, store) == 0
        assert list(Path(settings.spool_dir or "").iterdir()) == []

    def test_keeps_an_answer_whose_batch_was_closed_without_it(
        self, settings: Settings, store: RedisStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        unsaved_answers.write_answer(settings, self.answer())
        store.message_queue.save_outcome(LANE, 1, GIVEN_UP, given_up=True)
        store._redis.hset(f"claude_batch:{{{JOB}}}:batch:0", "final", "true")
        assert unsaved_answers.bring_in(settings, store) == 0
        (path,) = Path(settings.spool_dir or "").iterdir()
        assert path.suffix == ".late"
        assert path.name in caplog.text

    def test_keeps_what_it_cannot_read(self, settings: Settings, store: RedisStore) -> None:
        unsaved_answers.write_answer(settings, self.answer())
        (path,) = Path(settings.spool_dir or "").iterdir()
        path.write_bytes(path.read_bytes()[:-3])
        unsaved_answers.write_answer(settings, self.answer(2))
        assert unsaved_answers.bring_in(settings, store) == 1
        assert path.exists()

    def test_is_encrypted_like_the_store(self, settings: Settings, store: RedisStore, tmp_path: Path) -> None:
        pytest.importorskip("cryptography")
        key = ("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",)
        sealing = Settings(store_url="redis://localhost:1/0", spool_dir=str(tmp_path), encryption_key=key)
        unsaved_answers.write_answer(sealing, self.answer())
        (path,) = tmp_path.glob("*.answer")
        assert path.read_bytes().startswith(b"sealed:")
        without_key = Settings(store_url="redis://localhost:1/0", spool_dir=str(tmp_path))
        assert unsaved_answers.bring_in(without_key, store) == 0
        assert path.exists()
        assert unsaved_answers.bring_in(sealing, store) == 1

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_is_refused_where_it_cannot_be_written(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(InvalidSettings, match="cannot be written"):
            unsaved_answers.check_folder(Settings(store_url="redis://localhost:1/0", spool_dir=str(tmp_path / "spool")))

    def test_is_refused_where_there_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "spool").write_text("")
        with pytest.raises(InvalidSettings, match="cannot be written"):
            unsaved_answers.check_folder(Settings(store_url="redis://localhost:1/0", spool_dir=str(tmp_path / "spool")))
