"""The servers that tests of PostgreSQL start."""

from __future__ import annotations

import psycopg

from tests.postgres_server import PgBouncer, PostgresServer


def test_a_server_comes_back_from_a_crash_with_what_was_committed(postgres_server: PostgresServer) -> None:
    with PostgresServer(settings={"max_connections": 20}) as server:
        url = server.make_database()
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        with psycopg.connect(url):
            server.stop(kill=True)
        server.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT number, current_setting('max_connections') FROM kept").fetchall() == [
                (7, "20")
            ]


def test_a_pooler_gives_each_transaction_any_connection(pgbouncer: PgBouncer, postgres_url: str) -> None:
    through = pgbouncer.url_of(postgres_url)
    with psycopg.connect(through, autocommit=True) as one, psycopg.connect(through, autocommit=True) as other:
        processes = {c.execute("SELECT pg_backend_pid()").fetchone() for c in (one, other)}
    assert len(processes) == 1
