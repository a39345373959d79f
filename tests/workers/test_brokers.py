"""RabbitMQ as broker, Redis as store and result back end; the steps follow the queue the job was sent to."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator

import pytest
from celery import Celery
from kombu import Connection

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Simulator
from tests.workers.test_report import prompts

pytestmark = pytest.mark.workers

RABBITMQ = os.environ.get("TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")


@pytest.fixture
def rabbitmq_queue() -> Iterator[str]:
    """A queue of this test's own on a running RabbitMQ."""
    name = f"claude-batch-test-{uuid.uuid4().hex[:8]}"
    try:
        with Connection(RABBITMQ, connect_timeout=3) as connection:
            connection.connect()
    except OSError as exc:
        pytest.skip(f"no RabbitMQ at {RABBITMQ} ({exc}); set TEST_RABBITMQ_URL")
    yield name
    with Connection(RABBITMQ) as connection:
        connection.default_channel.queue_delete(name)
        connection.default_channel.exchange_delete(name)


def test_a_job_runs_over_rabbitmq(rabbitmq_queue: str, redis_url: str, start_worker: Callable[..., Worker]) -> None:
    app = Celery("tests", broker=RABBITMQ, backend=redis_url)
    app.loader.import_task_module("claude_batch_tasks.tasks")
    with Simulator("results-404") as simulator:
        worker = start_worker(
            simulator.url, CELERY_BROKER_URL=RABBITMQ, options=("--concurrency=2", f"--queues={rabbitmq_queue}")
        )
        result = run_batch.apply_async((prompts(20),), queue=rabbitmq_queue)
        summary = result.get(timeout=60)
        assert (summary["state"], summary["succeeded"], summary["fallback"]) == ("completed", 20, 0)
        assert BatchJob(result.id, app).status().not_found > 0
        assert simulator.journal().paid_twice() == []
        assert "Traceback" not in worker.log.read_text()
    app.close()
