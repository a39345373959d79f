"""What runs in the project: pieces of code, each in a process of its own, and its workers."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from claude_batch_tasks.embedded import Worker
from tests.support import inherited

ROOT = Path(__file__).parents[2]

#: What every piece of code begins with.
_BEFORE = """
import json, os, sys
import django
django.setup()
from django.core.management import call_command
from django.db import connection, connections, transaction
from claude_batch_tasks import BatchJob, ask, errors, run_batch
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import open_store
from tests.transactions.shop.celery import app
from tests.transactions.shop.models import Order
from tests.transactions.shop.tasks import follow, make_params, submit_in_block
REQUESTS = [{"custom_id": "a", "params": make_params()}]
store = open_store(Settings.of(app))
"""


@dataclass
class Project:
    """The project ``shop``, on a database, and with whatever else its processes find in their environment."""

    database: str
    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its processes."""
        own = {"DATABASE": self.database, "DJANGO_SETTINGS_MODULE": "tests.transactions.shop.settings"}
        return {**inherited(), **own, "PYTHONPATH": str(ROOT), **self.env}

    def start(self, code: str) -> subprocess.Popen[str]:
        """Start a piece of code."""
        script = _BEFORE + textwrap.dedent(code)
        command = [sys.executable, "-W", "error::ResourceWarning", "-c", script]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, env=self.environment, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )

    def run(self, code: str) -> Any:
        """Run a piece of code; what it printed last, as JSON."""
        process = self.start(code)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return json.loads(out.splitlines()[-1]) if out.strip() else None

    def manage(self, *command: str) -> str:
        """Run a command of Django's ``manage.py``; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "django", *command],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return f"{done.stdout}{done.stderr}exit code {done.returncode}"

    def migrate(self) -> None:
        """Make all tables."""
        said = self.manage("migrate", "--run-syncdb")
        assert said.endswith("exit code 0"), said

    def count_rows(self) -> dict[str, int]:
        """Return how many rows each table of the store has, without those that have none."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            names = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'claude_batch' AND tablename <> 'schema_version'"
            ).fetchall()
            counts = {
                name: connection.execute(f"SELECT count(*) FROM claude_batch.{name}").fetchone()[0]  # type: ignore[index]
                for (name,) in names
            }
        return {name: count for name, count in counts.items() if count}

    def worker(self, number: int = 0, **env: str) -> Worker:
        """Return a worker of the project that is not started yet; its log tells what happened."""
        key = {"ANTHROPIC_API_KEY": "sk-ant-test-key-never-to-be-seen"}
        log = self.folder / f"worker-{number}.log"
        options = ("--concurrency=2", f"--hostname=worker-{number}@shop")
        return Worker({**self.environment, **key, **env}, log, app="tests.transactions.shop", options=options)
