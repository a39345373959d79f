"""The pytest fixtures ``claude_batch`` and ``claude_batch_app``; nothing is loaded before a test asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from celery import Celery

    from claude_batch_tasks.testing.claude_batch import ClaudeBatch


@pytest.fixture
def claude_batch_app() -> Celery:
    """Return the Celery app whose jobs ``claude_batch`` runs: the current one; override it if that is not yours."""
    from claude_batch_tasks.current_app import configured_app

    return configured_app()


@pytest.fixture
def claude_batch(claude_batch_app: Celery) -> Iterator[ClaudeBatch]:
    """Yield what runs jobs in memory, with scripted answers; no server, no worker, no key."""
    from claude_batch_tasks.testing.claude_batch import ClaudeBatch

    with ClaudeBatch(claude_batch_app).installed() as found:
        yield found
