"""Servers and workers for the tests: each test starts what it needs on free ports and ends it again."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import celery.signals
import psycopg
import pytest
from celery import Celery
from celery.utils.dispatch import Signal

from claude_batch_tasks import signals
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.store.postgres.migrations import migrate
from tests.chaos.ledgers import LEDGERS, Ledger
from tests.postgres_server import PgBouncer, PostgresServer, why_missing
from tests.support import FAST, STORE, LendStore, inherited


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for workers begins first, so that no process is left with it when the others are through."""
    if STORE != "redis":
        for item in items:
            if marker := item.get_closest_marker("redis_store"):
                item.add_marker(pytest.mark.skip(reason=f"of the store on Redis: {marker.args[0]}"))
    items.sort(key=lambda item: item.get_closest_marker("workers") is None)


def pytest_collection_finish() -> None:
    """What is imported for a test of workers must not hear of other tests' tasks in this process."""
    for told in (*vars(celery.signals).values(), *vars(signals).values()):
        for _, receiver in told.receivers or () if isinstance(told, Signal) else ():
            module = getattr(receiver() if isinstance(receiver, weakref.ref) else receiver, "__module__", None) or ""
            if module.startswith("tests."):
                raise pytest.UsageError(f"{module} connects a receiver of {told.name} when it is imported")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis-compatible server for the whole run."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def _let_go(redis_server: RedisServer) -> Iterator[None]:
    """Results unsubscribe when they are collected, for which their Redis must still be there."""
    yield
    gc.collect()


@pytest.fixture(scope="module", autouse=True)
def _root_logger() -> Iterator[None]:
    """A worker in this process sets it up for itself, with a level that hides warnings."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers = handlers
    root.setLevel(level)


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty Redis."""
    redis_server.client().flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL for the whole run, which starts with the first test that wants it."""
    if reason := why_missing():
        pytest.skip(reason)
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """A PgBouncer in transaction mode in front of it: ``pgbouncer.url_of(postgres_url)``."""
    if reason := why_missing(pooler=True):
        pytest.skip(reason)
    with PgBouncer(postgres_server) as pooler:
        yield pooler


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty database, which is dropped when the test ends."""
    url = postgres_server.make_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def lend_store(request: pytest.FixtureRequest) -> LendStore:
    """``with lend_store(redis.url) as store_url``: an empty store of the kind ``STORE``, on that Redis if it is one."""
    server = migrated = None
    if STORE != "redis":
        server = request.getfixturevalue("postgres_server")
        migrated = server.make_database()
        with psycopg.connect(migrated, autocommit=True) as connection:
            migrate(connection)

    @contextmanager
    def lend(redis_url: str) -> Iterator[str]:
        if server is None:
            yield redis_url
            return
        url = server.make_database(migrated)
        yield url
        server.drop_database(url)

    return lend


@pytest.fixture
def store_url(redis_url: str, lend_store: LendStore) -> Iterator[str]:
    """The address of an empty store."""
    with lend_store(redis_url) as url:
        yield url


@pytest.fixture
def ledger(store_url: str) -> Ledger:
    """What is in that store, beyond its interface."""
    return LEDGERS[STORE](store_url)


@pytest.fixture
def store_setting(store_url: str) -> dict[str, str]:
    """The setting of an app with that store; none where it is the one that an app has of itself."""
    return {} if STORE == "redis" else {"claude_batch_store_url": store_url}


@pytest.fixture
def app(redis_url: str, store_setting: dict[str, str]) -> Iterator[Celery]:
    """The app a caller uses: the same broker, back end and store as the workers'."""
    app = Celery("tests", broker=redis_url, backend=redis_url, set_as_current=False)
    app.conf.update(broker_connection_retry_on_startup=True, result_expires=3600, **store_setting)
    app.loader.import_task_module("claude_batch_tasks.tasks")
    app.set_current()
    yield app
    app.close()


@pytest.fixture
def environment(redis_url: str, store_setting: dict[str, str]) -> dict[str, str]:
    """The environment of a worker, without an address of the API yet."""
    return {
        **inherited(),
        **FAST,
        "CELERY_BROKER_URL": redis_url,
        "CELERY_RESULT_BACKEND": redis_url,
        "ANTHROPIC_API_KEY": "sk-ant-test-key-never-to-be-seen",
        **{name.upper(): value for name, value in store_setting.items()},
    }


StartWorker = Callable[..., Worker]


@pytest.fixture
def start_worker(environment: dict[str, str], tmp_path: Path) -> Iterator[StartWorker]:
    """``start_worker(url, CLAUDE_BATCH_X="1", options=[...])`` starts a prefork worker with two processes."""
    with ExitStack() as stack:

        def start(url: str, *, options: tuple[str, ...] = ("--concurrency=2",), **env: str) -> Worker:
            log = tmp_path / f"worker-{len(list(tmp_path.glob('worker-*')))}.log"
            worker = Worker({**environment, "ANTHROPIC_BASE_URL": url, **env}, log, options=options)
            return stack.enter_context(worker)

        yield start
