"""`claude-batch copy-store` between servers: what it says and changes, also when it is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import psycopg
import pytest

from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.errors import StoreMoved
from claude_batch_tasks.store import Store
from claude_batch_tasks.store.postgres.migrations import migrate
from claude_batch_tasks.store.postgres.sources import Pool
from claude_batch_tasks.store.postgres.store import PostgresStore
from claude_batch_tasks.store.redis import RedisStore
from tests.postgres_server import PostgresServer
from tests.support import inherited, wait_until
from tests.unit.store.contract.samples import create_bare_job, make_presence
from tests.unit.store.contract.transfer import fill

#: Small jobs beside those of each kind.
MANY = 300

#: The address of a new store, and what opens it.
New = tuple[str, Callable[[], Store]]


def start(*args: str, broker: str) -> subprocess.Popen[str]:
    """Start ``claude-batch copy-store``."""
    return subprocess.Popen(
        [sys.executable, "-m", "claude_batch_tasks.cli", "copy-store", *args],
        env={**inherited(), "CELERY_BROKER_URL": broker},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*args: str, broker: str) -> tuple[int, str, str]:
    """Run it, and return its exit code and what it says."""
    with start(*args, broker=broker) as process:
        output, error = process.communicate(timeout=300)
    return process.returncode, output, error


@pytest.fixture
def old() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def open_old(server: RedisServer) -> Store:
    return RedisStore(server.client(), "the old store")


@pytest.fixture(params=["Redis", "PostgreSQL"])
def new(request: pytest.FixtureRequest) -> Iterator[New]:
    if request.param == "Redis":
        with RedisServer() as server:
            yield server.url, lambda: RedisStore(server.client(), "the new store")
        return
    postgres: PostgresServer = request.getfixturevalue("postgres_server")
    url = postgres.make_database()
    with psycopg.connect(url) as connection:
        migrate(connection)
    pools: list[Pool] = []

    def open_new() -> Store:
        pools.append(Pool(url, "the new store"))
        return PostgresStore(pools[-1])

    yield url, open_new
    for pool in pools:
        pool.close()
    postgres.drop_database(url)


def test_a_copy_that_is_killed_goes_on_where_it_was(old: RedisServer, new: New) -> None:
    url, open_new = new
    store = open_old(old)
    fill(store)
    for number in range(MANY):
        create_bare_job(store, f"small:{number}", state="completed")
    count = len(list(store.transfer.list_ids()))
    target = open_new()
    target.transfer.open()
    with start(old.url, url, broker=old.url) as process:
        wait_until(lambda: len(list(target.transfer.list_ids())) > MANY // 10)
        os.kill(process.pid, signal.SIGKILL)
    there = len(list(target.transfer.list_ids()))
    assert there < count
    with pytest.raises(StoreMoved, match="are being copied"):
        open_new().check_schema()
    open_old(old).check_schema()

    code, output, error = run(old.url, url, "--json", broker=old.url)
    assert code == 0, error
    report = json.loads(output)
    assert (report["unchanged"], report["copied"]) == (there, count - there)
    assert len(list(open_new().transfer.list_ids())) == count
    with pytest.raises(StoreMoved):
        open_old(old).check_schema()


def test_what_it_says(old: RedisServer, new: New) -> None:
    url, open_new = new
    store = open_old(old)
    fill(store)
    code, output, _ = run(old.url, url, "--dry-run", broker=old.url)
    assert code == 0
    assert "Would copy" in output
    open_new().check_schema()

    store.presence.report_worker(make_presence(), 60.0)
    code, _, error = run(old.url, url, broker=old.url)
    assert code == 1
    assert "is used by 1 worker: celery@a." in error
    store.presence.remove_worker("celery@a")

    code, output, error = run(old.url, url, broker=old.url)
    assert code == 0, error
    assert "All of it was read back and compared" in output
    assert "Set claude_batch_store_url of all workers and callers to" in output
    code, _, error = run(old.url, url, broker=old.url)
    assert code == 1
    assert "have been moved to" in error

    code, _, error = run(old.url, "--use-again", broker=old.url)
    assert code == 0
    assert "can be used again" in error
    open_old(old).check_schema()


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("nonsense://", "redis://h"), "FROM: claude_batch_store_url"),
        (("redis://h",), "TO is missing"),
    ],
)
def test_wrong_arguments_are_named(old: RedisServer, args: tuple[str, ...], text: str) -> None:
    code, _, error = run(*args, broker=old.url)
    assert code == 2
    assert text in error


def test_a_store_that_does_not_answer_is_told(old: RedisServer) -> None:
    code, _, error = run(old.url, "postgresql://127.0.0.1:1/none", broker=old.url)
    assert code == 75
    assert "did not answer" in error
    assert open_old(old).transfer.read_mark() is None


def test_a_database_without_tables_is_told_how_to_make_them(old: RedisServer, postgres_url: str) -> None:
    """The app's own settings name the old store, of which ``claude-batch migrate`` would say that all is there."""
    open_old(old).check_schema()
    code, _, error = run(old.url, postgres_url, broker=old.url)
    assert code == 1
    assert "are not there" in error
    assert "with the address TO in CLAUDE_BATCH_STORE_URL" in error
    command = [sys.executable, "-m", "claude_batch_tasks.cli", "migrate"]
    env = {**inherited(), "CELERY_BROKER_URL": old.url, "CLAUDE_BATCH_STORE_URL": postgres_url}
    subprocess.run(command, env=env, check=True, timeout=120)
    code, _, error = run(old.url, postgres_url, broker=old.url)
    assert code == 0, error
