"""What is found of a PostgreSQL that is the store, and whether its notifications get through a pooler."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from claude_batch_tasks.checks import servers
from claude_batch_tasks.checks.problems import Finding
from claude_batch_tasks.doctor.servers import _check_server
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store.postgres import PostgresStore
from claude_batch_tasks.store.postgres.sources import Pool
from tests.postgres_server import PgBouncer, PostgresServer
from tests.unit.store.contract.samples import LONG, add_ask, park_batch
from tests.unit.store.postgres.conftest import Database

#: What every server of the tests has.
USUAL = {"claude_batch.W117"}


def findings(url: str, schema: str, *, thorough: bool = True) -> dict[str, Finding]:
    """What is found of a store, by ids, but for what every server of the tests has."""
    pool = Pool(url, "the test's database")
    try:
        report = PostgresStore(pool, schema).inspection.inspect_server(thorough=thorough)
    finally:
        pool.close()
    found = servers.findings_of(servers.Server({"store": url}), report)
    return {one.id: one for one in found if one.id not in USUAL}


@pytest.fixture
def role(database: Database) -> Iterator[str]:
    """A user with no rights but to connect."""
    name = f"role_{database.schema}"
    database.run(f"CREATE ROLE {name} LOGIN")
    yield name
    database.run(f"DROP OWNED BY {name}")
    database.run(f"DROP ROLE {name}")


def test_a_server_that_can_be_the_store_is_described(database: Database) -> None:
    settings = Settings(store_url=database.url, store_prefix=database.schema.removesuffix("claude_batch"))
    assert findings(database.url, database.schema) == {}
    report = database.open_store().inspection.inspect_server(thorough=True)
    assert report.product.startswith("PostgreSQL 1")
    assert database.schema in report.state
    assert "connections" in report.state
    assert report.ahead is not None
    assert abs(report.ahead) < 60
    assert settings.store_prefix == database.schema


def test_a_schema_that_is_not_there_says_what_to_run(database: Database) -> None:
    [found] = findings(database.url, "nobody_has_made_it").values()
    assert found.id == "claude_batch.E116"
    assert "claude-batch migrate" in str(found)


def test_what_doctor_says_of_a_schema_that_is_not_there(postgres_url: str) -> None:
    texts = [
        str(one) for one in _check_server(servers.Server({"store": postgres_url}), Settings(store_url=postgres_url))
    ]
    assert any("claude-batch migrate" in text for text in texts)
    assert all("the store's PostgreSQL (postgresql://127.0.0.1:" in text for text in texts)


def test_the_grants_that_are_named_are_enough(database: Database, role: str) -> None:
    url = database.url.replace("postgres@", f"{role}@")
    [found] = findings(url, database.schema).values()
    assert found.id == "claude_batch.E103"
    database.run("REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA claude_batch FROM PUBLIC")
    database.run("GRANT USAGE ON SCHEMA claude_batch TO " + role)
    [found] = findings(url, database.schema).values()
    for statement in found.hint.split(";"):
        database.run(statement)
    assert findings(url, database.schema) == {}
    pool = Pool(url, "the test's database")
    try:
        store = PostgresStore(pool, database.schema)
        store.schedule.wake_units([park_batch(store, 1, store.now() + LONG)])
        assert store.schedule.take_due(10)[0]
        assert add_ask(store, "a")
    finally:
        pool.close()


def test_settings_that_lose_what_was_confirmed(database: Database, role: str) -> None:
    database.run(f"ALTER ROLE {role} SET synchronous_commit = off")
    pool = Pool(database.url.replace("postgres@", f"{role}@"), "the test's database")
    report = PostgresStore(pool, database.schema).inspection.inspect_server(thorough=False)
    named = {each.values["name"] for each in report.problems if each.kind == "UNSAFE_COMMITS"}
    assert named == {"fsync", "full_page_writes", "synchronous_commit"}


def test_tables_that_nobody_vacuums(database: Database) -> None:
    database.run("ALTER TABLE claude_batch.units SET (autovacuum_enabled = false)")
    [found] = findings(database.url, database.schema).values()
    assert (found.id, "vacuum units by itself" in found.text) == ("claude_batch.W118", True)


def test_a_server_without_free_connections(postgres_server: PostgresServer) -> None:
    with PostgresServer(settings={"max_connections": 8, "superuser_reserved_connections": 1}) as server:
        held = [psycopg.connect(server.url()) for _ in range(7)]
        found = findings(server.url(), "none")
        for each in held:
            each.close()
    assert {"claude_batch.W119", "claude_batch.E116"} == found.keys()


def test_a_transaction_that_may_only_read(database: Database, role: str) -> None:
    database.run(f"ALTER ROLE {role} SET default_transaction_read_only = on")
    url = database.url.replace("postgres@", f"{role}@")
    assert "claude_batch.E104" in findings(url, database.schema, thorough=False)


def test_a_database_that_is_not_there(postgres_server: PostgresServer) -> None:
    [found] = findings(postgres_server.url("nowhere"), "none").values()
    assert (found.id, "has no database 'nowhere'" in found.text) == ("claude_batch.E114", True)


class TestThroughAPooler:
    def test_that_works_by_transactions_nobody_is_woken(self, database: Database, pgbouncer: PgBouncer) -> None:
        pool = Pool(pgbouncer.url_of(database.url), "the pooler")
        try:
            store = PostgresStore(pool, database.schema)
            with store.wakeups.listen() as listener:
                assert listener is None
            [note] = store.inspection.inspect_server(thorough=True).notes
            assert "pooler" in note
        finally:
            pool.close()

    def test_that_works_by_sessions_workers_are_woken(
        self, database: Database, postgres_server: PostgresServer
    ) -> None:
        with PgBouncer(postgres_server, settings={"pool_mode": "session"}) as pgbouncer:
            pool = Pool(pgbouncer.url_of(database.url), "the pooler")
            store = PostgresStore(pool, database.schema)
            unit = park_batch(store, 1, store.now() + LONG)
            with store.wakeups.listen() as listener:
                assert listener is not None
                store.schedule.wake_units([unit])
                assert listener.wait(10.0)
            pool.close()
