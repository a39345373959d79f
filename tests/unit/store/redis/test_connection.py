"""How a Redis store is opened, and what it says when its server does not answer."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from claude_batch_tasks.embedded import RedisServer, free_port
from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.records import Unit
from claude_batch_tasks.store.redis import RedisStore, open_store_at
from claude_batch_tasks.wire.batch_requests import Piece
from tests.unit.store.contract.outages import CALLS
from tests.unit.store.contract.samples import BATCH, JOB, LONG, NONCE, batch_record, body_of, create_job, job_record


def open_without_retry(port: int) -> RedisStore:
    """A store whose client does not try a second time."""
    client = redis.Redis(port=port, password="SECRET", retry=Retry(NoBackoff(), 0))
    return RedisStore(client, f"127.0.0.1:{port}")


class TestAServerThatIsStopped:
    @pytest.mark.parametrize("name", CALLS)
    def test_is_unavailable_and_never_empty(self, name: str) -> None:
        port = free_port()
        with pytest.raises(StoreUnavailable) as caught:
            CALLS[name](open_without_retry(port))
        assert str(port) in str(caught.value)
        assert "SECRET" not in str(caught.value)

    def test_in_the_middle_of_reading_is_no_end_of_what_is_read(self) -> None:
        with RedisServer() as server:
            store = RedisStore(redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)), "here")
            pieces = [Piece(0, [f"{n}"], body_of(f"{n}")) for n in range(3)]
            create_job(store, job_record(batches=1), [batch_record()], *pieces)
            store.results.write_rows(JOB, 0, 1, [b"1", b"2", b"3"])
            readers: list[Iterator[Any]] = [
                store.payloads.read_bodies(JOB, 0),
                store.payloads.read_custom_ids(JOB, 0),
                store.results.read_rows(JOB, 0, 1),
            ]
            for reader in readers:
                next(reader)
            server.stop(kill=True)
            for reader in readers:
                with pytest.raises(StoreUnavailable):
                    next(reader)

    def test_that_comes_back_still_has_everything(self) -> None:
        with RedisServer() as server:
            store = RedisStore(redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)), "here")
            create_job(store, job_record(batches=1), [batch_record()])
            store.leases.acquire_lease(BATCH, 5, "me", LONG)
            server.stop()
            server.start()
            assert store.leases.acquire_lease(BATCH, 5, "you", LONG).state == "busy"
            assert store.leases.write_record(BATCH, "me", state="creating")
            assert list(store.payloads.read_bodies(JOB, 0)) == [body_of("a")]

    def test_that_refuses_to_write_is_unavailable_too(self, redis_server: RedisServer) -> None:
        client = redis_server.client()
        client.flushall()
        store = RedisStore(client, "here")
        client.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(StoreUnavailable):
                store.results.write_rows(JOB, 0, 1, (os.urandom(1_000_000) for _ in range(100)))
        finally:
            client.config_set("maxmemory", "0")

    def test_does_not_swallow_what_the_reader_of_rows_raises(self, store: RedisStore) -> None:
        def failing() -> Iterator[bytes]:
            yield b"row"
            raise redis.ConnectionError("the caller's own")

        with pytest.raises(redis.ConnectionError, match="the caller's own"):
            store.results.write_rows(JOB, 0, 1, failing())
        with pytest.raises(redis.ConnectionError, match="the caller's own"):
            store.payloads.stage_requests(JOB, NONCE, (Piece(0, ["a"], row) for row in failing()))


class TestOpening:
    def test_gives_one_store_per_process(self) -> None:
        assert open_store_at("redis://localhost:1/0") is open_store_at("redis://localhost:1/0")
        assert open_store_at("redis://localhost:1/0") is not open_store_at("redis://localhost:1/1")

    @pytest.mark.parametrize(
        ("url", "where"),
        [
            ("redis://user:SECRET@host:7/0", "host:7"),
            ("redis://:SECRET@host/0", "host:6379"),
            ("unix://:SECRET@/run/redis.sock", "/run/redis.sock"),
        ],
    )
    def test_names_the_server_without_its_password(self, url: str, where: str) -> None:
        assert open_store_at(url)._connection.where == where

    def test_serves_many_threads(self, redis_url: str) -> None:
        store = open_store_at(redis_url)
        create_job(store, job_record(batches=1), [batch_record()])
        barrier = threading.Barrier(8)

        def work(number: int) -> int:
            barrier.wait()
            return sum(store.jobs.read_job(JOB) is not None for _ in range(20)) + store.message_queue.save_outcome(
                Unit(JOB, 0, number), number, b"x"
            )

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == [21] * 8
