"""Django's and Flask's own task classes, as their documentation has them: the job runs as a plain task would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from claude_batch_tasks.simulator import Simulator
from tests.frameworks.projects import Project, make
from tests.support import FAST

pytestmark = [pytest.mark.slow, pytest.mark.workers, pytest.mark.timeout(180)]

_REQUESTS = """
def requests(name):
    message = {"role": "user", "content": "prompt of " + name}
    return [{"custom_id": name, "params": {"model": "claude-haiku-4-5", "max_tokens": 16, "messages": [message]}}]
"""

_CALLER = (
    """
import json, time
from mysite import celery_app as app
import django
django.setup()
from django.db import transaction
from claude_batch_tasks import BatchJob, list_jobs, run_batch
from mysite.celery import plain
"""
    + _REQUESTS
    + """
class Undo(Exception):
    pass

def send(name, undo):
    try:
        with transaction.atomic():
            SEND
            waiting = app.backend.client.llen("celery")
            if undo:
                raise Undo
    except Undo:
        pass
    return waiting

waiting = [send("undone", True), send("done", False)]
end = time.monotonic() + 60
while not (begun := [job.job_id for job in list_jobs(app=app) if job.state != "staged"]) and time.monotonic() < end:
    time.sleep(0.1)
ended = [BatchJob(job_id, app).get(timeout=90)["succeeded"] for job_id in begun]
time.sleep(3)  # in which the other would be found lost
staged = [job.state for job in list_jobs(app=app)].count("staged")
ran = app.backend.client.llen("ran")
print(json.dumps({"waiting": waiting, "ended": ended, "staged": staged, "ran": ran}))
"""
)

_PLAIN = """
@app.task(name="plain")
def plain():
    app.backend.client.rpush("ran", 1)
"""

#: addons-server's
_AFTER_COMMIT = """
import functools
from celery import Task
from django.db import transaction

class AfterCommit(Task):
    def original_apply_async(self, *args, **kwargs):
        return super().apply_async(*args, **kwargs)

    def apply_async(self, args=None, kwargs=None, **options):
        transaction.on_commit(functools.partial(self.original_apply_async, args=args, kwargs=kwargs, **options))

"""


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator("healthy") as running:
        yield running


def environment(simulator: Simulator) -> dict[str, str]:
    """Of the project's processes, in which lost messages are looked for all the time."""
    return {"ANTHROPIC_API_KEY": "sk-ant-test", "ANTHROPIC_BASE_URL": simulator.url}


def settings(**more: Any) -> dict[str, Any]:
    """Of ours, for short countdowns."""
    return {**{name: float(value) for name, value in FAST.items()}, "CLAUDE_BATCH_RECOVER_AFTER": 1.0, **more}


def django(folder: Path, url: str, store_url: str, simulator: Simulator, before: str, cls: str) -> Project:
    """A Django project whose app has this task class."""
    ours = settings(CLAUDE_BATCH_STORE_URL=store_url)
    project = make("django_namespace", folder, url, env=environment(simulator), **ours)
    path = folder / "mysite" / "celery.py"
    text = path.read_text().replace('Celery("mysite"', f'Celery("mysite"{cls}')
    path.write_text(before + text + _PLAIN)
    return project


@pytest.mark.parametrize(
    ("before", "cls", "send"),
    [
        ("", ', task_cls="celery.contrib.django.task:DjangoTask"', "{}.delay_on_commit({})"),
        ("", "", "{}.delay_on_commit({})"),
        (_AFTER_COMMIT, ", task_cls=AfterCommit", "{}.delay({})"),
    ],
    ids=["Django's, named", "Django's, by itself", "addons-server's"],
)
def test_a_job_is_sent_after_the_commit_and_never_after_a_rollback(
    before: str, cls: str, send: str, redis_url: str, store_url: str, simulator: Simulator, tmp_path: Path
) -> None:
    project = django(tmp_path, redis_url, store_url, simulator, before, cls)
    lines = f"{send.format('plain', '')}; {send.format('run_batch', 'requests(name)')}"
    with project.worker() as worker:
        said = project.run("-c", _CALLER.replace("SEND", lines))
        assert said.code == 0, said.text + worker.log.read_text()
        found = json.loads(said.text.splitlines()[-1])
    handed_over = "delay_on_commit" not in send  # before the commit, to be sent after it
    assert found == {"waiting": [0, 0], "ended": [1], "staged": int(handed_over), "ran": 1}
    assert simulator.journal().totals.batches_created == 1
    assert [prompt.text for prompt in simulator.journal().prompts] == ["prompt of done"]


_SHOP = """
import json
import anthropic
from celery import shared_task
from flask import current_app, g
from claude_batch_tasks import signals

def told(event):
    app.backend.client.rpush("told", json.dumps([event, current_app.name, "user" in g]))
    g.user = "somebody"

def client():
    told("client")
    return anthropic.Anthropic()

@shared_task(name="save")
def save(job_id, custom_ids):
    told("on_result")

@signals.batch_created.connect
def created(**_):
    told("batch_created")

@signals.job_finished.connect
def finished(**_):
    told("job_finished")

@shared_task(name="last")
def last(summary):
    return current_app.name
"""


def test_flasks_context_is_around_the_client_the_signals_and_on_result(
    redis_url: str, store_url: str, simulator: Simulator, tmp_path: Path
) -> None:
    ours = settings(CLAUDE_BATCH_STORE_URL=store_url, CLAUDE_BATCH_CLIENT_FACTORIES={"default": "shop.client"})
    celery = {name.lower(): value for name, value in ours.items()}
    project = make("flask_dict", tmp_path, redis_url, env=environment(simulator), CELERY=celery)
    shop = tmp_path / "shop.py"
    shop.write_text(shop.read_text() + _SHOP)
    caller = f"""
import json
from shop import app, last, save
from celery import chain
from claude_batch_tasks import run_batch
{_REQUESTS}
found = chain(run_batch.s(requests("one"), on_result=save.s()), last.s()).delay()
print(json.dumps([found.get(timeout=90), found.parent.get(timeout=90)["succeeded"]]))
"""
    with project.worker() as worker:
        said = project.run("-c", caller)
        log = worker.log.read_text()
        assert said.code == 0, said.text + log
        assert json.loads(said.text.splitlines()[-1]) == ["shop", 1]
        told = [json.loads(line) for line in project_redis(redis_url).lrange("told", 0, -1)]
    assert {event for event, *_ in told} == {"client", "batch_created", "job_finished", "on_result"}
    assert {name for _, name, _ in told} == {"shop"}
    assert [event for event, _, used in told if used and event != "batch_created"] == []  # a context of its own each
    assert "Working outside of application context" not in log
    said = project.run("-m", "claude_batch_tasks.cli", "-A", "shop", "doctor", "anthropic", "--json")
    assert said.code == 0, said.text
    assert '"status":"ok"' in said.text


def project_redis(url: str) -> Any:
    """The project's Redis."""
    import redis

    return redis.Redis.from_url(url)
