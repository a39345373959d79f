"""Workers that are configured one by one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Simulator
from tests.integration.rig import set_up


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator("healthy") as running:
        yield running


@pytest.fixture
def start_here(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """``start_here(url, options=..., config={...}, NAME="value")``: a worker with settings of its own."""
    numbers = itertools.count(1)
    with ExitStack() as stack:

        def start(
            url: str,
            *,
            options: tuple[str, ...] = ("--concurrency=4",),
            config: dict[str, Any] | None = None,
            app: str = "claude_batch_tasks.app",
            name: str = "",
            **env: str,
        ) -> Worker:
            name = name or f"worker-{next(numbers)}"
            folder = tmp_path / name
            worker = Worker(
                # Nothing may be lost that would have to be sent again, except where a test says so.
                {**environment, "ANTHROPIC_BASE_URL": url, "CLAUDE_BATCH_RECOVER_AFTER": "3600", **env},
                folder.with_suffix(".log"),
                app=app,
                options=(*options, f"--hostname={name}@tests"),
                cwd=set_up(folder, **(config or {})),
            )
            # Killed, because how it stops is the tests' own subject, and takes its time.
            stack.callback(worker.stop, kill=True)
            worker.start()
            return worker

        yield start
