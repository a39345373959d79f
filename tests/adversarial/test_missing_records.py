"""Records that a Redis has evicted or lost: no reader passes off a part as the whole, and nothing is paid twice.

Each key of each kind of job goes once by itself; then a real Redis evicts; then all of it goes at once.
"""

from __future__ import annotations

import base64
import gc
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest
from celery import Celery, chain, chord, shared_task
from celery.exceptions import ChordError
from celery.result import AsyncResult

from claude_batch_tasks import BatchJob, RequestResult, adopt, errors, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.simulator import Fault, Outcome, Simulator
from claude_batch_tasks.store import lost_records
from tests.integration.rig import requests
from tests.support import FAST, inherited, wait_until

pytestmark = [pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(400)]

KEY = base64.b64encode(b"k" * 32).decode()
API_KEY = "sk-ant-missing-key-never-to-be-seen"


def make_app(url: str, backend: str = "", store: str = "", **conf: Any) -> Celery:
    app = Celery("missing", broker=url, backend=backend or url, set_as_current=False)
    app.conf.update(result_expires=3600, **({"claude_batch_store_url": store} if store else {}), **conf)
    app.loader.import_task_module("claude_batch_tasks.tasks")
    app.set_current()
    return app


def environment(url: str, api: str, backend: str = "", store: str = "", **more: str) -> dict[str, str]:
    return {
        **inherited(),
        **FAST,
        "CLAUDE_BATCH_MAX_FALLBACK_COST": "none",  # nobody knows what claude-x costs
        "CELERY_BROKER_URL": url,
        "CELERY_RESULT_BACKEND": backend or url,
        "ANTHROPIC_API_KEY": API_KEY,
        "ANTHROPIC_BASE_URL": api,
        **({"CLAUDE_BATCH_STORE_URL": store} if store else {}),
        **more,
    }


def elsewhere(simulator: Simulator, count: int) -> str:
    """A batch that somebody else made."""
    made = anthropic.Anthropic(api_key=API_KEY, base_url=simulator.url).messages.batches.create(
        requests=[
            {"custom_id": f"row_{n}", "params": params}  # type: ignore[typeddict-item]
            for n, params in enumerate(requests("adopted", count).values())
        ]
    )
    return made.id


class Made:
    """A job that has ended, and all that there was to be read of it then."""

    def __init__(self, job: BatchJob) -> None:
        self.job = job
        self.redis: Any = open_store_client(job)
        self.outcomes = {row.custom_id: row for row in job.results()}
        self.requests = [] if job_is_adopted(job) else list(job.requests())

    def names(self) -> list[str]:
        return sorted(key.decode() for key in self.redis.keys(f"claude_batch:{{{self.job.id}}}:*"))

    @contextmanager
    def without(self, *keys: str, but_keep: bool = False) -> Iterator[None]:
        """While these keys are gone, or (``but_keep``) may go; they are there again afterwards."""
        kept = {key: (self.redis.dump(key), max(self.redis.pttl(key), 0)) for key in keys}
        if not but_keep:
            self.redis.delete(*keys)
        try:
            yield
        finally:
            for key, (dump, ttl) in kept.items():
                self.redis.delete(key)
                self.redis.restore(key, ttl, dump)


def open_store_client(job: BatchJob) -> Any:
    return job._store._redis  # type: ignore[attr-defined]


def job_is_adopted(job: BatchJob) -> bool:
    return job._require_job().adopted


def kind(key: str) -> str:
    """What a key of a job is called in ``missing.OF_A_JOB``."""
    parts = key.partition("}:")[2].split(":")
    return parts[2] if len(parts) > 2 else parts[0]


KINDS = ("batches", "rounds", "messages", "adopted", "sealed")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Made]]:
    """One job of each kind, which has ended; no worker runs any more."""
    folder = tmp_path_factory.mktemp("missing")
    with RedisServer() as redis, Simulator("healthy") as simulator:
        plain, sealed = redis.url, f"{redis.url[:-1]}1"
        simulator.behave(
            processing_seconds=0.1,
            outcomes=(
                Outcome("expired", prompt="1 of rounds", attempts=1),
                Outcome("expired", prompt="2 of messages"),
                Outcome("expired", prompt="2 of sealed"),
                Outcome("errored", error="invalid_request_error", prompt="prompt 3 of"),
            ),
        )
        jobs: dict[str, BatchJob] = {}
        with ExitStack() as stack:
            stack.enter_context(Worker(environment(plain, simulator.url), folder / "plain.log"))
            env = environment(sealed, simulator.url, CLAUDE_BATCH_ENCRYPTION_KEY=KEY)
            stack.enter_context(Worker(env, folder / "sealed.log"))
            locked = make_app(sealed, claude_batch_encryption_key=KEY)
            jobs["sealed"] = BatchJob(run_batch.delay(requests("sealed", 12), retries=0).id, locked)
            app = make_app(plain)
            options: dict[str, dict[str, Any]] = {
                "batches": {"max_requests_per_batch": 6, "fallback": "off"},
                "rounds": {"retries": 1, "fallback": "off"},
                "messages": {"retries": 0},
            }
            for name, own in options.items():
                jobs[name] = BatchJob(run_batch.delay(requests(name, 12), **own).id, app)
            jobs["adopted"] = adopt(elsewhere(simulator, 12), app=app)
            for job in jobs.values():
                assert job.get(timeout=180)["state"] == "completed"
        yield {name: Made(job) for name, job in jobs.items()}
        gc.collect()
        locked.close()
        app.close()


def readers(made: Made, folder: Path) -> dict[str, Callable[[], Iterator[RequestResult] | Any]]:
    job, ids = made.job, list(made.outcomes)

    def exported() -> Any:
        file = io.BytesIO()
        job.export(file)
        return (json.loads(line)["custom_id"] for line in file.getvalue().splitlines())

    found = {
        "results": job.results,
        "in order": lambda: job.results(order="request"),
        "by ids": lambda: job.results(ids=ids),
        "one by one": lambda: map(job.result, ids),
        "export": exported,
        "to a file": lambda: [job.export(folder / "x.jsonl")] and made.outcomes.values(),
    }
    for type_ in {row.type for row in made.outcomes.values()}:
        found[f"of type {type_}"] = lambda type_=type_: job.results(type=type_)  # type: ignore[misc]
    if made.requests:
        found["requests"] = job.requests  # type: ignore[assignment]
    return found


def wanted(made: Made, reader: str) -> int:
    _, of_type, name = reader.partition("of type ")
    return sum(row.type == name for row in made.outcomes.values()) if of_type else len(made.outcomes)


def read(made: Made, folder: Path) -> dict[str, Exception]:
    """Every reader that raises; those that do not give everything, and nobody anything that is wrong."""
    raised: dict[str, Exception] = {}
    for name, reader in readers(made, folder).items():
        rows = []
        try:
            rows.extend(reader())
            assert len(rows) == wanted(made, name), f"{name} ended after {len(rows)} without a word"
        except (errors.ResultsMissing, errors.JobNotFound) as exc:
            raised[name] = exc
        for row in rows:
            if isinstance(row, RequestResult):
                assert row == made.outcomes[row.custom_id], f"{name} gave what is not so"
            elif isinstance(row, dict):
                assert row in made.requests
    return raised


@pytest.mark.parametrize("name", KINDS)
def test_each_key_by_itself_is_missed_or_not_needed(name: str, ended: dict[str, Made], tmp_path: Path) -> None:
    made = ended[name]
    assert len(made.outcomes) == 12
    sources = {row.source for row in made.outcomes.values()}
    assert sources == {"rounds": {"batch", "resubmitted"}, "messages": {"batch", "messages"}}.get(name, sources)
    assert read(made, tmp_path) == {}
    seen = set()
    for key in made.names():
        what = lost_records.OF_A_JOB[kind(key)]
        if "history" in key:
            what = "harmless"
        seen.add(kind(key))
        with made.without(key):
            raised = read(made, tmp_path)
            if key.endswith(":job"):
                assert {type(exc) for exc in raised.values()} == {errors.JobNotFound}
                with pytest.raises(errors.JobNotFound):
                    made.job.status()
                continue
            status = made.job.status()
            assert (status.state, status.succeeded + status.errored) == ("completed", 12)
        if kind(key) in ("body", "ids", "outcomes", "rows", "batch"):
            assert raised, f"nobody misses {key}"
            for exc in raised.values():
                assert isinstance(exc, errors.ResultsMissing)
                assert exc.missing, exc
                assert key in exc.keys, exc
                assert key in str(exc)
                assert "gone from the store" in str(exc)
        else:
            assert (what, raised) in [(each, {}) for each in ("derived", "repaired", "harmless")], key
        for exc in raised.values():
            if kind(key) == "rows":
                assert "workers fetch them again, free of charge" in str(exc)
                assert "until 20" in str(exc)
            if kind(key) == "outcomes":
                assert "Messages API: they were paid for, and cannot be fetched again" in str(exc)
        assert not list(tmp_path.glob("*.part"))
    assert {"job", "batch", "rows", "pieces", "eligible"} <= seen


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-lru", "volatile-ttl"])
def test_a_redis_that_evicts_is_found_out(policy: str, ended: dict[str, Made], tmp_path: Path) -> None:
    """Whatever it takes: what is read is right, and where it is not all, that is said."""
    redis, every = ended["rounds"].redis, {key for made in ended.values() for key in made.names()}
    with ExitStack() as stack:
        for made in ended.values():
            stack.enter_context(made.without(*made.names(), but_keep=True))
        redis.config_set("maxmemory-policy", policy)
        redis.config_set("maxmemory", redis.info("memory")["used_memory"] + 100_000)
        stack.callback(redis.config_set, "maxmemory-policy", "noeviction")
        stack.callback(redis.config_set, "maxmemory", 0)
        gone: set[str] = set()
        for number in range(2000):
            redis.set(f"filler:{number}", b"x" * 5000, ex=10_000_000)
            gone = every - {key for made in ended.values() for key in made.names()}
            if number % 20 == 0 and len(gone) > len(every) / 3:
                break
        assert len(gone) > len(every) / 3
        raised = {name: read(made, tmp_path) for name, made in ended.items()}
        assert any(raised.values())
        said = [str(exc) for each in raised.values() for exc in each.values()]
        assert [text for text in said if "gone" not in text and "no job" not in text] == []
        redis.config_set("maxmemory", 0)
        redis.delete(*redis.keys("filler:*"))


def test_what_is_said_comes_to_whoever_reads_by_the_command_too(ended: dict[str, Made], tmp_path: Path) -> None:
    made = ended["batches"]
    [key, *_] = [key for key in made.names() if kind(key) == "rows"]
    env = {**environment(open_store_url(made.job), "http://127.0.0.1:9")}
    for more in ([], ["-o", str(tmp_path / "file")]):
        command = [sys.executable, "-m", "claude_batch_tasks.cli", "results", made.job.id, *more]
        with made.without(key):
            ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 1, ran.stderr
        assert key in ran.stderr
        assert "Traceback" not in ran.stderr
    assert not (tmp_path / "file").exists()


def open_store_url(job: BatchJob) -> str:
    return str(job._app.conf.broker_url)


class TestRowsThatAreGone:
    @pytest.mark.parametrize("name", ["rounds", "adopted"])
    def test_are_fetched_again_free_of_charge(self, name: str, tmp_path: Path) -> None:
        with RedisServer() as redis, Simulator("healthy") as simulator:
            simulator.behave(processing_seconds=0.1, outcomes=(Outcome("expired", prompt="1 of", attempts=1),))
            app = make_app(redis.url)
            env = environment(redis.url, simulator.url)
            with Worker(env, tmp_path / "worker.log"):
                if name == "adopted":
                    job = adopt(elsewhere(simulator, 12), app=app)
                else:
                    job = BatchJob(run_batch.delay(requests(name, 12), fallback="off").id, app)
                job.get(timeout=180)
            made = Made(job)
            gone = [key for key in made.names() if kind(key) in ("rows", "pieces", "eligible")]
            made.redis.delete(*gone)
            with pytest.raises(errors.ResultsMissing):
                list(job.results())
            with Worker(env, tmp_path / "worker.log"):
                wait_until(lambda: made.redis.exists(*gone) == len(gone))
                assert {row.custom_id: row for row in job.results()} == made.outcomes
                # And at once, where somebody asks for it.
                made.redis.delete(*gone)
                assert job.resume().get(timeout=180) == job.status().summary
                assert read(made, tmp_path) == {}
                ttls = {made.redis.ttl(key) for key in made.names()}
                assert min(ttls) > 0, "what was fetched again expires with the job"
                # Of the batch's record, what the history and the files at Anthropic say.
                [record] = [key for key in made.names() if kind(key) == "batch"]
                made.redis.delete(record)
                job.resume()
                summary = job.get(timeout=180)
                assert summary["requests"] == 12
                journal = simulator.journal()
                assert journal.paid_twice() == []
                creates = len(journal.calls_to("create"))
                assert creates == (2 if name == "rounds" else 1)
            app.close()


def delete_key(redis: Any, job: BatchJob, *names: str) -> None:
    keys = [f"claude_batch:{{{job.id}}}:{name}" for name in names]
    assert redis.delete(*keys) == len(keys), keys


class TestAJobThatRuns:
    def test_ends_whatever_key_is_taken_from_it(self, tmp_path: Path) -> None:
        """Several at once: before the create, while the batch runs, while its rest goes through the Messages API."""
        with RedisServer() as server, Simulator("healthy") as simulator:
            redis: Any = server.client()
            simulator.behave(
                processing_seconds=3,
                outcomes=(Outcome("expired", prompt="1 of again"), Outcome("expired", prompt=" of queue", count=8)),
            )
            simulator.faults(Fault("messages", "delay", seconds=1))
            app = make_app(server.url)
            env = environment(server.url, simulator.url)

            def submit(name: str, **options: Any) -> BatchJob:
                return BatchJob(run_batch.delay(requests(name, 12), retries=0, **options).id, app)

            unborn = {name: submit(f"unborn {name}") for name in ("body", "ids", "batch:0")}
            delete_key(redis, unborn["body"], "batch:0:body")
            delete_key(redis, unborn["ids"], "batch:0:ids")
            delete_key(redis, unborn["batch:0"], "batch:0")
            taken = ("batch:0:body", "batch:0:ids", "batch:0:sizes", "index", "history", "batch:0")
            running = {name: submit(f"running {name}") for name in taken}
            spending = submit("again money", max_cost=10)
            parts = ("to_send", "sent", "lanes", "outcomes")
            queue = {name: submit(f"queue {name}", max_messages_in_flight=2) for name in parts}
            gone = submit("gone job")
            with Worker(env, tmp_path / "worker.log"):
                everything = [*running.values(), spending, *queue.values(), gone]
                wait_until(lambda: all(job.status().batches[0].batch_id for job in everything))
                for name, job in running.items():
                    delete_key(redis, job, name)
                delete_key(redis, spending, "money")
                delete_key(redis, gone, "job")
                redis.delete("claude_batch:due", "claude_batch:waiting", "claude_batch:jobs")
                redis.delete("claude_batch:first:jobs")
                left = dict(queue)

                def take() -> bool:
                    """One call of a job is under way, and another of its requests waits."""
                    for name, job in list(left.items()):
                        keys = [f"claude_batch:{{{job.id}}}:batch:0:{each}" for each in (*parts[:2], name)]
                        if redis.exists(*keys) == len(keys) and redis.delete(keys[-1]):
                            del left[name]
                    return not left

                wait_until(take, 180)

                for name, job in unborn.items():
                    with pytest.raises(errors.ResultsMissing, match="gone from the store"):
                        job.get(timeout=180)
                    assert job.status().state == "failed", name
                for name, job in running.items():
                    if name == "batch:0":
                        with pytest.raises(errors.ResultsMissing, match="resume"):
                            job.get(timeout=180)
                        assert job.resume().get(timeout=180)["succeeded"] == 12
                    else:
                        assert job.get(timeout=180)["succeeded"] == 12, name
                    if name in ("batch:0:ids",):
                        with pytest.raises(errors.ResultsMissing):
                            list(job.results())
                    else:
                        assert len(list(job.results())) == 12, name
                assert spending.get(timeout=180)["succeeded"] == 10
                note = "what the job has spent is gone from the store, so max_cost ($10) cannot be guaranteed"
                assert [row.note for row in spending.results(type="expired")] == [note, note]
                for name, job in queue.items():
                    job.get(timeout=180)
                    rows = list(job.results())
                    assert len(rows) == 12
                    # Of the two calls that were about to be made nothing may say any more whether they were.
                    unsent = [row for row in rows if row.type == "expired"]
                    assert len(unsent) <= 2, name
                    assert all(row.note for row in unsent), (name, unsent)
                with pytest.raises(errors.JobNotFound):
                    gone.get(timeout=180)
            journal = simulator.journal()
            assert journal.paid_twice() == []
            assert not [prompt for prompt in journal.prompts if "unborn" in prompt.text]
            app.close()


@shared_task(name="tests.follow")
def follow(value: Any) -> Any:
    return value


def check_waiters(
    app: Celery, simulator: Simulator, backend: RedisServer, store: RedisServer, worker: Worker, env: dict[str, str]
) -> None:
    """By itself, so that no result outlives the servers: each says at its end that it listens no more."""
    with ExitStack() as stack:
        own = run_batch.delay(requests("own", 2))
        others = run_batch.delay(requests("others", 2))
        chained = chain(run_batch.s(requests("chained", 2)), follow.s()).apply_async()
        in_chord = chord([run_batch.s(requests(f"header {n}", 2)) for n in range(2)], follow.s()).apply_async()
        polled = run_batch.delay(requests("polled", 2))
        deleted = run_batch.delay(requests("deleted", 2))
        ids = [own.id, others.id, polled.id, deleted.id]
        wait_until(lambda: len(simulator.state().batches) == 7, 180)
        wait_until(lambda: all(BatchJob(job_id, app).status().batches[0].polls for job_id in ids), 180)
        command = [sys.executable, "-m", "claude_batch_tasks.cli", "watch", polled.id]
        watching = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        pool = stack.enter_context(ThreadPoolExecutor(6))
        waits = {
            "own": pool.submit(own.get, timeout=100),
            "another process's": pool.submit(app.AsyncResult(others.id).get, timeout=100),
            "chain": pool.submit(chained.get, timeout=100),
            "chord": pool.submit(in_chord.get, timeout=100),
            "ready()": pool.submit(wait_until, polled.ready, 100),
            "job": pool.submit(BatchJob(others.id, app).get, timeout=100),
        }
        time.sleep(3)  # until each of them waits
        BatchJob(deleted.id, app)._store.storage.delete_job(deleted.id, remember=True)
        store.client().flushall()
        begun = time.monotonic()
        for name, waiting in waits.items():
            if name == "ready()":
                assert waiting.result()
                assert isinstance(polled.result, errors.JobNotFound)
            else:
                error = waiting.exception()
                assert isinstance(error, (errors.JobNotFound, ChordError)), (name, error)
                assert "is gone from the store" in str(error), name
            assert time.monotonic() - begun < 60, name
        assert watching.wait(60) == 4
        assert watching.stderr is not None
        assert f"no job {polled.id} in the store" in watching.stderr.read()
        log = worker.log.read_text()
        assert "has no rule for" not in log
        assert log.count(f"job {others.id}: is gone from the store; ") <= 2
        assert len(simulator.state().batches) == 7
        # And of one that has ended the back end's record, which has a TTL, may be evicted too.
        simulator.behave(processing_seconds=0.1)
        ended = run_batch.delay(requests("ended", 2))
        wait_until(lambda: BatchJob(ended.id, app).status().summary, 180)
        wait_until(lambda: backend.client().delete(f"celery-task-meta-{ended.id}"))
        assert ended.get(timeout=180)["succeeded"] == 2


@pytest.mark.parametrize("apart", [False, True], ids=["one Redis", "three"])
def test_everybody_who_waits_for_a_job_that_is_gone_is_told(apart: bool, tmp_path: Path) -> None:
    with ExitStack() as stack:
        broker, backend, store = (
            [stack.enter_context(RedisServer()) for _ in range(3)]
            if apart
            else [stack.enter_context(RedisServer())] * 3
        )
        simulator = stack.enter_context(Simulator("healthy"))
        simulator.behave(processing_seconds=3600)
        app = make_app(broker.url, backend.url, store.url)
        env = environment(broker.url, simulator.url, backend.url, store.url)
        worker = stack.enter_context(Worker(env, tmp_path / "worker.log"))
        check_waiters(app, simulator, backend, store, worker, env)
        for found in gc.get_objects():
            if issubclass(type(found), AsyncResult):  # some objects answer for others
                found.backend = None  # it would tell it at its end that it listens no more
        app.close()
