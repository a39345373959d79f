"""A job begins when a plain task with the same ``eta`` does, in every time zone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import errors, run_batch
from claude_batch_tasks.embedded import Worker
from tests.integration.rig import requests
from tests.integration.test_routing import NAME, got, project
from tests.support import wait_until

__all__ = ["project"]

pytestmark = [pytest.mark.slow, pytest.mark.workers, pytest.mark.timeout(120)]

#: Long enough that a job that a worker takes for lost is begun again before.
SECONDS = 12


@pytest.fixture(params=["America/New_York", "Asia/Tokyo"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The time zone of this machine."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def etas() -> list[Any]:
    """The same moment, in all the ways in which it can be said."""
    moment = datetime.now(timezone.utc) + timedelta(seconds=SECONDS)
    naive = moment.replace(tzinfo=None)
    west = moment.astimezone(timezone(timedelta(hours=-8)))
    return [naive, naive.isoformat(), moment, moment.isoformat().replace("+00:00", "Z"), west, west.isoformat()]


@pytest.mark.parametrize(
    "conf", [{}, {"timezone": "Europe/Berlin"}, {"enable_utc": False, "timezone": "Asia/Tokyo"}], ids=str
)
def test_a_job_begins_when_a_plain_task_does(
    conf: dict[str, Any], zone: str, app: Celery, project: Callable[..., Worker]
) -> None:
    app.conf.update(conf)
    project(conf=conf, CLAUDE_BATCH_RECOVER_AFTER="1", TZ=zone)
    moments = etas()
    due = moments[2].timestamp()
    for eta in moments:
        app.signature("routed.plain").apply_async(eta=eta)
        run_batch.apply_async((requests("job", 1),), eta=eta)
    ran: dict[str, list[float]] = {"routed.plain": [], NAME + "run_batch": []}

    def all_ran() -> bool:
        for task in ran:
            ran[task] = [when for name, _, _, when in got(app) if name == task]
        return all(len(times) >= len(moments) for times in ran.values())

    wait_until(all_ran)
    assert [when for times in ran.values() for when in times if not due - 0.5 < when < due + 6] == []
    assert len(ran[NAME + "run_batch"]) == len(moments)


@pytest.mark.parametrize("wrong", ["soon", 5, timedelta(seconds=5)])
def test_what_is_no_moment_is_refused(wrong: Any, app: Celery) -> None:
    with pytest.raises(errors.InvalidSettings, match="eta"):
        run_batch.apply_async((requests("job", 1),), eta=wrong)
