"""What a caller is told is safe: it is on the disk, and on the replica that must have it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.store import Store
from tests.postgres_server import PostgresServer, why_missing
from tests.support import wait_until
from tests.unit.store.contract.samples import add_ask
from tests.unit.store.postgres.conftest import Database

pytestmark = pytest.mark.skipif(bool(why_missing()), reason=why_missing())

#: What waits for the replica.
WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """Return a server that can be made to wait for a replica, which there is not."""
    with PostgresServer() as server:
        yield server


def replicate_to(server: PostgresServer, name: str) -> None:
    server.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    server.execute("SELECT pg_reload_conf()")


def test_an_ask_that_is_asked_again_is_as_safe_as_a_new_one(server: PostgresServer) -> None:
    store: Store = Database(server.url()).open_store()
    store.check_schema()
    replicate_to(server, "nobody")
    with psycopg.connect(server.url(), autocommit=True) as admin, ThreadPoolExecutor(1) as thread:

        def list_waiting() -> list[Any]:
            return admin.execute(WAITING).fetchall()

        first = thread.submit(add_ask, store, "a")
        wait_until(list_waiting)
        admin.execute(f"SELECT pg_terminate_backend(pid) FROM ({WAITING}) AS waiting")  # type: ignore[call-overload]
        with pytest.raises(StoreUnavailable):
            first.result()
        wait_until(lambda: not list_waiting())
        again = thread.submit(add_ask, store, "a")
        wait_until(list_waiting)
        assert not again.done()
        replicate_to(server, "")
        assert again.result() == store.asks.read_places(["a"])[0]
