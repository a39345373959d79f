"""A call that has returned is safe: what it wrote is on the disk, and on the replica that must have it."""

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
from tests.unit.store.contract.samples import JOB, LONG, SENDER, add_ask, answer_call, create_bare_job, take_request
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


class TestWhatManyDoAtOnce:
    """They wait for the disk, or a replica, together: nobody has locked anything then that others wait for."""

    @pytest.fixture
    def store(self, server: PostgresServer) -> Store:
        store: Store = Database(server.url()).open_store()
        create_bare_job(store, JOB)
        store.leases.acquire_lease(SENDER, 0, "me", LONG)
        store.message_queue.add_requests(JOB, 0, range(3))
        return store

    def test_while_all_wait_each_has_done_its_part(self, server: PostgresServer, store: Store) -> None:
        replicate_to(server, "nobody")
        try:
            with psycopg.connect(server.url(), autocommit=True) as admin, ThreadPoolExecutor(6) as threads:
                wait_until(lambda: admin.execute("SHOW synchronous_standby_names").fetchall() == [("nobody",)])
                taken = [take_request(store, position, limit=100) for position in range(3)]
                assert {each.state for each in taken} == {"taken"}
                confirmed = threads.submit(store.message_queue.confirm_request, SENDER, "me", 0, LONG)
                saved = [threads.submit(store.message_queue.save_outcome, SENDER, n, b"x", spent=1) for n in range(3)]
                answer_call(store, 0, taken[0])
                wait_until(lambda: len(admin.execute(WAITING).fetchall()) == 4)
                assert store.results.count_outcomes(JOB, 0) == 3
                assert not any(each.done() for each in (confirmed, *saved))
                replicate_to(server, "")
                assert [each.result() for each in saved] == [True] * 3
        finally:
            replicate_to(server, "")
