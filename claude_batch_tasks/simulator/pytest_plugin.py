"""The pytest fixtures `claude_batch_simulator` and `claude_batch_simulator_factory`.

The simulator is loaded only when a test asks for one of them. After each test that used the package, all that the
package keeps in the process is forgotten.

    def test_my_pipeline(claude_batch_simulator):
        claude_batch_simulator.reset("results-404")
        client = anthropic.Anthropic(base_url=claude_batch_simulator.url, api_key="any", max_retries=0)
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .script import Scenario
    from .server import Simulator


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Reset the package, so that no test sees the clients and connections of another; nothing is loaded for it."""
    if "claude_batch_tasks.settings" in sys.modules:
        importlib.import_module("claude_batch_tasks.testing").reset()


@pytest.fixture(scope="session")
def _claude_batch_simulator_server() -> Iterator[Simulator]:
    from .server import Simulator, missing_packages

    if missing := missing_packages():
        pytest.skip(f"{' and '.join(missing)} missing: pip install 'claude-batch-tasks[simulator]'")
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def claude_batch_simulator(_claude_batch_simulator_server: Simulator) -> Simulator:
    """Return a running simulator, empty and healthy at the start of each test; `reset(scenario)` chooses another."""
    _claude_batch_simulator_server.reset("healthy")
    return _claude_batch_simulator_server


@pytest.fixture
def claude_batch_simulator_factory() -> Iterator[Callable[[str | Scenario], Simulator]]:
    """Yield a function that starts a simulator, any number of times: `factory("storm")`. They stop with the test."""
    from .server import Simulator, missing_packages

    if missing := missing_packages():
        pytest.skip(f"{' and '.join(missing)} missing: pip install 'claude-batch-tasks[simulator]'")
    with ExitStack() as stack:
        yield lambda scenario: stack.enter_context(Simulator(scenario))
