"""What a worker does when the job of a pool of asks is revoked."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from celery import Celery

from claude_batch_tasks import ask, errors, run_batch
from claude_batch_tasks.lifecycle import pools
from claude_batch_tasks.records import Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import open_store
from claude_batch_tasks.tasks import seal_pool
from claude_batch_tasks.worker import ended_tasks
from tests.factories import make_params


def test_a_revoked_job_is_over_only_when_its_asks_are(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would end them after that."""
    app.set_current()
    store, result = open_store(Settings.of(app)), ask.delay(make_params(), ask_max_requests=1)
    [job_id] = store.pools.take_due(10, 60.0)[0]
    seal_pool.apply((job_id,))
    task, request = app.tasks[run_batch.name], SimpleNamespace(id=job_id)

    def break_off(*_: object, **__: object) -> None:
        raise errors.TransientError("the broker does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(pools, "fail_asks_of_job", break_off)
        ended_tasks.end_revoked_job(task, request)
    job = store.jobs.read_job(job_id)
    assert job is not None
    assert job.state == "staged"
    assert store.schedule.are_scheduled([Unit(job_id)]) == [True]
    ended_tasks.end_revoked_job(task, request)
    assert store.jobs.read_states([job_id]) == ["revoked"]
    with pytest.raises(errors.RequestFailed, match="its job was revoked"):
        result.get()
