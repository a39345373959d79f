"""Django without any Redis: RabbitMQ as broker, Django's own database as store and as result back end."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from claude_batch_tasks.simulator import Simulator
from tests.integration.test_brokers import RABBITMQ, Rabbit, rabbit as rabbit
from tests.support import REFUSE_REDIS
from tests.transactions.rig import Project

pytestmark = [pytest.mark.slow, pytest.mark.workers]


def test_a_job_of_a_view_is_read_by_celery_and_in_the_admin(
    empty_project: Project, rabbit: Rabbit, tmp_path: Path
) -> None:
    """One view's transaction is committed, and another one's is rolled back; an ask follows."""
    project, wanted = empty_project, tmp_path / "wanted-redis"
    project.env |= {
        "BROKER": RABBITMQ,
        "BACKEND": "django-db",
        "MORE_APPS": '["django_celery_results"]',
        "OPTIONS_OF_DATABASE": '{"ATOMIC_REQUESTS": true}',
        "CONF": json.dumps({**rabbit.settings("classic"), "result_extended": True}),
        "FIRST": REFUSE_REDIS.format(path=str(wanted)),
    }
    project.migrate()
    with Simulator() as simulator:
        simulator.behave(processing_seconds=1)
        # No other worker at this broker has this number.
        worker = project.worker(uuid.uuid4().int >> 96, ANTHROPIC_BASE_URL=simulator.url)
        with worker:
            found = project.run(
                """
                import time
                from celery.result import AsyncResult
                from django.contrib.auth.models import User
                from django.test import Client
                from django_celery_results.models import TaskResult

                client = Client(raise_request_exception=False)
                assert client.get("/submit?fail=1").status_code == 500
                job_id = client.get("/submit").content.decode()
                result, seen = AsyncResult(job_id), set()
                while not result.ready():
                    seen.add(result.state)
                    time.sleep(0.05)
                summary = result.get(timeout=1)
                row = TaskResult.objects.get(task_id=job_id)
                client.force_login(User.objects.create_superuser("boss"))
                pages = [
                    client.get(f"/admin/django_celery_results/taskresult/{row.pk}/change/"),
                    client.get(f"/admin/claude_batch/job/?q={job_id}"),
                ]
                with transaction.atomic():
                    asked = ask.delay(make_params("an ask"))
                print(json.dumps({
                    "job_id": job_id, "summary": summary, "seen": [*seen], "status": row.status,
                    "jobs": list(store.jobs.job_ids()), "orders": list(Order.objects.values_list("job_id", flat=True)),
                    "texts": [row.text for row in BatchJob(job_id).results()],
                    "pages": [(page.status_code, page.content.decode()) for page in pages],
                    "answer": asked.get(timeout=60).text,
                }))
                """
            )
        log = worker.log.read_text()
        assert simulator.journal().paid_twice() == []
    assert found["orders"] == found["jobs"] == [found["job_id"]]
    assert (found["summary"]["state"], found["summary"]["succeeded"]) == ("completed", 1)
    assert found["texts"] == ["Echo: Good."]
    assert "PROGRESS" in found["seen"]
    assert found["status"] == "SUCCESS"
    [(status, of_result), (_, of_jobs)] = found["pages"]
    assert status == 200
    assert "completed" in of_result
    assert found["job_id"] in of_jobs
    assert found["answer"] == "Echo: an ask"
    assert not wanted.exists(), wanted.read_text()
    assert "Traceback" not in log
