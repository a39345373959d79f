"""PostgreSQL and PgBouncer for the tests: each on a free port, in a folder of its own, stopped by its process id."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from typing_extensions import Self

from claude_batch_tasks.embedded import free_port

#: Seconds that a server may take to start or to stop; generous for a busy machine.
START = 60.0

#: Who runs the servers if the tests are root's, which PostgreSQL refuses.
UNPRIVILEGED = "postgres"

#: Fast instead of safe: what a killed server had in its files is still in the kernel's cache.
FAST: Mapping[str, Any] = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": 200,
    "shared_buffers": "32MB",
    "wal_level": "replica",
    "log_min_duration_statement": -1,
}


def postgres_folder() -> str | None:
    """The folder with PostgreSQL's programs; None: it is not installed."""
    debian = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[-2]))
    found = shutil.which("initdb") and shutil.which("postgres")
    return debian[-1] if debian else str(Path(found).resolve().parent) if found else None


class _Server:
    """A server that an unprivileged user runs."""

    port: int
    folder: str
    _process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What the server said."""
        return Path(self.folder, "server.log")

    def run(self, *command: str) -> None:
        """Run a program of the server's as its user, until it ends."""
        with self.log.open("ab") as log:
            done = subprocess.run(command, stdout=log, stderr=log, cwd=self.folder, check=False, **_as_user())
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{self.log.read_text()[-3000:]}")

    def _make_folder(self) -> None:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(self.folder, UNPRIVILEGED, UNPRIVILEGED)

    def _launch(self, *command: str) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **_as_user()
            )
        deadline = time.monotonic() + START
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(psycopg.OperationalError):
                self.execute("SELECT 1")
                return
            time.sleep(0.05)
        raise RuntimeError(f"the server did not start:\n{self.log.read_text()[-3000:]}")

    def execute(self, statement: str) -> None:
        """Execute a statement outside a transaction."""
        raise NotImplementedError

    def _end(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(START)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None


@dataclass
class PostgresServer(_Server):
    """A PostgreSQL with a superuser ``postgres`` whom it trusts, on 127.0.0.1; nothing survives it but a restart.

    >>> with PostgresServer(settings={"max_connections": 20}) as server:
    ...     url = server.make_database()
    """

    port: int = field(default_factory=free_port)
    folder: str = field(default_factory=lambda: tempfile.mkdtemp(prefix="claude-batch-postgres-"))
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> str:
        """The folder of the cluster."""
        return os.path.join(self.folder, "data")

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """The URL of one of its databases, for psycopg and for ``claude_batch_store_url``."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def make_database(self, template: str = "") -> str:
        """Make an empty database, or a copy of the one at another URL; its URL."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        copy = f" TEMPLATE {template.rpartition('/')[2]}" if template else ""
        self.execute(f"CREATE DATABASE {name}{copy}")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Execute a statement outside a transaction, as superuser."""
        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    def prepare(self) -> None:
        """Make its folder, into which a base backup of another server may go before it starts."""
        self._make_folder()

    def start(self) -> None:
        """Start it, and wait until it answers; the first time, make its files, unless a base backup is there."""
        programs = postgres_folder()
        if programs is None:
            raise RuntimeError("no PostgreSQL: apt-get install postgresql")
        self._make_folder()
        if not os.path.exists(os.path.join(self.data, "PG_VERSION")):
            options = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username=postgres")
            self.run(f"{programs}/initdb", f"--pgdata={self.data}", *options)
        own = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.folder}
        settings = {**FAST, **own, **self.settings}
        given = [f"--{name}={value}" for name, value in settings.items()]
        self._launch(f"{programs}/postgres", "-D", self.data, *given)

    def stop(self, *, kill: bool = False) -> None:
        """Stop it: open connections are closed; ``kill``: at once and without a checkpoint, as if it crashed."""
        self._end(signal.SIGQUIT if kill else signal.SIGINT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(kill=True)
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class PgBouncer(_Server):
    """A PgBouncer in front of a server, in transaction mode unless ``settings`` say otherwise."""

    server: PostgresServer
    port: int = field(default_factory=free_port)
    folder: str = field(default_factory=lambda: tempfile.mkdtemp(prefix="claude-batch-pgbouncer-"))
    settings: Mapping[str, Any] = field(default_factory=dict)

    def url_of(self, url: str) -> str:
        """The URL that reaches a database of the server through the pooler."""
        return url.replace(f":{self.server.port}/", f":{self.port}/")

    def execute(self, statement: str) -> None:
        """Execute a statement outside a transaction, through the pooler."""
        url = self.url_of(self.server.url())
        with psycopg.connect(url, autocommit=True, connect_timeout=5, prepare_threshold=None) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        binary = _pgbouncer()
        if binary is None:
            raise RuntimeError("no PgBouncer: apt-get install pgbouncer")
        self._make_folder()
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": 10,
            "max_client_conn": 500,
            "ignore_startup_parameters": "extra_float_digits",
            **self.settings,
        }
        lines = ["[databases]", f"* = host=127.0.0.1 port={self.server.port} user=postgres", "[pgbouncer]"]
        path = Path(self.folder, "pgbouncer.ini")
        path.write_text("\n".join([*lines, *(f"{name} = {value}" for name, value in settings.items()), ""]))
        path.chmod(0o644)
        self._launch(binary, str(path))

    def stop(self) -> None:
        """Stop it at once."""
        self._end(signal.SIGTERM)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _as_user() -> dict[str, Any]:
    """The arguments of ``subprocess`` for a program that refuses to be root's."""
    return {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": ()} if os.geteuid() == 0 else {}


def why_missing(*, pooler: bool = False) -> str:
    """Why no server can be started here, for ``pytest.skip``; empty if one can."""
    if postgres_folder() is None:
        return "no PostgreSQL: apt-get install postgresql"
    if pooler and _pgbouncer() is None:
        return "no PgBouncer: apt-get install pgbouncer"
    return ""


def _pgbouncer() -> str | None:
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
