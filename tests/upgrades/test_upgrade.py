"""What an earlier release began, and left in the middle of everything, is finished by this one."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, list_jobs
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.simulator import Simulator
from tests.support import FAST, inherited, wait_until
from tests.upgrades.dump import KEY, Dump, load
from tests.workers.rig import account_for

pytestmark = pytest.mark.workers

DUMPS = sorted(Path(__file__).parent.glob("*.json.gz"))

#: Requests of each job.
COUNT = 6

GO_ON = [
    "untaken",
    "created, and not answered",
    "running",
    "looked at often",
    "ended, and not fetched",
    "in its second round",
    "half done",
    "partly through the Messages API",
]


@dataclass
class Upgraded:
    """A store of an earlier release on which workers of this one run."""

    app: Celery
    simulator: Simulator
    dump: Dump

    def job(self, name: str) -> BatchJob:
        return BatchJob(self.dump.jobs[name], self.app)

    def outcomes(self, name: str) -> dict[str, int]:
        return account_for(self.app, self.dump.jobs[name], name, COUNT)


@pytest.fixture(scope="module", params=DUMPS, ids=lambda path: path.name.removesuffix(".json.gz"))
def upgraded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    with RedisServer() as redis, Simulator() as simulator:
        dump = load(request.param, redis, simulator)
        env = {
            **inherited(),
            **FAST,
            "CELERY_BROKER_URL": redis.url,
            "CELERY_RESULT_BACKEND": redis.url,
            "ANTHROPIC_API_KEY": KEY,
            "ANTHROPIC_BASE_URL": simulator.url,
        }
        app = Celery("upgraded", broker=redis.url, backend=redis.url, set_as_current=False)
        app.loader.import_task_module("claude_batch_tasks.tasks")
        worker = Worker(env, tmp_path_factory.mktemp("upgraded") / "worker.log", options=("--concurrency=4",))
        try:
            worker.start()
            # What runs at Anthropic is looked at once before it ends.
            wait_until(lambda: len({call.batch_id for call in simulator.journal().calls_to("retrieve")}) >= 4)
            simulator.end()
            yield Upgraded(app, simulator, dump)
        finally:
            worker.stop(kill=True)
            gc.collect()
            app.close()


@pytest.mark.parametrize("name", GO_ON)
def test_a_job_goes_on(upgraded: Upgraded, name: str) -> None:
    assert upgraded.job(name).get(timeout=180)["state"] == "completed"
    if name != "partly through the Messages API":
        assert upgraded.outcomes(name) == {"succeeded": COUNT}


def test_a_call_whose_answer_nobody_heard_is_not_made_again(upgraded: Upgraded) -> None:
    summary = upgraded.job("partly through the Messages API").get(timeout=180)
    assert (summary["fallback"], summary["fallback_skipped"]) == (COUNT - 2, 0)
    assert upgraded.outcomes("partly through the Messages API") == {"succeeded": COUNT - 2, "expired": 2}


def test_a_job_that_was_completed_keeps_its_results(upgraded: Upgraded) -> None:
    assert upgraded.job("completed").get(timeout=5)["succeeded"] == COUNT
    assert upgraded.outcomes("completed") == {"succeeded": COUNT}


def test_a_job_that_had_failed_is_taken_up_again(upgraded: Upgraded) -> None:
    job = upgraded.job("failed")
    assert job.status().state == "failed"
    assert job.resume(max_wait=None).get(timeout=180)["state"] == "completed"
    assert upgraded.outcomes("failed") == {"succeeded": COUNT}


def test_nothing_is_paid_twice(upgraded: Upgraded) -> None:
    for name in GO_ON:
        upgraded.job(name).get(timeout=180)
    journal = upgraded.simulator.journal()
    assert journal.paid_twice() == []
    assert len(journal.batches) == upgraded.dump.batches + 1, "only the job that nobody had begun creates a batch"
    sent_again = [prompt.text for prompt in journal.prompts if prompt.sent_as_messages]
    assert sent_again
    assert not set(sent_again) & set(upgraded.dump.answered)


def test_all_jobs_are_listed(upgraded: Upgraded) -> None:
    assert [job.job_id for job in list_jobs(app=upgraded.app)] == list(upgraded.dump.jobs.values())[::-1]
