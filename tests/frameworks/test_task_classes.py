"""The class that a project gives its tasks is obeyed by a job as by a plain task."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from celery import Celery, chain
from celery.canvas import chunks, xmap, xstarmap

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.lifecycle import record_repair
from claude_batch_tasks.simulator import Fault, Outcome, Simulator
from claude_batch_tasks.tasks import cancel_batch, create_batch, finish_job, recover_jobs
from tests.chaos.ledgers import Ledger
from tests.frameworks import bases
from tests.integration.rig import requests
from tests.support import wait_until

RUN_BATCH = "claude_batch_tasks.run_batch"

Project = Callable[..., Celery]


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator("healthy") as running:
        yield running


@pytest.fixture
def servers(redis_url: str, store_setting: dict[str, str]) -> dict[str, str]:
    """The settings of an app that say where its servers are."""
    return {"broker_url": redis_url, "result_backend": redis_url, **store_setting}


@pytest.fixture
def project(
    environment: dict[str, str],
    servers: dict[str, str],
    simulator: Simulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Project]:
    """``project("Runs", claude_batch_x=1)``: the app of such a project, which has a worker."""
    with ExitStack() as stack:

        def start(
            kind: str, *, options: tuple[str, ...] = ("--concurrency=2",), env: Any = None, **config: Any
        ) -> Celery:
            env = {**environment, "ANTHROPIC_BASE_URL": simulator.url, "BASES_KIND": kind, **(env or {})}
            env["BASES_CONF"] = json.dumps(config)
            worker = Worker(env, tmp_path / "worker.log", "tests.frameworks.bases", options)
            stack.callback(worker.stop, kill=True)
            worker.start()
            app = bases.make(kind, **servers, **config)
            stack.callback(app.close)
            app.set_current()
            return app

        yield start


def told(app: Celery, *kinds: str) -> list[list[Any]]:
    """What was called, in order."""
    lines = [json.loads(line) for line in app.backend.client.lrange(bases.TOLD, 0, -1)]
    return [line for line in lines if not kinds or line[0] in kinds]


_T = TypeVar("_T")

pytestmark = pytest.mark.timeout(240)


def workers(test: _T) -> _T:
    """Mark a test that starts workers, as all here take long."""
    return pytest.mark.slow(pytest.mark.workers(test))


@workers
@pytest.mark.parametrize("kind", ["Runs", "CallsSuper"])
def test_the_whole_job_runs_inside_the_context_of_its_call(kind: str, project: Project, simulator: Simulator) -> None:
    simulator.behave(processing_seconds=0.5, outcomes=[Outcome("expired", prompt="prompt 0 of", attempts=9)])
    simulator.faults(Fault("messages", "status", status=404, calls=(1,)))
    app = project(kind, claude_batch_client_factories={"default": "tests.frameworks.bases.client"})
    job = chain(run_batch.s(requests("job", 3), on_result=bases.save.s(), retries=1), bases.plain.s()).apply_async()
    assert job.get(timeout=120) == "plain"
    summary = job.parent.get(timeout=120)
    assert (summary["succeeded"], summary["fallback"]) == (3, 1)
    calls = told(app)
    assert {call[0] for call in calls} == {
        "client", "on_result", "batch_created", "batch_ended", "results_published", "job_finished", "not_found_seen"
    }  # fmt: skip
    assert [call for call in calls if call[2] != 1 and call[0] != "client"] == []
    assert {call[2] for call in calls if call[0] == "client"} <= {0, 1}  # a worker's check of its clients is no task
    assert simulator.journal().paid_twice() == []


@pytest.mark.workers
def test_its_hooks_are_called_as_for_a_plain_task(project: Project, simulator: Simulator) -> None:
    app = project("Hooked")
    simulator.behave(processing_seconds=1)
    good = [bases.plain.delay(), run_batch.delay(requests("good", 2), poll_min=0.2)]
    for result in good:
        result.get(timeout=120)
    simulator.faults(Fault("create", "status", status=400))
    bad = [bases.fails.delay(), run_batch.delay(requests("bad", 2))]
    for result in bad:
        result.get(timeout=120, propagate=False)
    wait_until(lambda: len(told(app, "after_return")) == 4)

    def of(result: Any) -> list[list[Any]]:
        return [[call[0], *call[3:]] for call in told(app) if len(call) > 2 and call[2] == result.id]

    assert of(good[0]) == of(good[1]) == [["before_start"], ["on_success"], ["after_return", "SUCCESS"]]
    assert of(bad[0]) == [["before_start"], ["on_failure", "ValueError"], ["after_return", "FAILURE"]]
    assert of(bad[1]) == [["before_start"], ["on_failure", "PermanentError"], ["after_return", "FAILURE"]]
    kinds = ("before_start", "on_success", "on_failure", "on_retry", "after_return")
    assert {call[1] for call in told(app, *kinds)} == {"plain", "fails", RUN_BATCH}


@workers
def test_what_annotations_put_in_their_place_is_called_as_for_a_plain_task(
    project: Project, simulator: Simulator
) -> None:
    app = project("Hooked", env={"BASES_ANNOTATED": "1"})
    simulator.faults(Fault("create", "status", status=400))
    ids = []
    for result in (bases.fails.delay(), run_batch.delay(requests("bad", 2))):
        result.get(timeout=120, propagate=False)
        ids.append(result.id)
    wait_until(lambda: len(told(app, "after_return")) == 2)
    assert told(app, "annotated") == [["annotated", "fails", ids[0]], ["annotated", RUN_BATCH, ids[1]]]
    assert told(app, "on_failure") == []
    simulator.reset("healthy")
    assert run_batch.delay(requests("good", 2)).get(timeout=120)["succeeded"] == 2


@workers
def test_its_class_of_messages_is_used(project: Project, simulator: Simulator) -> None:
    app = project("HasRequest")
    results = [bases.plain.delay(), run_batch.delay(requests("job", 2))]
    for result in results:
        result.get(timeout=120)
    found = wait_until(lambda: {"plain", RUN_BATCH} <= (names := {call[1] for call in told(app, "request")}) and names)
    assert "claude_batch_tasks.finish_job" not in found


@workers
def test_every_task_of_a_job_runs_for_its_tenant_without_a_traceback(
    project: Project, simulator: Simulator, tmp_path: Path, monkeypatch: Any
) -> None:
    app = project("Tenant")
    simulator.behave(processing_seconds=1)
    monkeypatch.setattr(bases.Tenant, "current", "acme")
    job = chain(run_batch.s(requests("job", 2), on_result=bases.save.s()), bases.plain.s()).apply_async()
    monkeypatch.setattr(bases.Tenant, "current", "other")
    assert job.get(timeout=120) == "plain"
    wait_until(lambda: "save" in {call[1] for call in told(app, "tenant")})
    assert {call[2] for call in told(app, "tenant")} == {"acme"}
    assert "Traceback" not in (tmp_path / "worker.log").read_text()


@workers
def test_what_comes_back_raises_nothing_there_and_what_fails_raises_its_error(
    project: Project, simulator: Simulator, tmp_path: Path
) -> None:
    app = project("Reports")
    simulator.behave(processing_seconds=2)
    bases.plain.delay().get(timeout=120)
    assert run_batch.delay(requests("good", 2)).get(timeout=120)["succeeded"] == 2
    assert told(app, "raised") == []
    simulator.faults(Fault("create", "status", status=400))
    with pytest.raises(errors.PermanentError):
        run_batch.delay(requests("bad", 2)).get(timeout=120)
    assert told(app, "raised") == [["raised", "claude_batch_tasks.finish_job", "PermanentError"]]
    assert "Traceback" not in "".join((tmp_path / "worker.log").read_text().partition("raised unexpected")[0])


@workers
@pytest.mark.parametrize("kind", ["Skips", "PutsOff"])
def test_a_step_that_it_does_not_run_comes_back(kind: str, project: Project, simulator: Simulator) -> None:
    app = project(kind, options=("--pool=solo",))
    job = run_batch.delay(requests("job", 2))
    assert job.get(timeout=120)["succeeded"] == 2
    assert simulator.journal().totals.batches_created == 1
    assert simulator.journal().paid_twice() == []
    assert BatchJob(job.id, app).status().state == "completed"


@workers
def test_one_that_never_runs_a_step_ends_the_job_with_its_name(project: Project) -> None:
    project("Never", env={"CLAUDE_BATCH_MAX_STEP_FAILURES": "2"})
    text = r"poll_batch was interrupted: the __call__ of its task class, Never, did not run it, 2 times in a row"
    with pytest.raises(errors.StepFailed, match=text):
        run_batch.delay(requests("job", 2)).get(timeout=120)


@workers
def test_what_it_adds_to_a_message_is_on_every_message(
    project: Project, simulator: Simulator, monkeypatch: Any
) -> None:
    app = project("OfUser", options=("--concurrency=2", "--queues=mia"))
    monkeypatch.setattr(bases.OfUser, "user", "mia")
    simulator.behave(outcomes=[Outcome("expired", prompt="prompt 0 of", attempts=9)])
    last = bases.plain.s().set(queue="mia")
    job = chain(run_batch.s(requests("job", 3), on_result=bases.save.s(), retries=1), last).apply_async()
    assert job.get(timeout=120) == "plain"
    found = Counter((call[1].rpartition(".")[2], call[2]) for call in told(app, "user"))
    assert [name for name, user in found if user != "mia"] == []
    assert {name for name, _ in found} == {
        "run_batch", "create_batch", "poll_batch", "fetch_results", "fall_back", "send_messages", "finish_job",
        "save", "plain",
    }  # fmt: skip


class TestAClassThatSendsAfterTheCommit:
    @workers
    def test_has_the_job_run_then(self, project: Project, simulator: Simulator, ledger: Ledger) -> None:
        app = project("AfterCommit")
        with bases.transaction(commits=True):
            assert bases.plain.apply_async() is None
            assert run_batch.apply_async((requests("job", 2),), task_id="one") is None
            assert app.backend.client.llen("celery") == 0
            assert ledger.list_due() == []
        assert app.AsyncResult("one").get(timeout=120)["succeeded"] == 2

    @workers
    def test_has_no_job_run_after_a_rollback(self, project: Project, simulator: Simulator) -> None:
        """Not even when lost messages are looked for."""
        app = project("AfterCommit", env={"CLAUDE_BATCH_RECOVER_AFTER": "1"})
        with bases.transaction(commits=False):
            run_batch.apply_async((requests("job", 2),), task_id="one")
        with bases.transaction(commits=True):
            run_batch.apply_async((requests("other", 2),), task_id="two")
        assert app.AsyncResult("two").get(timeout=120)["succeeded"] == 2
        recover_jobs.at_once()
        assert simulator.journal().totals.batches_created == 1
        assert BatchJob("one", app).status().state == "staged"
        assert app.AsyncResult("one").state == "PENDING"

    @pytest.mark.parametrize("commits", [True, False])
    def test_tells_nobody_that_a_job_that_was_never_sent_has_expired(
        self, commits: bool, servers: dict[str, str], ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app = bases.make("AfterCommit", **servers)
        monkeypatch.setattr(record_repair, "_CERTAIN", 0.0)
        with bases.transaction(commits=commits):
            app.tasks[RUN_BATCH].apply_async((requests("job", 1),), task_id="one")
        client, watch = app.backend.client, record_repair.Watch()
        client.delete("celery")
        watch.start_repairs(app)
        ledger.lose_job("one")  # as when it expires
        for _ in range(2):
            watch.start_repairs(app)
        assert client.llen("celery") == commits

    @workers
    def test_stages_what_goes_round_it(self, project: Project) -> None:
        project("AfterCommit")
        job = run_batch.at_once((requests("job", 2),))
        assert job.get(timeout=120)["succeeded"] == 2


def test_one_that_refuses_leaves_nothing_behind(app: Celery, servers: dict[str, str], ledger: Ledger) -> None:
    other = bases.make("Refuses", **servers)
    before = other.backend.client.dbsize()
    with pytest.raises(PermissionError):
        other.tasks[RUN_BATCH].apply_async((requests("job", 2),), task_id="one")
    with pytest.raises(errors.JobNotFound):
        BatchJob("one", other).status()
    assert ledger.find_job("one") == []
    assert before == 0


def test_one_that_has_a_name_of_ours_is_left_out_and_said_so(
    servers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    app = bases.make("Clashes", **servers)
    assert not isinstance(app.tasks[RUN_BATCH], bases.Clashes)
    assert isinstance(app.tasks["plain"], bases.Clashes)
    assert "Clashes" in caplog.text
    assert "(store)" in caplog.text


@pytest.mark.parametrize("kind", sorted(set(bases.KINDS) - {"Clashes"}))
def test_every_task_of_ours_is_one_of_the_apps(kind: str, servers: dict[str, str]) -> None:
    app = bases.make(kind, **servers)
    for name, task in app.tasks.items():
        if name.startswith("claude_batch_tasks."):
            assert isinstance(task, bases.KINDS[kind])
            assert isinstance(task, app.Task)


class TestACallAsAFunction:
    """A job is run by workers: what Celery would call here and now is refused, and nothing is stored."""

    @pytest.mark.parametrize(
        "call",
        [
            lambda: run_batch(requests("job", 2)),
            lambda: run_batch(requests=requests("job", 2), fallback="off"),
            lambda: run_batch.run(requests("job", 2)),
            lambda: run_batch.s(requests("job", 2))(),
            lambda: run_batch.map([requests("job", 2)]),
            lambda: run_batch.starmap([(requests("job", 2),)]),
            lambda: run_batch.chunks([(requests("job", 2),)], 1),
        ],
    )
    def test_is_refused_at_once(self, call: Callable[[], Any], app: Celery) -> None:
        with pytest.raises(TypeError, match=r"run_batch\.delay\(requests\).*Nothing was stored or sent"):
            call()
        assert app.backend.client.dbsize() == 0

    @pytest.mark.parametrize("step", [create_batch, finish_job])
    def test_of_a_step_is_refused(self, step: Any, app: Celery) -> None:
        with pytest.raises(TypeError, match="is a step of a job"):
            step("job", 0)
        with pytest.raises(TypeError, match="is a step of a job"):
            step.run("job", 0)

    def test_of_a_task_that_is_no_part_of_a_job_works(self, app: Celery) -> None:
        assert recover_jobs() == "0 lost messages were sent again"
        assert cancel_batch("job", 0) == "nothing to cancel yet"

    @workers
    def test_is_refused_in_a_worker(self, project: Project, ledger: Ledger) -> None:
        app = project("Runs")
        one = requests("job", 2)
        for result in (
            bases.calls_job.delay(one),
            xmap(run_batch.s(), [one], app=app).apply_async(),
            xstarmap(run_batch.s(), [(one,)], app=app).apply_async(),
            chunks(run_batch.s(), [(one,)], 1, app=app).apply_async(),
        ):
            with pytest.raises(TypeError, match=r"run_batch\.delay\(requests\)"):
                result.get(timeout=60)
        assert list(ledger.open().transfer.list_ids()) == []


class TestInEagerMode:
    @pytest.fixture
    def eager(
        self, servers: dict[str, str], simulator: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[str], Celery]:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-simulated")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", simulator.url)

        def make(kind: str) -> Celery:
            app = bases.make(kind, **servers, task_always_eager=True)
            app.set_current()
            return app

        return make

    @pytest.mark.parametrize("kind", ["Runs", "CallsSuper", "Reports", "Task"])
    def test_a_job_runs_here(self, kind: str, eager: Callable[[str], Celery], simulator: Simulator) -> None:
        app = eager(kind)
        simulator.behave(processing_seconds=0.3, outcomes=[Outcome("expired", prompt="prompt 0 of", attempts=9)])
        assert run_batch.delay(requests("job", 2), retries=1).get()["succeeded"] == 2
        assert run_batch.apply((requests("other", 2),), {"retries": 1}).get()["succeeded"] == 2
        assert chain(run_batch.s(requests("third", 1)), bases.plain.s()).apply_async().get() == "plain"
        assert told(app, "raised") == []

    def test_hooks_are_called_once(self, eager: Callable[[str], Celery], simulator: Simulator) -> None:
        app = eager("Hooked")
        run_batch.delay(requests("job", 2))
        assert told(app) == [
            ["before_start", RUN_BATCH, told(app)[0][2]],
            ["on_success", RUN_BATCH, told(app)[0][2]],
            ["after_return", RUN_BATCH, told(app)[0][2], "SUCCESS"],
        ]

    def test_a_job_runs_after_the_commit(self, eager: Callable[[str], Celery], simulator: Simulator) -> None:
        app = eager("AfterCommit")
        with bases.transaction(commits=True):
            run_batch.apply_async((requests("job", 2),), task_id="one")
            assert BatchJob("one", app).status().state == "staged"
        assert BatchJob("one", app).status().state == "completed"
