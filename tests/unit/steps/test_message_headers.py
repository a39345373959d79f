"""What of a message's headers a job carries."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context

from claude_batch_tasks import run_batch
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import message_headers
from claude_batch_tasks.store import open_store
from tests.factories import make_job_record

JOB = make_job_record(submitted_at=0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"x": "a" * 70_000}, "70,0.. bytes"), ({"x": object()}, "JSON"), (["x"], "mapping")],
)
def test_what_cannot_be_carried_is_refused(wrong: Any, says: str, app: Celery, make_request: Any) -> None:
    with pytest.raises(InvalidSettings, match=says):
        run_batch.apply_async(([make_request("a")],), headers=wrong)
    assert list(open_store(Settings.of(app)).jobs.job_ids()) == []
    assert app.backend.client.keys("celery*") == []


def test_neither_celerys_nor_ours_nor_a_brokers_are_carried() -> None:
    message = {
        "lang": "py", "task": "t", "id": "1", "root_id": "1", "retries": 2, "timelimit": [None, None], "shadow": None,
        "stamped_headers": ["stamp"], "stamps": {"stamp": 1}, "stamp": 1, "x-death": [], "x-delivery-count": 3,
        "claude_batch_countdown": 3, "x_tenant": "a", "headers": {"sentry-trace": "t"},
    }  # fmt: skip
    for seen in (message, Context(message)):
        carried = message_headers.add_headers("job", JOB, seen)
        assert message_headers.headers_of(make_job_record(submitted_at=0, headers=carried)) == {
            "x_tenant": "a",
            "sentry-trace": "t",
        }


def test_too_many_put_in_by_a_handler_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    assert message_headers.add_headers("job", JOB, {"x": "a" * 70_000}) is None
    assert "lack headers" in caplog.text
