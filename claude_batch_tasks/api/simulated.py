"""A simulator in this process in place of Anthropic's API: for asks that are answered at once, in tests."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from contextvars import ContextVar

from claude_batch_tasks.api.sdk import anthropic
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.simulator import Behaviour, Scenario, Simulator
from claude_batch_tasks.simulator.server import missing_packages

#: Its batches end at once.
_SCENARIO = Scenario("eager", behaviour=Behaviour(processing_seconds=0.0))

#: Whether clients of any alias are those of the simulator.
_in_force: ContextVar[bool] = ContextVar("simulated", default=False)

_lock = threading.Lock()
_running: list[tuple[Simulator, anthropic.Anthropic]] = []


def _forget_parent() -> None:
    """Start again in a forked process, where the thread of the simulator does not exist."""
    global _lock
    _lock = threading.Lock()
    _running.clear()


os.register_at_fork(after_in_child=_forget_parent)


@contextlib.contextmanager
def simulated_api() -> Iterator[None]:
    """Have all calls of the API answered by a simulator until the end of the block.

    Raises:
        InvalidSettings: its packages are not installed.
    """
    if missing := missing_packages():
        raise InvalidSettings(
            f"ask_mode = 'eager-simulator' needs {' and '.join(missing)}: pip install 'claude-batch-tasks[simulator]'"
        )
    token = _in_force.set(True)
    try:
        yield
    finally:
        _in_force.reset(token)


def simulated_client() -> anthropic.Anthropic | None:
    """Return a client whose calls the simulator answers, if that is in force here; it is started when first used."""
    if not _in_force.get():
        return None
    with _lock:
        if not _running:
            simulator = Simulator(_SCENARIO).start()
            client = anthropic.Anthropic(
                base_url=simulator.url, api_key=simulator.env["ANTHROPIC_API_KEY"], max_retries=0
            )
            _running.append((simulator, client))
        return _running[0][1]
