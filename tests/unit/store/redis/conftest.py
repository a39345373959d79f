"""A job to look at."""

from __future__ import annotations

import pytest

from claude_batch_tasks.store.redis import RedisStore
from tests.unit.store.contract.samples import create_staged_job


@pytest.fixture
def job(store: RedisStore) -> str:
    return create_staged_job(store)
