"""The stores that are compared, each on a server of its own, and what they have on disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benchmarks.servers import servers
from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.store import open_store_at
from tests.postgres_server import PostgresServer
from tests.s3_server import S3Server, run_s3_server

#: PostgreSQL as it is installed: safe. What waits for a lock for longer than ``deadlock_timeout`` is in its log.
_AS_INSTALLED = {
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "128MB",
    "log_lock_waits": "on",
    "deadlock_timeout": "10ms",
}

_TABLES = """
SELECT sum(pg_total_relation_size(oid)) FROM pg_class
WHERE relnamespace = 'claude_batch'::regnamespace AND relkind = 'r'
"""


@dataclass(frozen=True)
class ComparedStore:
    """A store: where its ledger is, and where its payloads are if they are elsewhere."""

    name: str
    url: str
    payload_url: str | None = None


@dataclass
class StoreServers:
    """The servers of one run."""

    redis: RedisServer
    postgres: PostgresServer
    s3: S3Server
    bucket: str
    broker_url: str
    api_url: str
    postgres_url: str

    @property
    def ledgers(self) -> tuple[ComparedStore, ComparedStore]:
        """The stores that have their payloads themselves; the first one is what the others are compared to."""
        return ComparedStore("Redis", self.redis.url), ComparedStore("PostgreSQL", self.postgres_url)

    @property
    def stores(self) -> list[ComparedStore]:
        """All stores: each ledger, and again with its payloads in S3."""
        elsewhere = [
            ComparedStore(f"{ledger.name} + S3", ledger.url, f"s3://{self.bucket}/{ledger.name}")
            for ledger in self.ledgers
        ]
        return [*self.ledgers, *elsewhere]

    def environment(self, store: ComparedStore) -> dict[str, str]:
        """Return what makes a case use a store."""
        payloads = {} if store.payload_url is None else {"BENCHMARK_PAYLOAD_URL": store.payload_url}
        return {**os.environ, "BENCHMARK_STORE_URL": store.url, **payloads, **self.s3.environment()}

    def measure_bytes(self) -> dict[str, int]:
        """Return how many bytes each server has for its stores."""
        with psycopg.connect(self.postgres_url, autocommit=True) as connection:
            row = connection.execute(_TABLES).fetchone()
        assert row is not None
        pages = self.s3.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return {
            "Redis": int(self.redis.client().info("memory")["used_memory"]),  # type: ignore[index]
            "PostgreSQL": int(row[0]),
            "S3": sum(each["Size"] for page in pages for each in page.get("Contents", [])),
        }

    def dump_redis(self) -> int:
        """Return how many bytes a snapshot of the Redis has."""
        client = self.redis.client()
        client.save()
        path = Path(self.redis.folder, "dump.rdb")
        return path.stat().st_size

    def count_lock_waits(self) -> int:
        """Return how often something has waited for a lock for over 10 ms."""
        return self.postgres.log.read_text(errors="replace").count("still waiting for")


@contextlib.contextmanager
def store_servers() -> Iterator[StoreServers]:
    """Run a server for each store, and those that cases need besides; what they have is gone afterwards."""
    with (
        servers() as (broker_url, api_url),
        RedisServer() as redis,
        PostgresServer(settings=_AS_INSTALLED) as postgres,
        run_s3_server() as s3,
    ):
        postgres_url = postgres.make_database()
        open_store_at(postgres_url).schema.migrate()
        yield StoreServers(redis, postgres, s3, s3.make_bucket(), broker_url, api_url, postgres_url)
