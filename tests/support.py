"""What all tests of workers share: countdowns short enough for tests, a clean environment, and waiting."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

#: Countdowns short enough for tests, in the environment of every worker.
FAST = {
    "CLAUDE_BATCH_POLL_MIN": "0.2",
    "CLAUDE_BATCH_POLL_MAX": "0.5",
    "CLAUDE_BATCH_RETRY_MIN": "0.2",
    "CLAUDE_BATCH_RETRY_MAX": "1",
    "CLAUDE_BATCH_CREATE_SETTLE": "1.5",
    "CLAUDE_BATCH_LEASE": "3",
    "CLAUDE_BATCH_RECOVER_EVERY": "1",
    "CLAUDE_BATCH_RECOVER_AFTER": "5",
    "CLAUDE_BATCH_ASK_MAX_WAIT": "0.5",
}

#: The store of the tests of workers: "redis", which is that of broker and result back end, or "postgres".
STORE = os.environ.get("STORE", "redis")

#: ``with lend_store(redis.url) as store_url``: see the fixture.
LendStore = Callable[[str], AbstractContextManager[str]]

#: Ends every attempt to connect to a Redis with an error, and leaves a file that says so: code, for ``exec``.
REFUSE_REDIS = """
import pathlib, redis.connection
def refuse(self, *args, **kwargs):
    pathlib.Path({path!r}).write_text(repr(self))
    raise SystemError('a connection to a Redis')
redis.connection.AbstractConnection.connect = refuse
"""

#: How a broker is asked in a test in which there is none: of ``broker_transport_options`` or the publish policy.
ASKED_ONCE = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}


def inherited() -> dict[str, str]:
    """This process's environment without settings of the ready-made app or of the client."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CELERY_", "CLAUDE_BATCH_", "ANTHROPIC_"))
    }


def is_worker() -> bool:
    """Whether this process is a worker, and not that of a test which imports what the worker runs."""
    return "worker" in sys.argv


def wait_until(true: Callable[[], Any], seconds: float = 120.0) -> Any:
    """The first true value; fails the test after that many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := true():
            return value
        time.sleep(0.02)
    raise AssertionError(f"did not become true within {seconds:g} s")
