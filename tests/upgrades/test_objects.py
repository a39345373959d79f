"""Jobs with payloads in an object store, of which workers of the last release take messages: it knows no objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Outcome, Simulator
from tests.chaos.released import ReleaseMissing, release_env, unpack_release
from tests.integration.rig import account_for, requests
from tests.support import wait_until

pytestmark = [pytest.mark.workers, pytest.mark.slow]

COUNT = 6

StartWorker = Callable[..., Worker]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where that release is unpacked."""
    try:
        return unpack_release(tmp_path_factory.mktemp("release"))
    except ReleaseMissing as exc:
        pytest.skip(str(exc))


RunOld = Callable[[Simulator], AbstractContextManager[None]]


@pytest.fixture
def run_old(release: Path, environment: dict[str, str], tmp_path: Path) -> RunOld:
    """``run_old(simulator)``: a worker of that release, while it is entered."""

    @contextmanager
    def run_old(simulator: Simulator) -> Iterator[None]:
        known = {name: value for name, value in environment.items() if name != "CLAUDE_BATCH_ASK_MAX_WAIT"}
        env = {**known, **release_env(release), "ANTHROPIC_BASE_URL": simulator.url}
        worker = Worker(env, tmp_path / "old.log", options=("--concurrency=1",), cwd=str(release))
        worker.start()
        try:
            yield
        finally:
            worker.stop(kill=True)

    return run_old


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


@pytest.fixture
def settings(app: Celery, tmp_path: Path) -> dict[str, str]:
    """What workers of this release have in their environment; callers have it too."""
    url = f"file://{tmp_path}"
    app.conf.claude_batch_payload_url = url
    return {"CLAUDE_BATCH_PAYLOAD_URL": url}


def test_a_batch_that_one_failed_to_create_is_resumed(
    app: Celery, start_worker: StartWorker, simulator: Simulator, run_old: RunOld, settings: dict[str, str]
) -> None:
    simulator.behave(processing_seconds=0.1)
    job = BatchJob(run_batch.delay(requests("job", COUNT)).id, app)
    with run_old(simulator):
        wait_until(lambda: job.status().state == "failed")
    assert simulator.state().totals.batches_created == 0
    start_worker(simulator.url, **settings)
    assert job.resume().get(timeout=180)["state"] == "completed"
    assert account_for(app, job.job_id, "job", COUNT) == {"succeeded": COUNT}
    assert simulator.state().totals.batches_created == 1


@pytest.mark.parametrize(("retries", "state"), [(1, "failed"), (0, "completed")])
def test_requests_that_one_failed_to_send_again_can_be_sent_by_new_workers(
    app: Celery,
    start_worker: StartWorker,
    simulator: Simulator,
    run_old: RunOld,
    settings: dict[str, str],
    retries: int,
    state: str,
) -> None:
    """It finds out how the batch ended; some requests are to go into a smaller batch, or through the Messages API."""
    simulator.behave(processing_seconds=3600, outcomes=[Outcome("expired", count=3, attempts=1)])
    job = BatchJob(run_batch.delay(requests("job", COUNT), retries=retries).id, app)
    new = start_worker(simulator.url, **settings)
    wait_until(lambda: job.status().polls)
    new.stop(kill=True)
    simulator.behave(processing_seconds=0.1)
    simulator.end()
    with run_old(simulator):
        wait_until(lambda: job.status().state in ("failed", "completed"))
    assert job.status().state == state
    assert job.status().expired == 3
    journal = simulator.journal()
    assert len(journal.batches) == 1
    assert not any(prompt.sent_as_messages for prompt in journal.prompts)
    start_worker(simulator.url, **settings)
    sent = job.resume() if state == "failed" else job.retry_failed()
    assert sent.get(timeout=180)["state"] == "completed"
    assert [result.type for result in job.results(with_retries=True)] == ["succeeded"] * COUNT
    assert simulator.journal().paid_twice() == []
