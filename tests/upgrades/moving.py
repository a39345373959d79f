"""Stores that are copied by the command, between what an earlier release left and the workers that go on with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg

from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.store.postgres.migrations import migrate
from tests.postgres_server import PostgresServer
from tests.support import inherited


def copy_command(*args: str, broker: str, env: Mapping[str, str] = {}) -> subprocess.Popen[str]:
    """Start ``claude-batch copy-store``."""
    return subprocess.Popen(
        [sys.executable, "-m", "claude_batch_tasks.cli", "copy-store", *args],
        env={**inherited(), "CELERY_BROKER_URL": broker, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def copy_store(*args: str, broker: str) -> str:
    """Copy a store, and return what the command says."""
    with copy_command(*args, broker=broker) as process:
        output, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return output


def make_schema(url: str) -> None:
    """Create the tables of a store in a database."""
    with psycopg.connect(url) as connection:
        migrate(connection)


@contextmanager
def copied_to_postgres(redis: RedisServer, postgres: PostgresServer) -> Iterator[str]:
    """Yield the URL of a PostgreSQL into which a Redis was copied."""
    url = postgres.make_database()
    try:
        make_schema(url)
        copy_store(redis.url, url, broker=redis.url)
        yield url
    finally:
        postgres.drop_database(url)


@contextmanager
def copied_back(redis: RedisServer, postgres: PostgresServer) -> Iterator[str]:
    """Yield the URL of another Redis, into which it was copied from that PostgreSQL."""
    with copied_to_postgres(redis, postgres) as url, RedisServer() as another:
        copy_store(url, another.url, broker=redis.url)
        yield another.url
