"""A store with its payloads in an object store does what every store must do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import fakeredis
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from claude_batch_tasks.embedded import RedisServer, free_port
from claude_batch_tasks.store import Store
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.objects.bucket import MARKER, Bucket
from claude_batch_tasks.store.objects.names import SHARDS
from claude_batch_tasks.store.objects.places import Places
from claude_batch_tasks.store.objects.store import with_objects
from claude_batch_tasks.store.objects.sweep import GRACE, Sweep
from claude_batch_tasks.store.packing import Packer
from claude_batch_tasks.store.postgres import PostgresStore
from claude_batch_tasks.store.postgres.sources import Pool
from claude_batch_tasks.store.redis import RedisStore
from tests.unit.conftest import list_keys
from tests.unit.store.contract import StoreContract
from tests.unit.store.contract.samples import Contents, OpenStore, PassTime
from tests.unit.store.postgres.conftest import Database, common_database as common_database
from tests.unit.store.postgres.test_contract import TestOnPostgres as _OnPostgres, list_contents
from tests.unit.store.redis.movable_time import PASSED, MovableTime
from tests.unit.store.redis.test_contract import Connect, connect_to


def sweep_all(store: Store, url: str, pass_time: PassTime) -> None:
    """Remove what expired jobs have left, as workers do in the course of some days."""
    store.storage.forget_expired()
    pass_time(GRACE + 1)
    sweep = Sweep(store, Places(store, url, Packer(Cipher())))
    for shard in range(SHARDS):
        sweep.sweep_shard(shard)


class ObjectStoreContract(StoreContract):
    """The tests of a store, with ledger and objects where the fixtures ``connect`` and ``payload_url`` say."""

    @pytest.fixture
    def pass_time(self, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> MovableTime:
        return MovableTime(connect(), monkeypatch)

    @pytest.fixture
    def open_store(self, connect: Connect, pass_time: MovableTime, payload_url: str) -> Iterator[OpenStore]:
        with ExitStack() as stack:

            def open_store() -> Store:
                client = pass_time.move_client(connect())
                stack.callback(client.close)
                return with_objects(RedisStore(client, "the test's server"), payload_url)

            yield open_store

    @pytest.fixture
    def contents(self, connect: Connect, payload_url: str) -> Contents:
        client, bucket = connect(), Bucket(payload_url)

        def contents() -> set[str]:
            objects = {found.path for found in bucket.list("")} - {MARKER}
            return list_keys(client) - {PASSED} | objects

        return contents

    @pytest.fixture
    def forget_expired(self, pass_time: MovableTime, payload_url: str) -> Callable[[Store], None]:
        return lambda store: sweep_all(store, payload_url, pass_time)

    @pytest.fixture
    def unreachable_store(self, payload_url: str) -> Store:
        ledger = RedisStore(redis.Redis(port=free_port(), retry=Retry(NoBackoff(), 0)), "no server")
        return with_objects(ledger, payload_url)


class TestInAFolder(ObjectStoreContract):
    @pytest.fixture
    def connect(self) -> Connect:
        server = fakeredis.FakeServer()
        return lambda: fakeredis.FakeRedis(server=server)

    @pytest.fixture
    def payload_url(self, tmp_path: Path) -> str:
        return f"file://{tmp_path}"


class WhatObjectsChange:
    """The tests of parts that are the ledger's own are left out: those of a folder show that they are reached."""

    TestHistory = TestLeases = TestBatchIds = TestSchedule = TestInFlight = TestBudget = TestMessageQueue = None
    TestPools = TestAsks = TestStatistics = TestPresence = TestInspection = TestWakeups = TestTransactions = None
    TestSchema = TestJobSearch = None


class TestOnS3(WhatObjectsChange, ObjectStoreContract):
    @pytest.fixture
    def connect(self, redis_server: RedisServer) -> Connect:
        return connect_to(redis_server)

    @pytest.fixture
    def payload_url(self, s3_url: str) -> str:
        return s3_url


class TestWithPostgres(WhatObjectsChange, _OnPostgres):
    """The ledger is a PostgreSQL, and objects are in a folder."""

    @pytest.fixture
    def payload_url(self, tmp_path: Path) -> str:
        return f"file://{tmp_path}"

    @pytest.fixture
    def open_store(self, database: Database, payload_url: str) -> OpenStore:
        return lambda: with_objects(database.open_store(), payload_url)

    @pytest.fixture
    def contents(self, database: Database, payload_url: str) -> Contents:
        of_ledger, bucket = list_contents(database), Bucket(payload_url)

        def contents() -> set[str]:
            rows = {row for row in of_ledger() if not row.startswith(("flags: (identity", "flags: (first:objects"))}
            return rows | {found.path for found in bucket.list("")} - {MARKER}

        return contents

    @pytest.fixture
    def forget_expired(self, pass_time: PassTime, payload_url: str) -> Callable[[Store], None]:
        return lambda store: sweep_all(store, payload_url, pass_time)

    @pytest.fixture
    def unreachable_store(self, payload_url: str) -> Store:
        ledger = PostgresStore(Pool(f"postgresql://127.0.0.1:{free_port()}/none", "no server"))
        return with_objects(ledger, payload_url)
