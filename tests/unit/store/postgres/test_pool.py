"""The pool of a PostgreSQL store: connections that no longer work are noticed before anybody uses them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from claude_batch_tasks.embedded import free_port
from claude_batch_tasks.store.postgres import sources
from claude_batch_tasks.store.postgres.sources import Connected, Pool
from tests.unit.store.postgres.conftest import Database


@pytest.fixture
def pool(database: Database) -> Iterator[Pool]:
    made = Pool(database.url, "the test's database")
    yield made
    made.close()


def pid_of(connection: Connected) -> int:
    [(pid,)] = connection.execute("SELECT pg_backend_pid()").fetchall()
    return int(pid)


def use(pool: Pool) -> int:
    with pool.connect() as connection:
        return pid_of(connection)


def test_a_connection_is_used_again(pool: Pool) -> None:
    assert use(pool) == use(pool)


def test_each_thread_has_its_own(pool: Pool) -> None:
    with pool.connect() as first, pool.connect() as second:
        assert pid_of(first) != pid_of(second)


def test_a_connection_that_the_server_has_closed_is_replaced(pool: Pool, database: Database) -> None:
    pid = use(pool)
    database.run(f"SELECT pg_terminate_backend({pid}, 5000)")
    assert use(pool) != pid


def test_a_transaction_that_was_left_open_is_nobody_elses(pool: Pool) -> None:
    with pool.connect() as connection:
        pid = pid_of(connection)
        connection.execute("BEGIN")
    assert use(pool) != pid


def test_a_connection_that_broke_is_not_given_back(pool: Pool, database: Database) -> None:
    with pool.connect() as connection:
        database.run(f"SELECT pg_terminate_backend({pid_of(connection)}, 5000)")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert use(pool)


def test_a_server_that_refuses_is_noticed_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError), Pool(f"postgresql://127.0.0.1:{free_port()}/x", "nowhere").connect():
        pass
    assert time.monotonic() - began < sources._CONNECT_SECONDS / 2


def test_what_was_not_used_for_long_is_closed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    with pool.connect() as first, pool.connect() as second:
        pids = {pid_of(first), pid_of(second)}
    assert len(pool._idle) == 2
    monkeypatch.setattr(sources, "_MAX_IDLE", 0.01)
    time.sleep(0.05)
    assert use(pool) in pids
    assert len(pool._idle) == 1


def test_there_are_no_more_than_the_most(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MOST_CONNECTIONS", 2)
    pool = Pool(database.url, "the test's database")
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(lambda _: use(pool), range(100)))) <= 2
    monkeypatch.setattr(sources, "_CONNECT_SECONDS", 0.1)
    refused = pytest.raises(psycopg.OperationalError, match="all 2 connections of this process are in use")
    with pool.connect(), pool.connect(), refused:
        use(pool)
    pool.close()
