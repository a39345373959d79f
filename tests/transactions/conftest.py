"""The project on an empty database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_batch_tasks.simulator import Simulator
from tests.postgres_server import PostgresServer
from tests.transactions.rig import Project


@pytest.fixture
def empty_project(postgres_url: str, tmp_path: Path) -> Project:
    """The project before its first ``migrate``; it has no broker."""
    return Project(postgres_url, tmp_path)


@pytest.fixture(scope="session")
def migrated(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with all tables, from which others are copied."""
    url = postgres_server.make_database()
    Project(url, tmp_path_factory.mktemp("migrated")).migrate()
    return url


@pytest.fixture
def project(postgres_server: PostgresServer, migrated: str, tmp_path: Path) -> Iterator[Project]:
    """The project with its tables; it has no broker."""
    url = postgres_server.make_database(migrated)
    yield Project(url, tmp_path)
    postgres_server.drop_database(url)


@pytest.fixture
def served_project(project: Project, redis_url: str) -> Iterator[tuple[Project, Simulator]]:
    """The project with a broker and a result back end, and a simulator for its workers."""
    with Simulator("healthy") as simulator:
        project.env |= {"BROKER": redis_url, "BACKEND": redis_url, "ANTHROPIC_BASE_URL": simulator.url}
        yield project, simulator
