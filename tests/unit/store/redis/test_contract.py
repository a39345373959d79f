"""The Redis store does what every store must do, on each kind of server that it may be on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import fakeredis
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from claude_batch_tasks.embedded import RedisServer, free_port
from claude_batch_tasks.store import Store
from claude_batch_tasks.store.redis import RedisStore
from tests.unit.conftest import list_keys
from tests.unit.store.contract import StoreContract
from tests.unit.store.contract.samples import Contents, OpenStore
from tests.unit.store.redis.movable_time import PASSED, MovableTime

Connect = Callable[[], redis.Redis]


class RedisStoreContract(StoreContract):
    """The tests of a store, on a server that a subclass names with the fixture ``connect``: it is empty."""

    @pytest.fixture
    def pass_time(self, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> MovableTime:
        return MovableTime(connect(), monkeypatch)

    @pytest.fixture
    def open_store(self, connect: Connect, pass_time: MovableTime) -> Iterator[OpenStore]:
        with ExitStack() as stack:

            def open_store() -> RedisStore:
                client = pass_time.move_client(connect())
                stack.callback(client.close)
                return RedisStore(client, "the test's server")

            yield open_store

    @pytest.fixture
    def contents(self, connect: Connect) -> Contents:
        client = connect()
        return lambda: list_keys(client) - {PASSED}

    @pytest.fixture
    def unreachable_store(self) -> Store:
        return RedisStore(redis.Redis(port=free_port(), retry=Retry(NoBackoff(), 0)), "no server")


def connect_to(server: RedisServer) -> Connect:
    server.client().flushall()
    return server.client


class TestOnFakeredis(RedisStoreContract):
    @pytest.fixture
    def connect(self) -> Connect:
        server = fakeredis.FakeServer()
        return lambda: fakeredis.FakeRedis(server=server)


class TestOnAServer(RedisStoreContract):
    @pytest.fixture
    def connect(self, redis_server: RedisServer) -> Connect:
        return connect_to(redis_server)


@pytest.mark.slow
class TestOnTheOldestServer(RedisStoreContract):
    @pytest.fixture
    def connect(self, oldest_redis_server: RedisServer) -> Connect:
        return connect_to(oldest_redis_server)
