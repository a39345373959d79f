"""The store's tables in a Django project: made by its ``migrate`` where the store is in its database, nowhere else."""

from __future__ import annotations

import psycopg
import pytest

from claude_batch_tasks.store.postgres.migrations import VERSION
from tests.transactions.rig import Project

pytestmark = pytest.mark.latest


def has_schema(project: Project, name: str = "claude_batch") -> bool:
    with psycopg.connect(project.database) as connection:
        found = connection.execute("SELECT to_regnamespace(%s) IS NOT NULL", [name]).fetchone()
    return bool(found and found[0])


def test_each_version_of_the_tables_has_a_migration(empty_project: Project) -> None:
    versions = empty_project.run(
        """
        from django.db.migrations.loader import MigrationLoader
        from claude_batch_tasks.contrib.django.store_tables import MigrateStore
        found = MigrationLoader(None).disk_migrations
        print(json.dumps([operation.version for key in sorted(found) if key[0] == "claude_batch"
                          for operation in found[key].operations if isinstance(operation, MigrateStore)]))
        """
    )
    assert versions == list(range(1, VERSION + 1))


def test_migrate_makes_what_the_command_makes(empty_project: Project) -> None:
    assert not has_schema(empty_project)
    empty_project.migrate()
    assert empty_project.run("print(json.dumps(store.schema.is_current()))") is True
    assert "No planned migration operations" in empty_project.manage("migrate", "--plan")
    assert "No changes detected" in empty_project.manage("makemigrations", "--check", "claude_batch")


def test_sqlmigrate_shows_what_migrate_would_run(empty_project: Project) -> None:
    said = empty_project.manage("sqlmigrate", "claude_batch", "0003")
    assert 'CREATE TABLE "claude_batch".jobs' in said
    assert 'CREATE OR REPLACE FUNCTION "claude_batch".clock()' in said
    assert not has_schema(empty_project)


def test_a_project_with_another_store_gets_no_tables_until_it_moves_there(empty_project: Project) -> None:
    empty_project.env["STORE_URL"] = "redis://localhost:1/0"
    empty_project.migrate()
    assert not has_schema(empty_project)
    empty_project.env["STORE_URL"] = "django://default"
    said = empty_project.manage("migrate")
    assert "No migrations to apply" in said
    assert "The tables of the store of claude-batch-tasks were made" in said
    assert has_schema(empty_project)
    assert "were made" not in empty_project.manage("migrate")


def test_a_router_may_refuse(empty_project: Project) -> None:
    empty_project.env["ROUTERS"] = '["tests.transactions.shop.routers.Refuses"]'
    empty_project.migrate()
    assert not has_schema(empty_project)


def test_another_database_of_the_project_gets_none(empty_project: Project) -> None:
    said = empty_project.manage("migrate", "--database=files")
    assert said.endswith("exit code 0"), said
    assert not has_schema(empty_project)


def test_going_back_removes_the_tables_but_no_job(project: Project) -> None:
    project.run("with transaction.atomic(): run_batch.delay(REQUESTS)")
    refused = project.manage("migrate", "claude_batch", "0002")
    assert "the store has 1 jobs and asks, which would be lost; nothing was removed" in refused
    project.run("for job_id in list(store.jobs.job_ids()): store.storage.delete_job(job_id)")
    said = project.manage("migrate", "claude_batch", "0002")
    assert said.endswith("exit code 0"), said
    assert not has_schema(project)
    project.migrate()
    assert has_schema(project)


def test_django_s_test_runner_has_the_tables(project: Project) -> None:
    said = project.manage("test", "tests.transactions.shop.unittests", "--noinput")
    assert "Ran 4 tests" in said
    assert said.endswith("OK\nDestroying test database for alias 'default'...\nexit code 0"), said
