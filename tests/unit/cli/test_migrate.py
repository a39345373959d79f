"""The command that makes the tables of a store."""

from __future__ import annotations

import json
import re

import psycopg
import pytest
from celery import Celery
from click.testing import CliRunner, Result

from claude_batch_tasks.cli import claude_batch
from claude_batch_tasks.settings.store_urls import postgres_address
from tests.postgres_server import PostgresServer


def run(*args: str) -> Result:
    return CliRunner().invoke(claude_batch, ["migrate", *args])


def test_a_redis_has_nothing_to_migrate(app: Celery) -> None:
    assert re.fullmatch(r"The store \(127.0.0.1:\d+/\d+\) has no tables, so there is nothing to do.\n", run().output)
    assert run("--check").exit_code == 0
    assert run("--sql").output == "-- Nothing is left to do.\n"


@pytest.fixture
def on_postgres(app: Celery, postgres_url: str) -> str:
    """The URL of the app's store, an empty database."""
    app.conf.claude_batch_store_url = postgres_url
    return postgres_url


def test_the_tables_are_made_once(on_postgres: str) -> None:
    checked = run("--check")
    assert (checked.exit_code, checked.output) == (
        1,
        f"The tables of the store ({postgres_address(on_postgres)}) are missing, or are those of an earlier release. "
        "Nothing was changed. Run `claude-batch migrate`.\n",
    )
    assert json.loads(run("--json").output) == {"current": True, "changed": True}
    assert json.loads(run("--json").output) == {"current": True, "changed": False}
    assert run("--check").exit_code == 0


def test_what_it_prints_can_be_run_by_hand(on_postgres: str) -> None:
    printed = run("--sql").output
    assert run("--check").exit_code == 1
    with psycopg.connect(on_postgres, autocommit=True) as connection:
        connection.execute(printed)  # type: ignore[call-overload]
        connection.execute("CREATE ROLE app_of_test LOGIN")
    try:
        assert run("--check").exit_code == 0
        rights = "\n".join(line[3:] for line in printed.splitlines() if line.startswith(("-- GRANT", "-- ALTER")))
        with psycopg.connect(on_postgres, autocommit=True) as connection:
            connection.execute(rights.replace("TO app;", "TO app_of_test;"))  # type: ignore[call-overload]
        with psycopg.connect(on_postgres.replace("postgres@", "app_of_test@"), autocommit=True) as connection:
            connection.execute("SELECT claude_batch.clock(), (SELECT count(*) FROM claude_batch.jobs)")
    finally:
        with psycopg.connect(on_postgres, autocommit=True) as connection:
            connection.execute("DROP OWNED BY app_of_test")
            connection.execute("DROP ROLE app_of_test")


def test_a_user_without_the_right_is_told_what_it_takes(
    app: Celery, on_postgres: str, postgres_server: PostgresServer
) -> None:
    postgres_server.execute("CREATE ROLE guest_of_test LOGIN")
    try:
        app.conf.claude_batch_store_url = on_postgres.replace("postgres@", "guest_of_test@")
        said = run()
    finally:
        postgres_server.execute("DROP ROLE guest_of_test")
    assert said.exit_code == 1
    assert "permission denied for database" in said.output
    assert "claude-batch migrate --sql" in said.output


def test_a_command_before_it_says_what_to_do_on_one_line(on_postgres: str) -> None:
    said = CliRunner().invoke(claude_batch, ["list"])
    assert said.exit_code == 75
    assert said.output == (
        f"Error: the schema 'claude_batch' of the store at {postgres_address(on_postgres)} does not have what is "
        'needed (relation "claude_batch.schema_version" does not exist). Nothing was read or changed. Run '
        "`claude-batch migrate` (with Django: `manage.py migrate`); workers and callers continue after that.\n"
    )


def test_check_and_sql_exclude_each_other(on_postgres: str) -> None:
    assert run("--check", "--sql").exit_code == 2
