"""What an earlier release began, and left in the middle of everything, is finished by this one."""

from __future__ import annotations

import gc
import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, list_jobs
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.simulator import Simulator
from tests.integration.rig import account_for
from tests.postgres_server import PostgresServer
from tests.support import FAST, inherited, wait_until
from tests.upgrades.dump import ENCRYPTION_KEY, KEY, QUEUES, Dump, load
from tests.upgrades.moving import copied_back, copied_to_postgres

pytestmark = pytest.mark.workers

DUMPS = sorted(Path(__file__).parent.glob("*.json.gz"))

#: What each release's jobs were in the middle of.
NAMES = {path: set(json.loads(gzip.decompress(path.read_bytes()))["jobs"]) for path in DUMPS}

#: Requests of each job, but for one.
COUNT, MANY = 6, {"listed together": 12}

#: Nothing was created for these.
NOT_BEGUN = {"untaken", "lost in a queue"}

#: What has been sent through the Messages API, and was not answered, expires in the end.
SENT = {"partly through the Messages API", "refused by the Messages API", "spending its budget"}

GO_ON = [
    "untaken",
    "lost in a queue",
    "created, and not answered",
    "running",
    "looked at often",
    "listed together",
    "with a reserved budget",
    "resumed",
    "adopted",
    "encrypted",
    "ended, and not fetched",
    "in its second round",
    "half done",
    *sorted(SENT),
]


def of_dumps(*names: str) -> pytest.MarkDecorator:
    """Run a test with each of these jobs, of each release that left one."""
    jobs = [
        pytest.param(path, name, id=f"{path.name.removesuffix('.json.gz')}-{name}")
        for path in DUMPS
        for name in names
        if name in NAMES[path]
    ]
    return pytest.mark.parametrize(("upgraded", "name"), jobs, indirect=["upgraded"])


of_each_dump = pytest.mark.parametrize(
    "upgraded", DUMPS, ids=lambda path: path.name.removesuffix(".json.gz"), indirect=True
)


@dataclass
class Upgraded:
    """A store of an earlier release on which workers of this one run."""

    app: Celery
    simulator: Simulator
    dump: Dump

    def job(self, name: str) -> BatchJob:
        return BatchJob(self.dump.jobs[name], self.app)

    def outcomes(self, name: str) -> dict[str, int]:
        return account_for(self.app, self.dump.jobs[name], name, MANY.get(name, COUNT))


def _looked_at(simulator: Simulator) -> int:
    """Return at how many batches a worker has looked, or how often at all of them."""
    journal = simulator.journal()
    retrieved = {call.batch_id for call in journal.calls_to("retrieve")}
    return max(len(retrieved), len(journal.calls_to("list")))


@contextmanager
def _left_there(redis: RedisServer, postgres: PostgresServer) -> Iterator[str]:
    yield redis.url


#: Where the store is when workers of this release start: where it was, or elsewhere.
MOVES = {"in its Redis": _left_there, "in PostgreSQL": copied_to_postgres, "in another Redis": copied_back}


@contextmanager
def _upgraded(path: Path, folder: Path, where: str, postgres: PostgresServer) -> Iterator[Upgraded]:
    with ExitStack() as stack:
        redis, simulator = stack.enter_context(RedisServer()), stack.enter_context(Simulator())
        dump = load(path, redis, simulator)
        store_url = stack.enter_context(MOVES[where](redis, postgres))
        env = {
            **inherited(),
            **FAST,
            "CELERY_BROKER_URL": redis.url,
            "CELERY_RESULT_BACKEND": redis.url,
            "ANTHROPIC_API_KEY": KEY,
            "ANTHROPIC_BASE_URL": simulator.url,
            "CLAUDE_BATCH_ENCRYPTION_KEY": ENCRYPTION_KEY,
            "CLAUDE_BATCH_STORE_URL": store_url,
        }
        app = Celery("upgraded", broker=redis.url, backend=redis.url, set_as_current=False)
        app.conf.update(claude_batch_encryption_key=ENCRYPTION_KEY, claude_batch_store_url=store_url)
        app.loader.import_task_module("claude_batch_tasks.tasks")
        worker = Worker(env, folder / "worker.log", options=("--concurrency=4", f"--queues={QUEUES}"))
        try:
            worker.start()
            # What runs at Anthropic is looked at before it ends: each by itself, or all at once.
            wait_until(lambda: _looked_at(simulator) >= 4)
            simulator.end()
            yield Upgraded(app, simulator, dump)
        finally:
            worker.stop(kill=True)
            gc.collect()
            app.close()


@pytest.fixture(scope="module", params=list(MOVES))
def upgrade(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer
) -> Iterator[Callable[[Path], Upgraded]]:
    """``upgrade(path)``: what a release left, with workers of this one; each is begun once."""
    with ExitStack() as stack:

        def begin(path: Path) -> Upgraded:
            folder = tmp_path_factory.mktemp("upgraded")
            return stack.enter_context(_upgraded(path, folder, request.param, postgres_server))

        yield cache(begin)


@pytest.fixture
def upgraded(request: pytest.FixtureRequest, upgrade: Callable[[Path], Upgraded]) -> Upgraded:
    return upgrade(request.param)


@of_dumps(*GO_ON)
def test_a_job_goes_on(upgraded: Upgraded, name: str) -> None:
    assert upgraded.job(name).get(timeout=180)["state"] == "completed"
    outcomes = upgraded.outcomes(name)
    if name in SENT:
        assert outcomes["succeeded"] + outcomes["expired"] == COUNT
    else:
        assert outcomes == {"succeeded": MANY.get(name, COUNT)}


@of_dumps("half done")
def test_calls_of_an_earlier_release_are_not_confirmed_and_can_be_made_again(upgraded: Upgraded, name: str) -> None:
    job = upgraded.job(name)
    job.get(timeout=180)
    if not job.status().announced:
        pytest.skip("it has no on_result, as no job of 0.1.0")
    half = COUNT // 2
    wait_until(lambda: job.status().unconfirmed <= half)
    status = job.status()
    assert (status.announced, status.unconfirmed, status.delivery_failures) == (COUNT, half, 0)
    assert job.redeliver() == half
    wait_until(lambda: job.delivered == COUNT)


@of_dumps("partly through the Messages API")
def test_a_call_whose_answer_nobody_heard_is_not_made_again(upgraded: Upgraded, name: str) -> None:
    summary = upgraded.job(name).get(timeout=180)
    assert (summary["fallback"], summary["fallback_skipped"]) == (COUNT - 2, 0)
    assert upgraded.outcomes(name) == {"succeeded": COUNT - 2, "expired": 2}


@of_dumps("completed", "adopted, and completed")
def test_a_job_that_was_completed_keeps_its_results(upgraded: Upgraded, name: str) -> None:
    assert upgraded.job(name).get(timeout=5)["succeeded"] == COUNT
    assert upgraded.outcomes(name) == {"succeeded": COUNT}


@of_dumps("failed")
def test_a_job_that_had_failed_is_taken_up_again(upgraded: Upgraded, name: str) -> None:
    job = upgraded.job(name)
    assert job.status().state == "failed"
    assert job.resume(max_wait=None).get(timeout=180)["state"] == "completed"
    assert upgraded.outcomes(name) == {"succeeded": COUNT}


@of_dumps("canceled", "canceling")
def test_a_job_that_was_canceled_stays_so(upgraded: Upgraded, name: str) -> None:
    assert upgraded.job(name).get(timeout=180)["state"] == "canceled"
    assert upgraded.outcomes(name) == {"canceled": COUNT}


@of_dumps("revoked")
def test_a_job_that_was_revoked_is_left_alone(upgraded: Upgraded, name: str) -> None:
    assert upgraded.job(name).status().state == "revoked"


@of_each_dump
def test_nothing_is_paid_twice(upgraded: Upgraded) -> None:
    for name in upgraded.dump.jobs.keys() & {*GO_ON}:
        upgraded.job(name).get(timeout=180)
    journal = upgraded.simulator.journal()
    assert journal.paid_twice() == []
    not_begun = len(upgraded.dump.jobs.keys() & NOT_BEGUN)
    assert len(journal.batches) == upgraded.dump.batches + not_begun, "only a job that nobody had begun creates a batch"
    sent_again = [prompt.text for prompt in journal.prompts if prompt.sent_as_messages]
    assert sent_again
    assert not set(sent_again) & set(upgraded.dump.answered)


@of_each_dump
def test_what_is_kept_of_a_long_story_is_told(upgraded: Upgraded) -> None:
    for job_id in upgraded.dump.jobs.values():
        events = [event.event for event in BatchJob(job_id, upgraded.app).history()]
        assert len(events) <= 1_001
        assert ("left_out" in events) == (len(events) > 1_000)


@of_each_dump
def test_all_jobs_are_listed(upgraded: Upgraded) -> None:
    assert [job.job_id for job in list_jobs(app=upgraded.app)] == list(upgraded.dump.jobs.values())[::-1]
