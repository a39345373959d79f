"""How long keys are kept: those of a job expire with it, those of accounts and claims in their time."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis

from claude_batch_tasks import rules
from claude_batch_tasks.errors import JobNotFound
from claude_batch_tasks.pool_records import AskEnd
from claude_batch_tasks.store.redis import RedisStore
from tests.unit.store.contract.message_queue import create_sending_job
from tests.unit.store.contract.pools import seal_pool
from tests.unit.store.contract.samples import (
    ACCOUNT,
    BATCH,
    JOB,
    LIMITS,
    LONG,
    NO_ROWS,
    NONCE,
    OTHER_BATCH,
    SENDER,
    add_ask,
    answer_call,
    batch_record,
    create_bare_job,
    job_record,
    live,
    make_chunk,
    make_event,
    park_batch,
    take_request,
)

Keys = Callable[[], set[str]]


class TestTheLifeOfAJobsKeys:
    def ttls(self, client: redis.Redis) -> set[int]:
        return {client.ttl(key) for key in client.keys("*") if b"{" in key}

    def test_begins_with_an_expiry(self, job: str, redis_client: redis.Redis) -> None:
        assert all(LONG - 30 < ttl <= LONG for ttl in self.ttls(redis_client))

    def test_goes_on_while_it_runs(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        store.jobs.persist_job(job)
        live(store)
        assert self.ttls(redis_client) == {-1}

    def test_of_what_0_2_0_does_not_know_ends_by_itself(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        """A worker of 0.2.0 may end the job; it lets the keys expire that it knows."""
        store.jobs.persist_job(job)
        for position in range(2):
            store.message_queue.save_outcome(BATCH, position, b"lost", given_up=True)
        store.deliveries.record_delivered(job, [(0, 1)])
        store.deliveries.record_delivered(job, [(0, 1)], 0, 2)
        store.deliveries.record_failed(job, [(1, 1)], "save: ValueError")
        for name in ("batch:0:given_up", "delivered", "undelivered", "delivered:parts"):
            assert 0 < redis_client.ttl(f"claude_batch:{{{job}}}:{name}") <= rules.RETENTION

    def test_of_what_is_sent_again_ends_by_itself_too(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        store.jobs.persist_job(job)
        store.leases.acquire_lease(BATCH, 0, "me", 60)
        store.leases.write_record(BATCH, "me", attempt=1)
        store.results.write_rows(job, 0, 1, [b"row"])
        assert store.results.publish_rows(BATCH, "me", 1, **NO_ROWS, again_places=b"next")
        key = f"claude_batch:{{{job}}}:batch:0:again:1"
        assert 80 * 86_400 < redis_client.ttl(key) <= 90 * 86_400
        redis_client.persist(key)
        store.results.write_rows(job, 0, 1, [b"row"], copy=":copy")
        assert store.results.restore_rows(job, 0, 1, ":copy", **NO_ROWS, again_places=b"next")
        assert 80 * 86_400 < redis_client.ttl(key) <= 90 * 86_400
        store.jobs.expire_job(job, 100)
        assert 0 < redis_client.ttl(key) <= 100

    def test_ends_after_its_end(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        store.jobs.persist_job(job)
        live(store)
        store.jobs.expire_job(job, 100.9)
        assert all(70 < ttl <= 100 for ttl in self.ttls(redis_client))

    def test_lasts_a_second_at_least(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        store.jobs.expire_job(job, 0.2)
        assert all(ttl <= 1 for ttl in self.ttls(redis_client))

    def test_are_all_there_or_it_is_not_made(self, store: RedisStore, redis_client: redis.Redis, keys: Keys) -> None:
        """What was staged expires when the last request comes too late."""
        record = job_record(batches=2)
        batches = [batch_record(), batch_record()]
        for part in ("batch:0:body", "1:sizes", "index"):
            store.payloads.stage_requests(JOB, NONCE, [make_chunk(n, "a") for n in range(2)])
            store.payloads.stage_index(JOB, NONCE, [(0, b"index")])
            [gone] = redis_client.keys(f"*staging*{part.removeprefix('batch:')}")
            redis_client.delete(gone)
            with pytest.raises(JobNotFound, match="has expired: its requests took longer than 24 hours"):
                store.jobs.create_job(JOB, record, batches, LONG)
            assert store.jobs.read_job(JOB) is None
            store.payloads.discard_staged(JOB, NONCE, 2)
            assert keys() == set()

    def test_that_was_never_made_is_a_day_at_most(self, store: RedisStore, redis_client: redis.Redis) -> None:
        store.payloads.stage_requests(JOB, NONCE, [make_chunk(0, "a")])
        assert all(0 < ttl <= 86_400 for ttl in self.ttls(redis_client))

    def test_ends_also_for_what_a_step_writes_when_it_is_over(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        """A job is revoked while a download or a Messages call of it is under way."""
        store.jobs.persist_job(job)
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        store.leases.write_record(BATCH, "me", attempt=1)
        store.jobs.expire_job(job, 100)
        store.results.write_rows(job, 0, 1, [b"row"])
        assert store.results.publish_rows(BATCH, "me", 1, **NO_ROWS)
        store.message_queue.save_outcome(SENDER, 0, b"x")
        store.deliveries.record_delivered(job, [(0, 1)])
        assert all(0 < ttl <= 100 for ttl in self.ttls(redis_client))

    def test_ends_also_for_what_the_last_step_of_a_batch_writes_when_it_is_over(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        """Likewise, while requests go through the Messages API."""
        store.jobs.persist_job(job)
        store.jobs.update_job(job, state="running")
        store.leases.acquire_lease(SENDER, 0, "me", LONG)
        store.message_queue.add_requests(job, 0, [0, 1])
        assert [take_request(store, position, limit=100).state for position in (0, 1)] == ["taken"] * 2
        store.jobs.update_job(job, state="revoked")
        store.jobs.expire_job(job, 100)
        store.message_queue.put_back(SENDER, 0, 0.0, 9)
        store.message_queue.save_outcome(SENDER, 1, b"x", spent=1)
        store.results.mark_announced(job, 0, [1])
        store.message_queue.add_requests(job, 0, [2])
        store.message_queue.add_requests(job, 1, [0])
        assert take_request(store, 2, limit=100).state == "canceled"
        store.budget.reserve_cost(BATCH, 0, 1, 2, 100)
        ttls = {key.decode(): redis_client.ttl(key) for key in redis_client.keys("*{*")}
        assert [key for key, ttl in ttls.items() if not 0 < ttl <= 100] == []

    def test_is_remembered_when_somebody_deleted_it(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        store.storage.delete_job("job-2")
        store.storage.delete_job(job, remember=True)
        assert (store.jobs.was_deleted("job-2"), store.jobs.was_deleted(job)) == (False, True)
        [key] = redis_client.keys(f"*{job}*")
        assert 0 < redis_client.ttl(key) <= 86_400

    def test_ends_for_an_attempt_whose_publish_died_half_way(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        store.leases.write_record(BATCH, "me", attempt=1)
        store.results.write_rows(job, 0, 1, [b"row"])
        # What publish does first, and then the worker was killed; a second attempt follows.
        [rows] = redis_client.keys("*rows*")
        redis_client.persist(rows)
        store.leases.write_record(BATCH, "me", attempt=2)
        store.results.write_rows(job, 0, 2, [b"row"])
        store.results.publish_rows(BATCH, "me", 2, **NO_ROWS)
        store.jobs.expire_job(job, 100)
        assert -1 not in self.ttls(redis_client)

    def test_leaves_nothing_behind_when_it_expires(self, store: RedisStore, job: str, keys: Keys) -> None:
        """By the server's own clock."""
        live(store)
        store.jobs.expire_job(job, 1)
        deadline = time.monotonic() + 10
        while keys() and time.monotonic() < deadline:
            time.sleep(0.05)
            store.storage.forget_expired()
        assert keys() == set()
        assert store.jobs.read_job(job) is None


class TestAPoolOfAsks:
    def pools(self, client: redis.Redis) -> dict[str, int]:
        return {
            key.decode().removeprefix(f"claude_batch:{{{JOB}}}:"): client.ttl(key) for key in client.keys("*}:pool*")
        }

    def test_waits_as_long_as_it_takes(self, store: RedisStore, redis_client: redis.Redis) -> None:
        add_ask(store, "a", new_id=JOB)
        assert self.pools(redis_client) == {"pool": -1, "pool:asks": -1}
        assert 89 * 86_400 < redis_client.ttl("claude_batch:ask:a") <= 90 * 86_400 + 60

    def test_expires_with_its_job(self, store: RedisStore, redis_client: redis.Redis) -> None:
        seal_pool(store, "a", "b")
        store.jobs.persist_job(JOB)
        store.asks.end_asks(JOB, {0: AskEnd("a", "succeeded")}, 70.0)
        store.jobs.expire_job(JOB, 100)
        store.asks.end_asks(JOB, {1: AskEnd("b", "succeeded")}, 70.0)
        assert all(0 < ttl <= 100 for ttl in self.pools(redis_client).values())
        assert len(self.pools(redis_client)) == 3
        assert all(0 < redis_client.ttl(f"claude_batch:ask:{each}") <= 70 for each in "ab")

    def test_expires_by_itself_where_a_worker_ends_the_job_that_does_not_know_it(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        for ask_id in "ab":
            add_ask(store, ask_id, new_id=JOB)
        create_bare_job(store, JOB)
        store.jobs.persist_job(JOB)
        store.pools.finish_sealing(JOB)
        store.asks.end_asks(JOB, {0: AskEnd("a", "succeeded")}, 70.0)
        assert all(0 < ttl <= rules.RETENTION for ttl in self.pools(redis_client).values())

    def test_reserves_for_a_window_only(self, store: RedisStore, redis_client: redis.Redis) -> None:
        add_ask(store, "a", reserved=5, limits=LIMITS._replace(max_cost=10, window=600.0))
        [key] = redis_client.keys("*:cost:*")
        assert key.startswith(b"claude_batch:cost:600:")
        assert 0 < redis_client.ttl(key) <= 661

    def test_that_is_over_leaves_nothing_behind(self, store: RedisStore, keys: Keys) -> None:
        """By the server's own clock."""
        add_ask(store, "c", limits=LIMITS._replace(max_requests=2))
        assert store.asks.withdraw(["c"], 1.0) == [True]
        store.storage.delete_job("pool-of-c")
        seal_pool(store, "a", "b")
        ends = {0: AskEnd("a", "succeeded"), 1: AskEnd("b", "failed")}
        store.asks.end_asks(JOB, ends, 1.0)
        store.jobs.expire_job(JOB, 1)
        add_ask(store, "d", new_id="next")
        store.storage.delete_job("next")
        deadline = time.monotonic() + 10
        while len(keys()) > 2 and time.monotonic() < deadline:
            time.sleep(0.05)
            store.storage.forget_expired()
        # What an open pool leaves that somebody has deleted goes when the next one of its kind is opened.
        assert keys() == {"claude_batch:ask:d", "claude_batch:pools:open"}


class TestRows:
    @pytest.fixture(autouse=True)
    def _leased(self, store: RedisStore, job: str) -> None:
        store.leases.acquire_lease(BATCH, 0, "me", LONG)

    def test_do_not_expire_once_published(self, store: RedisStore, redis_client: redis.Redis) -> None:
        store.jobs.persist_job(JOB)
        store.results.write_rows(JOB, 0, 1, [b"row"])
        store.results.publish_rows(BATCH, "me", 1, **NO_ROWS)
        assert {redis_client.ttl(key) for key in redis_client.keys("*{*")} == {-1}

    def test_that_nobody_published_expire_by_themselves(self, store: RedisStore, redis_client: redis.Redis) -> None:
        store.jobs.persist_job(JOB)
        before = set(redis_client.keys("*"))
        store.results.write_rows(JOB, 0, 1, [b"row"])
        [key] = set(redis_client.keys("*")) - before
        assert 0 < redis_client.ttl(key) <= 86_400


class TestWhoseABatchIs:
    @pytest.fixture(autouse=True)
    def leases(self, store: RedisStore, job: str) -> None:
        for unit in (BATCH, OTHER_BATCH):
            store.leases.acquire_lease(unit, 0, "me", LONG)

    def test_is_forgotten_in_time(self, store: RedisStore, redis_client: redis.Redis) -> None:
        store.batch_ids.claim_id(BATCH, "me", "msgbatch_1")
        [key] = redis_client.keys("*owner*")
        assert 29 * 86_400 < redis_client.ttl(key) <= 30 * 86_400


class TestAListCall:
    def test_and_all_else_of_an_account_is_forgotten_in_time(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        store.in_flight.lock_list_call(ACCOUNT, "me", 5)
        store.in_flight.add_page(ACCOUNT, {}, taken_at=1.0, since=1.0, first=True)
        store.in_flight.add_duration(ACCOUNT, 5, 60.0)
        store.in_flight.record_list_call(ACCOUNT, failed=True)
        assert all(redis_client.ttl(key) > 0 for key in redis_client.keys("*account*"))


class TestAFailedJob:
    def test_expires_no_more_once_it_runs(self, store: RedisStore) -> None:
        unit = park_batch(store, 1, time.time() + 500)
        store.jobs.update_job(unit.job_id, state="failed")
        store.jobs.expire_job(unit.job_id, 100)
        assert store.jobs.resume_job(unit.job_id, {"state": "running"}, {0: (True, 1, {"turn": 1})})
        keys = store._redis.keys(f"claude_batch:{{{unit.job_id}}}:*")
        assert keys
        assert {store._redis.ttl(key) for key in keys} == {-1}


class TestTheCallsInFlight:
    def test_are_forgotten_in_an_hour(self, store: RedisStore, redis_client: redis.Redis) -> None:
        create_sending_job(store)
        for position in range(2):
            taken = take_request(store, position)
            ttls = [redis_client.ttl(key) for key in redis_client.keys("claude_batch:pace:*")]
            assert [3500 < ttl <= 3600 for ttl in ttls] == [True] * 2
            answer_call(store, position, taken, limits={"requests": (50, 9)}, output=7)


class TestAHistory:
    def test_expires_with_its_job_and_is_deleted_with_it(self, store: RedisStore, redis_client: redis.Redis) -> None:
        create_bare_job(store, "job")
        for number in range(201):
            store.history.append_event("job", make_event(number))
        kept = redis_client.keys("*:history*")
        assert len(kept) == 2
        assert all(0 < redis_client.ttl(key) <= 600 for key in kept)
        store.jobs.persist_job("job")
        store.history.append_event("job", make_event(201))
        assert all(redis_client.ttl(key) == -1 for key in kept)
        store.jobs.expire_job("job", 50)
        store.history.append_event("job", make_event(202))
        assert all(0 < redis_client.ttl(key) <= 50 for key in kept)
        store.storage.delete_job("job")
        store.history.append_event("job", make_event(203))
        assert redis_client.keys("*:history*") == []

    def test_goes_with_a_job_that_an_earlier_release_let_expire(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        create_bare_job(store, "job")
        store.jobs.persist_job("job")
        store.history.append_event("job", make_event(1))
        redis_client.delete("claude_batch:{job}:job")
        store.storage.forget_expired()
        assert redis_client.keys("*:history*") == []
