"""The servers that cases run against: a Redis, and a bare HTTP server, each a child process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from claude_batch_tasks.embedded import RedisServer, free_port

#: Where peers are installed, each in an environment of its own.
PEERS = Path(tempfile.gettempdir(), "claude-batch-peers")


@contextlib.contextmanager
def servers() -> Iterator[tuple[str, str]]:
    """The URLs of a Redis and of an API; what they keep is gone afterwards."""
    with RedisServer() as redis, tempfile.TemporaryDirectory() as folder:
        os.environ.update(BENCHMARK_FOLDER=folder, BENCHMARK_PEERS=str(PEERS))
        port = free_port()
        server = subprocess.Popen([sys.executable, "-m", "benchmarks.api", folder, str(port)])
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(200):
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/v1/messages/batches/x"):
                    break
                time.sleep(0.05)
            yield redis.url, url
        finally:
            server.kill()
            server.wait()
