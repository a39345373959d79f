"""What the tests of jobs share: a store, and jobs with outcomes in it."""

from __future__ import annotations

import pytest
from celery import Celery

from claude_batch_tasks.store import Store, open_store_at
from tests.unit.jobs.job_maker import Maker


@pytest.fixture
def store(app: Celery, redis_url: str) -> Store:
    return open_store_at(redis_url)


@pytest.fixture
def maker(app: Celery, store: Store) -> Maker:
    return Maker(app, store)
