"""What only a Redis store has: fields that other releases write, and keys that may be gone one by one."""

from __future__ import annotations

import base64
import gc
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import redis
import zstandard

from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.errors import JobNotFound, KeyMissing, PayloadDamaged, ResultsMissing, StoreUnavailable
from claude_batch_tasks.pool_records import Ask, AskEnd, PoolRecord
from claude_batch_tasks.records import Flight, Lease, Taken, Unit
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.redis import RedisStore, open_store_at
from claude_batch_tasks.store.redis.keys import history_keys, worker_key
from claude_batch_tasks.store.redis.parts.in_flight import _decode_flight, _encode
from claude_batch_tasks.wire.batch_requests import Piece
from tests.unit.store.contract.message_queue import create_sending_job
from tests.unit.store.contract.samples import (
    ACCOUNT,
    BATCH,
    JOB,
    LONG,
    NONCE,
    PACE,
    add_ask,
    answer_call,
    batch_record,
    body_of,
    create_bare_job,
    create_job,
    job_record,
    make_chunk,
    make_event,
    make_presence,
    take_request,
)

Keys = Callable[[], set[str]]


class TestRecords:
    def test_ignore_fields_of_another_version(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        for key in redis_client.keys("*"):
            if redis_client.type(key) == b"hash":
                redis_client.hset(key, "a_field_of_next_year", b'{"x":1}')
        assert store.jobs.read_job(job) == job_record()
        assert store.records.read_batches(job) == [batch_record(), batch_record(first=2)]

    def test_fill_in_fields_an_older_version_did_not_write(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        for key in redis_client.keys("*"):
            if redis_client.type(key) == b"hash":
                redis_client.hdel(key, "queue", "options", "counts", "published")
        assert store.jobs.read_job(job) == job_record()
        assert store.records.read_batches(job) == [batch_record(), batch_record(first=2)]


class TestHistory:
    def test_is_stored_with_the_index_of_a_batch_as_all_releases_write_it(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        create_bare_job(store, "job")
        store.history.append_event("job", make_event())
        [entry] = redis_client.lrange(history_keys("job")[0], 0, -1)
        stored = msgspec.json.decode(entry)
        assert (stored["batch"], make_event().batch) == (0, 1)


class TestPayloads:
    def test_take_less_room_than_they_have(self, store: RedisStore, redis_client: redis.Redis) -> None:
        store.payloads.stage_requests(JOB, NONCE, [Piece(0, ["a"], body_of("all work and no play " * 10_000))])
        [key] = redis_client.keys("*body")
        stored = redis_client.lindex(key, 0)
        assert stored is not None
        assert len(stored) < 10_000

    def test_of_a_job_of_which_leftovers_are_there_say_that_it_is_gone(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        """An earlier release wrote into the hash after it had been evicted."""
        redis_client.delete(*redis_client.keys("claude_batch:{*"))
        redis_client.hset(f"claude_batch:{{{job}}}:job", "cancel_requested", b"true")
        assert store.jobs.read_job(job) is None
        with pytest.raises(JobNotFound):
            list(store.payloads.read_bodies(job, 0))

    def test_of_any_size_are_read_in_their_order(
        self, store: RedisStore, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """0.2.0 stored a megabyte in each chunk; several small ones come in one answer, of large ones one each."""
        rng = random.Random(3)
        sizes = [1_000_000] * 3 + [64_000] * 40 + [1] * 10 + [3_000_000, 0, 64_000, 1_000_000]
        chunks = [rng.randbytes(size) for size in sizes]
        for chunk in chunks:
            redis_client.rpush(f"claude_batch:{{{JOB}}}:batch:0:rows:1", zstandard.compress(chunk, 1))
        answers: list[int] = []

        def lrange(*args: object) -> list[bytes]:
            found: list[bytes] = redis.Redis.lrange(redis_client, *args)  # type: ignore[arg-type, assignment]
            answers.append(sum(map(len, found)))
            return found

        monkeypatch.setattr(redis_client, "lrange", lrange)
        assert list(store.results.read_rows(JOB, 0, 1)) == chunks
        assert len(answers) < 10
        assert max(answers) < 5_000_000


class TestCountingWhatIsDone:
    def test_brings_no_job_back(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        redis_client.delete(f"claude_batch:{{{job}}}:job")
        assert store.leases.write_record(BATCH, "me", done=True)
        assert store.leases.end_batch(BATCH, "me") == 0
        assert store.jobs.read_job(job) is None


class TestARequestThatIsTaken:
    def test_is_of_a_job_that_is_there(self, store: RedisStore, redis_client: redis.Redis) -> None:
        job = create_sending_job(store)
        redis_client.delete(f"claude_batch:{{{job}}}:job")
        assert take_request(store, 0) == Taken("gone")


class TestAPace:
    def test_is_not_known_any_more_a_minute_after_the_last_answer(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        create_sending_job(store)
        first, _ = take_request(store, 0), take_request(store, 1)
        answer_call(store, 0, first, limits={"requests": (1, 0)})
        assert take_request(store, 2).seconds == 60
        redis_client.hset(f"claude_batch:pace:{PACE}", "at", time.time() - 61)
        assert take_request(store, 2).state == "taken"


class TestRequestsThatAreDue:
    def test_come_in_runs_of_neighbours_from_different_positions(self, store: RedisStore) -> None:
        job = create_bare_job(store, JOB)
        store.message_queue.add_requests(job, 0, range(40))
        runs = [store.message_queue.list_due(job, 0, 8) for _ in range(400)]
        assert all(found == list(range(found[0], found[-1] + 1)) and wait == 0 for found, wait in runs)
        assert {len(found) for found, _ in runs} == set(range(1, 9))
        assert {position for found, _ in runs for position in found} == set(range(40))


class TestMarks:
    """A mark says how much had been sent on a pace by then: requests, input and output tokens."""

    def test_add_up(self, store: RedisStore) -> None:
        create_sending_job(store)
        marks = [take_request(store, position).mark for position in range(4)]
        assert marks == ["1 10 0", "2 20 0", "3 30 0", "4 40 0"]

    def test_of_what_is_forgotten_say_nothing(self, store: RedisStore) -> None:
        create_sending_job(store)
        answer_call(store, 0, Taken("taken", mark="7 70 0"), limits={"requests": (60, 0)})
        assert take_request(store, 0).state == "taken"


class TestRows:
    def test_that_are_gone_are_named_by_their_key(self, store: RedisStore, job: str) -> None:
        with pytest.raises(ResultsMissing, match="batch:0:rows:3 is gone"):
            next(store.results.read_rows(JOB, 0, 3))


class TestTime:
    def test_is_the_servers(self, store: RedisStore, redis_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        seconds, microseconds = redis_client.time()
        right = time.time
        monkeypatch.setattr(store._connection.clock, "_ask", lambda: right() + 86_400)
        assert store.now() == pytest.approx(seconds + microseconds / 1e6 + 86_400, abs=5)
        store.leases.acquire_lease(Unit("gone"), 0, "me", 10)
        seconds, microseconds = redis_client.time()
        assert store.now() == pytest.approx(seconds + microseconds / 1e6, abs=1), "each lease tells it as well"


class TestAFlight:
    def test_of_an_earlier_release_says_nothing_of_the_apis_clock(self) -> None:
        known: dict[str, Any] = {"expires_at": None, "requests": 1, "poll_min": 1.0, "poll_max": 2.0, "deadline": 7.0}
        flight = Flight(batch_id="b", created_at=5.0, **known)
        assert _encode(flight).startswith(b'["b",5.0,null,1,1.0,2.0,7.0')
        assert _decode_flight(b'["b",5.0,null,1,1.0,2.0,7.0]') == flight


class TestALease:
    def test_runs_out_by_the_servers_clock(self, store: RedisStore, job: str) -> None:
        store.leases.acquire_lease(BATCH, 5, "me", 0.01)
        time.sleep(0.05)
        assert store.leases.acquire_lease(BATCH, 5, "you", LONG) == Lease("taken_over", failures=1)
        assert store.leases.acquire_lease(BATCH, 5, "me", LONG).state == "busy"
        assert store.in_flight.lock_list_call(ACCOUNT, "me", 0.01)
        time.sleep(0.05)
        assert store.in_flight.lock_list_call(ACCOUNT, "you", LONG)


class TestStagedRequests:
    def test_are_those_of_whoever_made_the_job_first(self, store: RedisStore, keys: Keys) -> None:
        store.payloads.stage_requests(JOB, "second", [make_chunk(0, "b")])
        store.payloads.stage_index(JOB, "second", [(0, b"second")])
        assert create_job(store, job_record(nonce="first", batches=1), [batch_record()])
        made = keys()
        assert not store.jobs.create_job(JOB, job_record(nonce="second", batches=1), [batch_record()], LONG)
        assert store.payloads.read_index(JOB, 7) == b"index"
        assert list(store.payloads.read_custom_ids(JOB, 0)) == [["a"]]
        store.payloads.discard_staged(JOB, "second", 1)
        assert keys() == {key for key in made if "second" not in key}


class TestAWorkerOfALaterRelease:
    def test_that_reports_in_another_form_is_left_out(self, store: RedisStore) -> None:
        store.presence.report_worker(make_presence("celery@a"), LONG)
        store.presence.report_worker(make_presence("celery@b"), LONG)
        store._connection.client.set(worker_key("celery@b"), b'{"hostname": 7}')
        assert [worker.hostname for worker in store.presence.list_workers()] == ["celery@a"]


class TestASubscription:
    def test_has_a_connection_of_its_own(self, redis_server: RedisServer) -> None:
        """All else in a process shares one, and must not wait for it."""
        redis_server.client().flushall()
        store = open_store_at(redis_server.url)
        store.check_schema()
        gc.collect()  # clients of other tests
        before = len(redis_server.client().client_list(_type="normal"))
        with store.asks.listen() as listener, store.asks.listen() as other:
            store.asks.end_asks("j", {0: AskEnd("a", "succeeded")}, LONG)
            assert listener.wait(10.0) == other.wait(10.0) == ["a"]
            assert len(redis_server.client().client_list(_type="pubsub")) == 2
        assert len(redis_server.client().client_list(_type="pubsub")) == 0
        assert len(redis_server.client().client_list(_type="normal")) <= before

    def test_is_made_again_when_its_connection_is_lost(self, redis_server: RedisServer) -> None:
        redis_server.client().flushall()
        store = open_store_at(redis_server.url)
        with store.asks.listen() as listener:
            redis_server.client().client_kill_filter(_type="pubsub")
            found: list[str] = []
            deadline = time.monotonic() + 20
            while not found and time.monotonic() < deadline:
                store.asks.end_asks("j", {0: AskEnd("a", "succeeded")}, LONG, final=False)
                with suppress(StoreUnavailable):
                    found = listener.wait(0.1)
            assert "a" in found


class TestParams:
    def test_are_encrypted_and_go_with_their_ask(self, redis_client: redis.Redis) -> None:
        key, other = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
        store = RedisStore(redis_client, "the test's server", Cipher([key]))
        for params in (b'{"secret":"%s"}' % (b"x" * size) for size in (5, 5000)):
            place = add_ask(store, f"{len(params)}", new_id=JOB, params=params)
            [*_, packed] = redis_client.lrange(f"claude_batch:{{{JOB}}}:pool:asks", 0, -1)
            assert b"secret" not in packed
            assert next(store.pools.read_asks(JOB))[place.position] == Ask(id=f"{len(params)}", params=params)
        store.pools.finish_sealing(JOB)
        assert store.pools.divide(JOB, {"part": (PoolRecord(state="closed"), [0, 1])})
        [asks] = store.pools.read_asks("part")
        assert [ask.params[:9] for ask in asks if ask] == [b'{"secret"'] * 2
        with pytest.raises(KeyMissing):
            list(RedisStore(redis_client, "the test's server", Cipher([other])).pools.read_asks("part"))
        head, sealed = packed.split(b"\n", 1)
        redis_client.rpush("claude_batch:{part}:pool:asks", head.replace(b"5013", b"6013") + b"\n" + sealed)
        with pytest.raises(PayloadDamaged):
            list(store.pools.read_asks("part"))

    def test_that_are_long_take_less_room(self, store: RedisStore, redis_client: redis.Redis) -> None:
        add_ask(store, "a", new_id=JOB, params=b'{"text":"%s"}' % (b"all the same " * 1000))
        [packed] = redis_client.lrange(f"claude_batch:{{{JOB}}}:pool:asks", 0, -1)
        assert len(packed) < 500
