"""``BatchJob.retry_failed()``: what failed is sent again, and nothing that is paid for."""

from __future__ import annotations

import base64
import re
from collections import Counter
from typing import Any

import pytest
import redis
from celery import Celery

from claude_batch_tasks import BatchJob, errors
from claude_batch_tasks.jobs.retries import starting
from claude_batch_tasks.records import Unit
from claude_batch_tasks.results.stored.messages_outcomes import error_outcome, kept_outcome
from claude_batch_tasks.store import Store, lost_records, open_store_at
from claude_batch_tasks.wire import result_rows
from tests.unit.jobs.job_maker import EXPIRED, JOB, MIXED, SUCCEEDED, Maker, errored


@pytest.fixture
def ended(maker: Maker) -> BatchJob:
    return maker.make(*MIXED)


def ids_of(job: BatchJob) -> list[str]:
    return [request["custom_id"] for request in job.requests()]


def retry(job: BatchJob, types: Any = None, **options: Any) -> BatchJob:
    return BatchJob(job.retry_failed(types, **options).id, job._app)


class TestARetry:
    def test_has_exactly_what_failed_in_its_order(self, ended: BatchJob) -> None:
        again = retry(ended)
        assert ids_of(again) == ["0-1", "0-2", "1-0", "1-1", "1-2", "1-3", "2-0", "2-1"]
        original = {request["custom_id"]: request for request in ended.requests()}
        assert all(request == original[request["custom_id"]] for request in again.requests())

    def test_has_only_some_types(self, ended: BatchJob) -> None:
        assert ids_of(retry(ended, ["overloaded_error"])) == ["1-0"]
        assert ids_of(retry(ended, ["expired", "unknown"])) == ["0-1", "1-3", "2-1"]
        assert ids_of(retry(ended, ["errored"])) == ["0-2", "1-1", "2-0"]

    def test_runs_at_once(self, ended: BatchJob, store: Store) -> None:
        again = retry(ended, max_requests_per_batch=3, max_batches_in_flight=2)
        status = again.status()
        assert (status.state, status.requests, len(status.batches)) == ("running", 8, 3)
        units, _ = store.schedule.take_due(10)
        assert set(units) == {Unit(again.id, 0), Unit(again.id, 1)}
        assert store.schedule.are_scheduled([Unit(again.id)]) == [True], "else it looks lost"
        assert store.jobs.read_job(again.id).admitted == 2  # type: ignore[union-attr]

    def test_knows_its_parent_and_is_known_there(self, ended: BatchJob) -> None:
        first, second = retry(ended, ["expired"]), retry(ended, ["canceled"])
        assert first.status().parent == JOB
        assert ended.status().parent is None
        assert ended.status().retries == (first.id, second.id)
        [event] = [event for event in ended.history() if event.details.get("retry") == first.id]
        assert (event.event, event.details["requests"]) == ("retried", 2)

    def test_has_what_is_not_given_from_its_parent(self, maker: Maker, store: Store) -> None:
        job = maker.make(*MIXED, max_cost=5.0, poll_max=7.0)
        store.jobs.update_job(JOB, queue="slow", route=None, on_result='{"task": "t"}', headers='{"a": "b"}')
        store.jobs.update_job(JOB, label="nightly", metadata={"team": "search"})
        again = store.jobs.read_job(retry(job, poll_max=8.0).id)
        assert again is not None
        assert (again.label, again.metadata) == ("nightly", {"team": "search"})
        assert (again.options["max_cost"], again.options["poll_max"]) == (5.0, 8.0)
        assert (again.queue, again.on_result, again.headers, again.client) == (
            "slow",
            '{"task": "t"}',
            '{"a": "b"}',
            "default",
        )

    def test_can_go_to_another_queue(self, ended: BatchJob, store: Store) -> None:
        assert store.jobs.read_job(retry(ended, queue="fast", label="b").id).queue == "fast"  # type: ignore[union-attr]

    @pytest.mark.parametrize("options", [{"no_such": 1}, {"client": "nobody"}, {"poll_max": -1}])
    def test_with_an_option_that_makes_no_sense_is_none(self, ended: BatchJob, options: Any) -> None:
        with pytest.raises(errors.InvalidSettings):
            ended.retry_failed(**options)
        assert ended.status().retries == ()
        assert len(ids_of(retry(ended))) == 8

    def test_does_not_expire_and_its_parent_is_there_as_long(
        self, ended: BatchJob, store: Store, redis_url: str
    ) -> None:
        client = redis.Redis.from_url(redis_url)
        store.jobs.expire_job(JOB, 60)
        again = retry(ended, result_ttl=5000)
        lasting = {key.decode(): client.ttl(key) for key in client.scan_iter(match="*{*}*")}
        assert {ttl for key, ttl in lasting.items() if again.id in key and "history" not in key} == {-1}
        assert min(ttl for key, ttl in lasting.items() if JOB in key and "history" not in key) > 4900

    def test_keeps_the_retries_in_between(self, maker: Maker, store: Store, redis_url: str) -> None:
        job = maker.make([EXPIRED])
        first = retry(job)
        maker.finish(first.id, [EXPIRED])
        second = retry(job)
        maker.finish(second.id, [EXPIRED])
        store.jobs.expire_job(first.id, 60)
        third = retry(job, result_ttl=5000)
        maker.finish(third.id, [SUCCEEDED])
        client = redis.Redis.from_url(redis_url)
        assert {client.ttl(key) > 4900 for key in client.scan_iter(match=f"*{first.id}}}:job")} == {True}


class TestNothingIsSentTwice:
    def test_what_an_unfinished_retry_has_is_left_out(self, ended: BatchJob) -> None:
        first = retry(ended, ["expired"])
        assert ids_of(retry(ended)) == ["0-2", "1-0", "1-1", "1-2", "2-0", "2-1"]
        with pytest.raises(errors.NothingToRetry, match=f"2 requests in its retry {first.id}, which has not ended"):
            ended.retry_failed()

    def test_what_succeeded_in_a_retry_is_left_out_and_what_failed_there_is_sent(
        self, ended: BatchJob, maker: Maker
    ) -> None:
        first = retry(ended, ["expired", "overloaded_error"])
        assert ids_of(first) == ["0-1", "1-0", "1-3"]
        maker.finish(first.id, [SUCCEEDED, errored("api_error"), EXPIRED])
        second = retry(ended, ["expired", "api_error"])
        assert ids_of(second) == ["1-0", "1-3"]
        # The failed request is that of the first retry as well, and is taken there.
        with pytest.raises(errors.NothingToRetry):
            first.retry_failed()
        assert ended.status().retries == (first.id, second.id)
        assert first.status().retries == (second.id,)

    def test_what_a_retry_has_sent_is_said_to_be_sent(self, ended: BatchJob, maker: Maker) -> None:
        first = retry(ended, ["expired"])
        maker.finish(first.id, [SUCCEEDED] * len(ids_of(first)))
        with pytest.raises(errors.NothingToRetry, match="a retry has already sent again 2 requests; failed by type"):
            ended.retry_failed(["expired"])

    def test_a_retry_of_a_retry(self, ended: BatchJob, maker: Maker) -> None:
        first = retry(ended, ["expired"])
        maker.finish(first.id, [EXPIRED, SUCCEEDED])
        second = retry(first)
        assert ids_of(second) == ["0-1"]
        maker.finish(second.id, [EXPIRED])
        third = retry(ended)
        assert Counter(ids_of(third)) == Counter(["0-2", "1-0", "1-1", "1-2", "2-0", "2-1", "0-1"])
        with pytest.raises(errors.NothingToRetry):
            second.retry_failed()

    def test_two_callers_at_once_share_what_there_is(self, ended: BatchJob, monkeypatch: pytest.MonkeyPatch) -> None:
        create, others = starting._create_retry, []

        def create_second(*args: Any) -> bool:
            monkeypatch.setattr(starting, "_create_retry", create)
            others.append(retry(ended, ["expired"]))
            return create(*args)

        monkeypatch.setattr(starting, "_create_retry", create_second)
        mine = retry(ended)
        assert ids_of(others[0]) == ["0-1", "1-3"]
        assert ids_of(mine) == ["0-2", "1-0", "1-1", "1-2", "2-0", "2-1"]

    def test_nor_by_callers_that_are_always_late(self, ended: BatchJob, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(starting, "_create_retry", lambda *args: False)
        with pytest.raises(errors.BatchTasksError, match="call retry_failed"):
            ended.retry_failed()

    def test_if_the_answer_of_the_store_is_lost_the_retry_is_there(
        self, ended: BatchJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create = type(ended._store.retries).create_retry

        def answer_lost(self: Any, *args: Any) -> bool:
            create(self, *args)
            raise errors.StoreUnavailable("no answer")

        monkeypatch.setattr(type(ended._store.retries), "create_retry", answer_lost)
        again = retry(ended)
        assert len(ids_of(again)) == 8
        assert ended.status().retries == (again.id,)

    def test_if_the_store_does_not_take_it_all_can_be_retried(
        self, ended: BatchJob, monkeypatch: pytest.MonkeyPatch, redis_url: str
    ) -> None:
        before = set(redis.Redis.from_url(redis_url).keys("*"))
        with monkeypatch.context() as patched:
            patched.setattr(type(ended._store.retries), "create_retry", _refuse)
            with pytest.raises(errors.StoreUnavailable, match="pays nothing twice"):
                ended.retry_failed()
        assert set(redis.Redis.from_url(redis_url).keys("*")) == before
        assert len(ids_of(retry(ended))) == 8

    @pytest.mark.parametrize("method", ["stage_requests", "stage_index"])
    def test_a_caller_that_dies_before_leaves_nothing(
        self, ended: BatchJob, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(type(ended._store.payloads), method, _die)
            with pytest.raises(KeyboardInterrupt):
                ended.retry_failed()
        assert ended.status().retries == ()
        assert len(ids_of(retry(ended))) == 8

    def test_a_caller_that_dies_afterwards_leaves_a_job_that_runs(
        self, ended: BatchJob, monkeypatch: pytest.MonkeyPatch, store: Store
    ) -> None:
        monkeypatch.setattr(type(ended._store.retries), "extend_job", _die)
        with pytest.raises(KeyboardInterrupt):
            ended.retry_failed()
        [again] = ended.status().retries
        assert set(store.schedule.take_due(10)[0]) == {Unit(again, 0), Unit(again, 1)}
        with pytest.raises(errors.NothingToRetry, match=again):
            ended.retry_failed()

    def test_what_may_have_been_billed_is_left_out(self, maker: Maker, store: Store) -> None:
        job = maker.make([EXPIRED, EXPIRED, EXPIRED])
        store.message_queue.save_outcome(Unit(JOB, 0, 0), 1, kept_outcome("no answer", tried=True, billed=True))
        store.message_queue.save_outcome(Unit(JOB, 0, 0), 2, kept_outcome("refused", tried=True, billed=False))
        assert ids_of(retry(job)) == ["0-0", "0-2"]
        with pytest.raises(errors.NothingToRetry, match="1 request that may have been billed"):
            job.retry_failed()

    @pytest.mark.parametrize(
        "result",
        [
            {"type": "no_such_type"},
            errored(result_rows.UNREADABLE),
            errored(result_rows.ANSWER_LOST),
        ],
    )
    def test_what_may_have_been_answered_is_left_out(self, maker: Maker, result: Any) -> None:
        job = maker.make([EXPIRED, result])
        assert ids_of(retry(job)) == ["0-0"]
        with pytest.raises(errors.NothingToRetry, match="1 request that may have been billed"):
            job.retry_failed()

    def test_what_the_store_has_lost_of_its_answer_is_left_out(self, maker: Maker, store: Store) -> None:
        job = maker.make([EXPIRED, EXPIRED])
        outcome = error_outcome(result_rows.ANSWER_LOST, "it may have been billed", None)
        store.message_queue.save_outcome(Unit(JOB, 0, 0), 1, outcome)
        store.leases.write_record(Unit(JOB, 0), "test", granted=2)
        assert ids_of(retry(job)) == ["0-0"]

    def test_a_batch_of_which_it_is_not_known_what_was_sent_again_is_left_out(self, maker: Maker, store: Store) -> None:
        job = maker.make([EXPIRED], [EXPIRED])
        store.leases.write_record(Unit(JOB, 0), "test", read_only=True)
        assert ids_of(retry(job)) == ["1-0"]
        with pytest.raises(errors.NothingToRetry, match="1 request in batch 1, whose record the store had lost"):
            job.retry_failed()

    def test_a_parent_that_has_lost_a_record_and_is_resumed_does_not_send_what_a_retry_took(
        self, ended: BatchJob, store: Store, redis_url: str
    ) -> None:
        retry(ended, ["canceled"])  # of the second batch
        names = [store.records.name_batch(JOB, number) for number in (0, 1)]
        redis.Redis.from_url(redis_url).delete(*names)
        job = store.jobs.read_job(JOB)
        assert job is not None
        lost_records.replace_lost_batches(store, JOB, job)
        assert [record.read_only for record in store.records.read_batches(JOB)] == [False, True, False]

    def test_a_lost_batch_is_left_out(self, maker: Maker, store: Store) -> None:
        job = maker.make([EXPIRED], [EXPIRED])
        store.leases.write_record(Unit(JOB, 0), "test", state="lost")
        assert ids_of(retry(job)) == ["1-0"]

    def test_if_the_store_has_lost_what_was_taken_nothing_is_sent(
        self, ended: BatchJob, store: Store, redis_url: str
    ) -> None:
        retry(ended, ["canceled"])
        redis.Redis.from_url(redis_url).hdel(store.records.name_batch(JOB, 1), "retry:0")
        with pytest.raises(errors.ResultsMissing, match="paid for already"):
            ended.retry_failed()

    def test_a_retry_that_is_gone_has_what_it_took(self, ended: BatchJob, store: Store) -> None:
        first = retry(ended, ["expired"])
        store.storage.delete_job(first.id)
        assert "0-1" not in ids_of(retry(ended))
        with pytest.raises(errors.NothingToRetry, match="gone from the store"):
            ended.retry_failed()


def _refuse(*args: Any) -> bool:
    raise errors.StoreUnavailable("no answer")


def _die(*args: Any) -> None:
    raise KeyboardInterrupt


class TestNoRetry:
    def test_where_all_succeeded(self, maker: Maker) -> None:
        with pytest.raises(errors.NothingToRetry, match="all succeeded"):
            maker.make([SUCCEEDED]).retry_failed()

    def test_of_types_that_there_are_not_names_those_there_are(self, ended: BatchJob) -> None:
        with pytest.raises(errors.NothingToRetry, match=r"invalid_request_error \(3\), expired \(2\)"):
            ended.retry_failed(["rate_limit_error"])

    def test_of_what_is_no_type(self, ended: BatchJob) -> None:
        with pytest.raises(ValueError, match="types must"):
            ended.retry_failed("expired")

    @pytest.mark.parametrize(
        ("changes", "error", "text"),
        [
            ({"state": "running", "ended_at": None}, errors.JobRunning, "Wait for its end"),
            ({"adopted": True}, errors.RequestsUnknown, "was adopted"),
            ({"state": "revoked"}, errors.NothingToRetry, "was revoked"),
        ],
    )
    def test_of_a_job_in_another_state(
        self, ended: BatchJob, store: Store, changes: Any, error: Any, text: str
    ) -> None:
        store.jobs.update_job(JOB, **changes)
        with pytest.raises(error, match=text):
            ended.retry_failed()

    def test_of_what_a_failed_job_may_have_at_anthropic(self, maker: Maker, store: Store) -> None:
        job = maker.make([EXPIRED, SUCCEEDED], [EXPIRED, EXPIRED])
        store.leases.write_record(Unit(JOB, 1), "test", state="failed", error=["WaitExceeded", ["waited"]])
        store.jobs.update_job(JOB, state="failed")
        assert ids_of(retry(job)) == ["0-0"]
        with pytest.raises(errors.NothingToRetry, match=r"resume\(\)"):
            job.retry_failed()

    def test_if_its_requests_have_expired(self, ended: BatchJob, redis_url: str, store: Store) -> None:
        redis.Redis.from_url(redis_url).delete(f"{store.records.name_batch(JOB, 1)}:body")
        with pytest.raises(errors.ResultsMissing):
            ended.retry_failed()
        assert ended.status().retries == ()
        assert ids_of(retry(ended, ["unknown"])) == ["2-1"]

    def test_of_a_job_that_is_gone(self, ended: BatchJob) -> None:
        ended.delete()
        with pytest.raises(errors.JobNotFound):
            ended.retry_failed()


#: What the family's newest outcomes are.
EXPECTED = {
    "0-0": "succeeded",
    "0-1": "succeeded",
    "0-2": "succeeded",
    "0-3": "succeeded",
    "1-0": "errored",
    "1-1": "succeeded",
    "1-2": "expired",
    "1-3": "succeeded",
    "2-0": "errored",
    "2-1": "errored",
}


def read_all(job: BatchJob, **options: Any) -> list[tuple[str, str]]:
    return [(each.custom_id, each.type) for each in job.results(with_retries=True, **options)]


class TestResultsWithRetries:
    @pytest.fixture
    def family(self, ended: BatchJob, maker: Maker) -> BatchJob:
        """A job, a retry that has ended, a retry of both that runs in part."""
        first = retry(ended, ["expired", "canceled"])  # 0-1, 1-2, 1-3
        maker.finish(first.id, [SUCCEEDED, EXPIRED, EXPIRED])
        second = retry(ended, max_requests_per_batch=3)
        assert ids_of(second) == ["0-2", "1-0", "1-1", "2-0", "2-1", "1-2", "1-3"]
        maker.finish(second.id, [SUCCEEDED, errored("api_error"), SUCCEEDED], None, [SUCCEEDED])
        return ended

    @pytest.mark.parametrize("order", ["stored", "request"])
    def test_are_each_once_and_the_newest(self, family: BatchJob, order: Any) -> None:
        found = read_all(family, order=order)
        assert dict(found) == EXPECTED
        assert len(found) == len(EXPECTED)
        if order == "request":
            assert [custom_id for custom_id, _ in found] == list(EXPECTED)

    @pytest.mark.parametrize("order", ["stored", "request"])
    @pytest.mark.parametrize("kind", ["succeeded", "errored", "expired", "canceled"])
    def test_of_one_type(self, family: BatchJob, kind: Any, order: Any) -> None:
        assert {name for name, _ in read_all(family, type=kind, order=order)} == {
            name for name, outcome in EXPECTED.items() if outcome == kind
        }

    def test_of_some_ids(self, family: BatchJob) -> None:
        for names in (["1-0"], ["1-2", "1-3", "2-0", "nobody"], list(EXPECTED)):
            assert dict(read_all(family, ids=names)) == {n: EXPECTED[n] for n in names if n in EXPECTED}
        assert read_all(family, ids=["1-3", "1-2"], type="succeeded") == [("1-3", "succeeded")]

    def test_of_one_id(self, family: BatchJob) -> None:
        assert {name: family.result(name, with_retries=True).type for name in EXPECTED} == EXPECTED
        assert family.result("1-3").type == "expired"
        with pytest.raises(errors.RequestNotFound):
            family.result("nobody", with_retries=True)

    def test_of_a_retry(self, family: BatchJob, app: Celery) -> None:
        first = BatchJob(family.status().retries[0], app)
        assert dict(read_all(first)) == {"0-1": "succeeded", "1-2": "expired", "1-3": "succeeded"}

    def test_without_retries_are_its_own(self, family: BatchJob, maker: Maker) -> None:
        assert Counter(each.type for each in family.results())["succeeded"] == 2
        other = maker.make([SUCCEEDED, EXPIRED], job_id="job-2")
        assert read_all(other, order="request") == [("0-0", "succeeded"), ("0-1", "expired")]

    def test_of_a_retry_that_is_gone_are_those_of_before(self, family: BatchJob, store: Store) -> None:
        for job_id in family.status().retries:
            store.storage.delete_job(job_id)
        assert dict(read_all(family))["0-1"] == "expired"
        assert len(read_all(family)) == 10

    def test_that_are_lost_are_missed(self, family: BatchJob, store: Store) -> None:
        store.results.discard_rows(family.status().retries[0], 0, 1)
        with pytest.raises(errors.ResultsMissing):
            read_all(family)

    @pytest.mark.parametrize("options", [{"type": "x"}, {"order": "x"}])
    def test_of_no_such_type_or_order(self, family: BatchJob, options: Any) -> None:
        with pytest.raises(ValueError, match="must be"):
            read_all(family, **options)


class TestEncryptedRequests:
    KEY = base64.b64encode(b"k" * 32).decode()

    @pytest.fixture
    def sealed(self, app: Celery, redis_url: str) -> BatchJob:
        app.conf.claude_batch_encryption_key = self.KEY
        maker = Maker(app, open_store_at(redis_url, [self.KEY]))
        return maker.make(*MIXED)

    def test_are_sent_again_encrypted(self, sealed: BatchJob, redis_url: str) -> None:
        again = retry(sealed)
        assert len(ids_of(again)) == 8
        client = redis.Redis.from_url(redis_url)
        stored = [client.dump(key) for key in client.scan_iter(match=f"*{again.id}*")]
        assert stored
        # Parts of the job's own id, which is random, may look like a custom_id.
        assert not [value for value in stored if b"prompt" in value or re.search(rb"(?<![\w-])0-1(?![\w-])", value)]

    def test_need_their_key(self, sealed: BatchJob, app: Celery) -> None:
        app.conf.claude_batch_encryption_key = None
        with pytest.raises(errors.KeyMissing):
            BatchJob(JOB, app).retry_failed()
        status = BatchJob(JOB, app).status()
        assert sum(each.count for each in status.failures) == 8
        assert {each.example for each in status.failures} == {None}
