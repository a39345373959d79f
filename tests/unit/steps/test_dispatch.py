"""The messages of what is due."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from claude_batch_tasks import errors
from claude_batch_tasks.lifecycle import recovery
from claude_batch_tasks.records import BatchRecord, JobRecord, Unit
from claude_batch_tasks.steps import dispatch
from claude_batch_tasks.store.redis import RedisStore

UNITS = [Unit(f"job-{number}", 0) for number in range(5)]


@pytest.fixture
def app(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> Celery:
    """Five jobs whose batches are due, in the store of this app."""
    for module in (dispatch, recovery):
        monkeypatch.setattr(module, "open_store", lambda settings: store)
    for unit in UNITS:
        record = JobRecord(nonce="n", requests=1, batches=1, submitted_at=1.0, state="running")
        store.jobs.create_job(unit.job_id, record, [BatchRecord(first=0, count=1, body_bytes=9)], 600, staged=False)
        store.leases.acquire_lease(unit, 5, "me", 600)
        store.leases.park_unit(unit, "me", 6, 5.0)
    app = Celery("delivering", set_as_current=False)
    app.conf.claude_batch_store_url = "redis://127.0.0.1:1/0"
    return app


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Unit]:
    """What was sent. Nothing can be sent of the third job, for a reason of its own."""
    found: list[Unit] = []

    def send(app: Celery, store: Any, unit: Unit, position: int, **_: Any) -> bool:
        if unit == UNITS[2]:
            raise KeyError("no such queue")
        found.append(unit)
        return True

    monkeypatch.setattr(dispatch, "send_message", send)
    return found


def test_one_that_cannot_be_sent_keeps_no_other_waiting(app: Celery, sent: list[Unit], store: RedisStore) -> None:
    dispatch.send_due(app)
    assert sorted(sent) == [unit for unit in UNITS if unit != UNITS[2]]
    assert store.schedule.take_due(10) == ([], pytest.approx(60, abs=30)), "and is tried again"


def test_one_that_cannot_be_sent_again_keeps_no_other_lost(app: Celery, sent: list[Unit], store: RedisStore) -> None:
    store.schedule.take_due(10)  # whoever handed them out has died
    assert recovery.recover_messages(app) == 4
    assert sorted(sent) == [unit for unit in UNITS if unit != UNITS[2]]


@pytest.mark.parametrize("error", [OperationalError("gone"), errors.StoreUnavailable("gone")])
def test_what_was_not_sent_is_not_lost(
    error: Exception, app: Celery, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "send_message", lambda *_, **__: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)):
        dispatch.send_due(app)
    if isinstance(error, OperationalError):
        units, pause = store.schedule.take_due(10)
        assert units or pause is not None, "due again in a second, or already on a busy machine"
    else:
        assert store.schedule.find_lost(UNITS[4], 0) is not None


def test_a_unit_whose_job_is_gone_stays_until_its_caller_can_be_told(
    app: Celery, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit, published, away = UNITS[0], [], True

    def publish(job: JobRecord, job_id: str, *_: Any, **__: Any) -> None:
        if away:
            raise OperationalError("the broker is away")
        published.append(job_id)

    monkeypatch.setattr(dispatch.message_chain, "publish_chain", publish)
    monkeypatch.setattr(dispatch.message_chain, "make_steps", lambda *_, **__: [])
    for key in store._redis.keys(f"*{unit.job_id}*:job"):
        store._redis.delete(key)
    assert not dispatch.send_message(app, store, unit, 6)  # a worker that knew the record may report it
    with pytest.raises(OperationalError):
        dispatch.send_message(app, store, unit, 6)
    assert store.schedule.are_scheduled([unit]) == [True]
    away = False
    assert dispatch.send_message(app, store, unit, 6)
    assert published == [unit.job_id]
    assert store.schedule.are_scheduled([unit]) == [False]
