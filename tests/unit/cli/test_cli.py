"""``claude-batch`` without a worker: what it takes, what it says, how it ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.bin.celery import celery
from celery.signals import after_task_publish
from click.testing import CliRunner, Result

from claude_batch_tasks import BatchJob, errors, list_jobs
from claude_batch_tasks.cli import claude_batch, common, following, request_file
from claude_batch_tasks.embedded import RedisServer, free_port
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.outputs import describe_output
from claude_batch_tasks.records import Unit, WorkerPresence
from claude_batch_tasks.store import Store, open_store_at
from tests.factories import make_params
from tests.support import ASKED_ONCE
from tests.unit.checks.test_pools import add_asks
from tests.unit.jobs.job_maker import ANSWERS, CUT, SUCCEEDED, Maker
from tests.unit.outputs.kinds import Review, check_stars

PROMPT = "SECRET-PROMPT"


@pytest.fixture
def run(app: Celery) -> Callable[..., Result]:
    """``run("submit", "-", input=...)``: a command, under the app of the test."""

    def run(*args: str, input: str | bytes | None = None) -> Result:
        result = CliRunner().invoke(claude_batch, args, input=input)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert PROMPT not in result.output
        return result

    return run


@pytest.fixture
def store(redis_url: str) -> Store:
    return open_store_at(redis_url)


def line(custom_id: Any = "a", **params: Any) -> str:
    own = {**make_params(PROMPT), **params}
    return json.dumps({"custom_id": custom_id, "params": own}) + "\n"


def _poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_FIRST", 0.01)
    monkeypatch.setattr(following, "_LONGEST", 0.05)


def nowhere() -> str:
    return f"redis://127.0.0.1:{free_port()}/0"


class TestTheGroup:
    def test_has_help_for_every_command_and_the_exit_codes(self) -> None:
        whole = CliRunner().invoke(claude_batch, ["--help"]).output
        assert "130  interrupted" in whole
        for name in claude_batch.list_commands(None):  # type: ignore[arg-type]
            assert f"  {name} " in whole
            assert CliRunner().invoke(claude_batch, [name, "--help"]).exit_code == 0
        assert whole.count("...") == 1, "a command's first sentence is too long for the list"

    def test_takes_the_app_as_celery_does(
        self, run: Callable[..., Result], redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = f"own_{tmp_path.name}"
        (tmp_path / f"{module}.py").write_text(
            f"from celery import Celery\napp = Celery('own', backend={nowhere()!r}, set_as_current=False)\n"
        )
        monkeypatch.chdir(tmp_path)
        assert run("list").exit_code == 0
        assert run("-A", module, "list").exit_code == 75
        assert "no Celery app of that name here" in run("-A", "nosuch", "list").output
        assert run("-A", "nosuch", "list").exit_code == 2
        monkeypatch.setenv("CELERY_APP", module)
        assert run("list").exit_code == 75

    def test_takes_celerys_app_under_celery(
        self, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = f"proj_{tmp_path.name}"
        (tmp_path / f"{module}.py").write_text(
            f"from celery import Celery\napp = Celery('p', broker={redis_url!r}, set_as_current=False)\n"
        )
        monkeypatch.chdir(tmp_path)
        told = CliRunner().invoke(celery, ["-A", module, "claude-batch", "submit", "-"], input=line()).output
        assert f"celery -A {module} claude-batch watch {told.splitlines()[0]}\n" in told
        missing = CliRunner().invoke(celery, ["-A", module, "claude-batch", "status", "nosuch"])
        assert missing.exit_code == 4
        assert f"`celery -A {module} claude-batch list` shows" in missing.output


class TestPools:
    def test_are_listed_by_queue_with_what_waits(self, run: Callable[..., Result], store: Store) -> None:
        add_asks(store, "reviews", 5)
        at = datetime.now(timezone.utc)
        worker = WorkerPresence(hostname="celery@a", queues=("celery",), version="1", started_at=at, last_seen=at)
        store.presence.report_worker(worker, 60)
        head, row = run("pools").output.splitlines()
        assert head.split() == ["QUEUE", "POOL", "OPEN", "CLOSED", "JOBS", "WAITING", "OLDEST", "NEXT", "JOB"]
        assert row.split()[:6] == ["celery", "reviews", "1", "1", "0", "5"]
        assert " due for " in row

    def test_on_a_queue_without_a_worker_have_the_command_that_starts_one(
        self, run: Callable[..., Result], store: Store
    ) -> None:
        add_asks(store, "reviews", 1, queue="nightly")
        output = run("pools").output
        assert "No worker listens on queue 'nightly', so these asks wait. To start one" in output
        assert "worker -Q nightly" in output
        assert " in " in output.splitlines()[1]

    def test_are_json_for_scripts(self, run: Callable[..., Result], store: Store) -> None:
        assert run("pools", "--json").output == ""
        add_asks(store, "reviews", 1)
        found = json.loads(run("pools", "--json").output)
        assert (found["queue"], found["pool"], found["open"], found["waiting"]) == ("celery", "reviews", 1, 1)
        assert datetime.fromisoformat(found["due_at"].replace("Z", "+00:00")).tzinfo is not None


class TestSubmitting:
    def test_prints_the_id_alone_when_quiet(self, run: Callable[..., Result], tmp_path: Path, app: Celery) -> None:
        file = tmp_path / "requests.jsonl"
        file.write_text(line("a") + "\n" + line("ü"))
        submitted = run("submit", str(file), "--quiet", "--queue", "slow")
        assert submitted.exit_code == 0
        job = BatchJob(submitted.output.strip(), app)
        assert (job.status().state, job.status().requests) == ("staged", 2)
        assert [request["custom_id"] for request in job.requests()] == ["a", "ü"]

    def test_says_how_to_follow_the_job(self, run: Callable[..., Result]) -> None:
        job_id, told = run("submit", "-", input=line()).output.splitlines()
        assert told == f"Submitted: 1 request in 1 batch. To follow the job: claude-batch watch {job_id}"

    def test_gives_the_settings_their_types(self, run: Callable[..., Result], store: Store) -> None:
        settings = ("-s", "max_wait=7200", "--set", "retries=0", "-s", "fallback=off", "-s", "max_cost=none")
        deadline = datetime.now(timezone.utc) + timedelta(hours=1)
        submitted = run("submit", "-", "-q", *settings, "-s", f"deadline={deadline.isoformat()}", input=line())
        record = store.jobs.read_job(submitted.output.strip())
        assert record is not None
        assert record.options.pop("deadline") == pytest.approx(3600, abs=60)
        assert record.options == {"max_wait": 7200, "retries": 0, "fallback": "off", "max_cost": None}

    def test_takes_the_type_of_the_answers(self, run: Callable[..., Result], store: Store) -> None:
        kinds = "tests.unit.outputs.kinds"
        typed = ("-s", f"output={kinds}.Review", "-s", f"check={kinds}.check_stars", "-s", "reask=2")
        record = store.jobs.read_job(run("submit", "-", "-q", *typed, input=line()).output.strip())
        assert record is not None
        assert (record.options, record.output) == ({"reask": 2}, describe_output(Review, check_stars))

    @pytest.mark.parametrize(
        ("option", "said"),
        [
            ("output=answers", "answers cannot be imported"),
            ("reask=2", "needs output="),
            ("maxwait=3", "did you mean max_wait?"),
            ("max_wait", "write NAME=VALUE"),
            ("max_wait=soon", "must be a number"),
            ("job_id=x", "unknown run_batch option"),
            ("poll_max=1", "greater than"),
        ],
    )
    def test_refuses_settings_that_make_no_sense(self, run: Callable[..., Result], option: str, said: str) -> None:
        refused = run("submit", "-", "-s", option, input=line())
        assert (refused.exit_code, said in refused.output) == (2, True)

    def test_names_what_is_wrong_by_line(self, run: Callable[..., Result], app: Celery) -> None:
        refused = run("submit", "-", input=f"{line('a')}\n \n{line('b', max_tokens=0)}\n{line('a')}[1]\n")
        assert refused.exit_code == 2
        assert refused.output.splitlines() == [
            "Error: 3 problems in standard input; nothing was stored or sent:",
            "  line 4, custom_id 'b', field params.max_tokens: must be a whole number of at least 1 in a batch",
            "  line 6, custom_id 'a', field custom_id: occurs more than once",
            "  line 7, field request: must be an object with custom_id and params, not list",
        ]
        assert list(list_jobs(app=app)) == []

    @pytest.mark.parametrize(
        ("broken", "said"),
        [
            (f'{{"custom_id": "{PROMPT}"\n', "line 2 is not JSON"),
            (b'{"custom_id": "\xff"}\n', "line 2 is not JSON"),
            ("[" * 100_000 + "\n", "line 2 is not JSON"),
            ("x" * 2000 + "\n", "line 2 is longer than a whole batch may be"),
        ],
    )
    def test_names_a_line_that_is_none(
        self, run: Callable[..., Result], broken: Any, said: str, monkeypatch: pytest.MonkeyPatch, app: Celery
    ) -> None:
        if "longer" in said:
            monkeypatch.setattr(request_file, "LONGEST", 1000)
        broken = broken.encode() if isinstance(broken, str) else broken
        refused = run("submit", "-", input=line().encode() + broken)
        assert refused.exit_code == 2
        assert f"standard input: {said}" in refused.output
        assert "nothing was stored or sent" in refused.output
        assert list(list_jobs(app=app)) == []

    def test_refuses_an_empty_job_and_a_file_that_is_not_there(self, run: Callable[..., Result]) -> None:
        assert run("submit", "-", input="\n").output.endswith("\n  the job is empty\n")
        missing = run("submit", "nosuch.jsonl")
        assert (missing.exit_code, "No such file" in missing.output) == (2, True)

    @pytest.mark.parametrize("what", ["broker", "result back end"])
    def test_keeps_nothing_when_a_server_does_not_answer(
        self, run: Callable[..., Result], app: Celery, redis_url: str, what: str
    ) -> None:
        app.conf.claude_batch_store_url = redis_url
        if what == "broker":
            app.conf.update(broker_url=nowhere(), task_publish_retry_policy=ASKED_ONCE)
        else:
            app.conf.result_backend = nowhere()
            app.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 1}}
        refused = run("submit", "-", input=line())
        assert refused.exit_code == 75
        # Celery before 5.7 does not say which of the two it was.
        said = (
            "the broker at" if what == "broker" or version("celery") < "5.7" else "the result back end cannot be used"
        )
        assert said in refused.output
        assert "The job does not exist" in refused.output
        assert list(list_jobs(app=app)) == []

    @pytest.mark.parametrize("options", [[], ["--wait"], ["--json"]])
    def test_never_says_that_what_was_submitted_may_be_submitted_again(
        self, run: Callable[..., Result], app: Celery, options: list[str]
    ) -> None:
        """The store goes away when the message has been sent."""
        with RedisServer() as server:
            app.conf.claude_batch_store_url = server.url
            stop = lambda **_: server.stop(kill=True)  # noqa: E731
            after_task_publish.connect(stop, weak=False)
            try:
                failed = run("submit", "-", *options, input=line())
            finally:
                after_task_publish.disconnect(stop)
        assert failed.exit_code == 1
        assert "is submitted, but now the store at" in failed.output
        assert "To follow the job: claude-batch watch " in failed.output


class TestCtrlCWhileSubmitting:
    """It comes in the very moment in which the message has been sent."""

    @pytest.fixture
    def ctrl_c(self) -> Iterator[list[Callable[[str], Any]]]:
        before: list[Callable[[str], Any]] = []

        def interrupt(headers: Any = None, **_: Any) -> None:
            for each in before:
                each(headers["id"])
            raise KeyboardInterrupt

        after_task_publish.connect(interrupt, weak=False)
        yield before
        after_task_publish.disconnect(interrupt)

    def test_takes_back_what_nobody_has_begun(self, run: Callable[..., Result], app: Celery, ctrl_c: Any) -> None:
        interrupted = run("submit", "-", input=line())
        assert interrupted.exit_code == 130
        assert interrupted.output == "\nInterrupted: nothing was sent, and nothing is stored.\n"
        assert list(list_jobs(app=app)) == []

    def test_leaves_a_job_that_has_begun(
        self, run: Callable[..., Result], app: Celery, store: Store, ctrl_c: Any
    ) -> None:
        ctrl_c.append(lambda job_id: store.jobs.update_job(job_id, state="running"))
        interrupted = run("submit", "-", input=line())
        [job] = list_jobs(app=app)
        assert interrupted.exit_code == 130
        assert interrupted.output == (
            f"\nInterrupted, but job {job.job_id} has begun and continues; to follow it: "
            f"claude-batch watch {job.job_id}\n"
        )

    def test_says_so_when_it_cannot_know(self, run: Callable[..., Result], app: Celery, ctrl_c: Any) -> None:
        def unreachable(_: str) -> None:
            raise errors.StoreUnavailable("gone")

        with pytest.MonkeyPatch.context() as patch:
            ctrl_c.append(lambda _: patch.setattr(BatchJob, "delete", unreachable))
            interrupted = run("submit", "-", input=line())
        assert interrupted.exit_code == 130
        assert "may have been sent; to find out: claude-batch status " in interrupted.output


class TestAJobInTheStore:
    @pytest.fixture
    def job(self, run: Callable[..., Result], app: Celery) -> BatchJob:
        return BatchJob(run("submit", "-", "-q", input=line("a") + line("b")).output.strip(), app)

    def test_has_its_cost_shown_with_what_is_not_in_it(self, run: Callable[..., Result], job: BatchJob) -> None:
        store: Store = job._store
        store.leases.acquire_lease(Unit(job.id, 0), 0, "test", 60)
        store.leases.write_record(
            Unit(job.id, 0), "test", costs={"m": "1.5", "n (speed fast)": None}, unpriced={"n (speed fast)": 3}
        )
        shown = run("status", job.id).output
        assert "Cost       $1.50 (m $1.50, n (speed fast) unknown)" in shown
        assert "and 3 answers whose price is not known (n (speed fast): 3)" in shown
        assert "$1.50+" in run("list").output
        assert json.loads(run("status", job.id, "--json").output)["cost_unknown"] == {"n (speed fast)": 3}

    def test_is_listed(self, run: Callable[..., Result], job: BatchJob) -> None:
        later = run("submit", "-", "-q", input=line()).output.strip()
        heading, *rows = run("list").output.splitlines()
        assert heading.split() == ["JOB", "STATE", "REQUESTS", "FAILED", "COST", "AGE", "NOTE"]
        assert [row.split()[:4] for row in rows] == [[later, "queued", "1", "0"], [job.id, "queued", "2", "0"]]
        found = [json.loads(row) for row in run("list", "--json").output.splitlines()]
        assert [each["job_id"] for each in found] == [later, job.id]
        assert all(each["polls_404"] == each["not_found"] == 0 for each in found), "both names, until 1.0"
        assert len(run("list", "--json", "--limit", "1").output.splitlines()) == 1
        assert run("list", "--json", "--state", "failed", "--state", "running").output == ""
        assert run("list", "--state", "nosuch").exit_code == 2
        for state in ("queued", "staged"):
            assert len(run("list", "--json", "--state", state).output.splitlines()) == 2
        assert run("list", "--json", "--state", "delivering").output == ""

    def test_is_found_by_its_label_and_metadata(self, run: Callable[..., Result], job: BatchJob) -> None:
        said = ("--label", "nightly", "--metadata", "team=search", "--metadata", "run=7")
        mine = run("submit", "-", "-q", *said, input=line()).output.strip()
        for wanted in (said[:2], said[2:4], said):
            assert [json.loads(row)["job_id"] for row in run("list", "--json", *wanted).output.splitlines()] == [mine]
        assert run("list", "--json", "--metadata", "team=other").output == ""
        assert run("list").output.splitlines()[1].endswith("  nightly")
        shown = run("status", mine).output.splitlines()
        assert "Label      nightly" in shown
        assert "Metadata   team=search, run=7" in shown
        wrong = run("submit", "-", "--metadata", "team", input=line())
        assert (wrong.exit_code, "such as team=search" in wrong.output) == (2, True)
        assert run("submit", "-", "--label", "x" * 101, input=line()).exit_code == 2

    def test_has_a_status(self, run: Callable[..., Result], job: BatchJob) -> None:
        shown = run("status", job.id)
        assert shown.exit_code == 0
        assert f"Job        {job.id}" in shown.output
        assert "Requests   2: 2 processing" in shown.output
        assert "submitted: 2 requests in 1 batch" in shown.output
        found = json.loads(run("status", job.id, "--json").output)
        assert (found["state"], found["batches"][0]["requests"]) == ("staged", 2)
        assert (found["polls"], found["looks"], found["batches"][0]["number"]) == (0, 0, 1)
        assert [event["event"] for event in found["history"]] == ["submitted"]

    def test_is_found_by_the_first_characters_of_its_id(self, run: Callable[..., Result], job: BatchJob) -> None:
        assert json.loads(run("status", job.id[:8], "--json").output)["job_id"] == job.id
        for task_id in ("nightly-1", "nightly-2"):
            submission.submit_job(job._app, task_id, [json.loads(line())], {})
        several = run("status", "night")
        assert (several.exit_code, "nightly-1, nightly-2" in several.output) == (2, True)
        assert run("delete", "night", "--yes").exit_code == 2
        assert len(run("list", "--json").output.splitlines()) == 3
        assert json.loads(run("cancel", job.id[:8], "--json").stdout)["job_id"] == job.id

    def test_has_no_results_yet(self, run: Callable[..., Result], job: BatchJob, tmp_path: Path) -> None:
        assert run("results", job.id, "--quiet").output == ""
        told = run("results", job.id, "-o", str(tmp_path / "r.jsonl")).output
        assert f"Job {job.id} is queued: 0 of 2 requests have a result." in told
        assert (tmp_path / "r.jsonl").read_text() == ""
        assert run("results", job.id, "--type", "nosuch").exit_code == 2
        refused = run("results", job.id, "-o", str(tmp_path / "nosuch" / "r.jsonl"))
        assert (refused.exit_code, "The results are still in the store" in refused.output) == (1, True)

    def test_is_deleted_unless_it_runs(self, run: Callable[..., Result], job: BatchJob, store: Store) -> None:
        store.jobs.update_job(job.id, state="running")
        refused = run("delete", job.id)
        assert refused.exit_code == 1
        assert f"First: claude-batch cancel {job.id}" in refused.output
        store.jobs.update_job(job.id, state="staged")
        assert run("delete", job.id).exit_code == 0
        assert store.jobs.read_job(job.id) is None

    def test_is_canceled_even_when_the_broker_does_not_answer(
        self, run: Callable[..., Result], store: Store, app: Celery
    ) -> None:
        app.conf.update(broker_url=nowhere(), task_publish_retry_policy=ASKED_ONCE)
        submission.submit_job(app, "job-1", [json.loads(line())], {})
        canceled = run("cancel", "job-1")
        assert canceled.exit_code == 0
        assert "but the store has the request" in canceled.output
        record = store.jobs.read_job("job-1")
        assert record is not None
        assert record.cancel_requested

    def test_that_nobody_takes_is_remarked_on(
        self, run: Callable[..., Result], job: BatchJob, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(common, "_UNBEGUN", 0)
        _poll_often(monkeypatch)
        revoked = {"state": "revoked", "ended_at": time.time()}
        threading.Timer(0.1, lambda: store.jobs.update_job(job.id, **revoked)).start()
        watched = run("watch", job.id)
        assert watched.exit_code == 1
        assert watched.output.count("No worker has picked this up yet.") == 1
        assert "Workers that listen on queue 'celery': none. To start one: celery -A tests worker\n" in watched.output

    def test_is_watched_through_a_restart_of_the_store(self, app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
        _poll_often(monkeypatch)
        with RedisServer() as server, ThreadPoolExecutor(1) as pool:
            app.conf.claude_batch_store_url = server.url
            submission.submit_job(app, "job-1", [json.loads(line())], {})
            looks = following._poll_status(BatchJob("job-1", app))
            assert next(looks)[0].state == "staged"
            server.stop(kill=True)
            pool.submit(lambda: (time.sleep(0.1), server.start()))
            assert next(looks)[0].state == "staged"

    def test_says_in_its_status_that_no_worker_listens(
        self, run: Callable[..., Result], job: BatchJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "Waits" not in run("status", job.id).output
        monkeypatch.setattr(common, "_UNBEGUN", 0)
        assert "Waits      No worker has picked this up yet. Workers that listen" in run("status", job.id).output

    def test_waits_for_a_worker_that_listens_without_a_remark(
        self, run: Callable[..., Result], job: BatchJob, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(common, "_UNBEGUN", 0)
        store.presence.report_worker(make_worker(), 60)
        assert "Waits" not in run("status", job.id).output

    def test_without_on_result_has_nothing_to_deliver(self, run: Callable[..., Result], job: BatchJob) -> None:
        refused = run("redeliver", job.id)
        assert (refused.exit_code, "on_result" in refused.output) == (1, True)

    def test_is_resumed_only_when_it_has_failed(self, run: Callable[..., Result], job: BatchJob) -> None:
        refused = run("resume", job.id)
        assert (refused.exit_code, "has not ended" in refused.output) == (1, True)


class TestAJobWithAnswersThatAreNotComplete:
    @pytest.fixture
    def job(self, app: Celery, store: Store) -> BatchJob:
        return Maker(app, store).make(*ANSWERS)

    def test_says_so_in_its_first_line(self, run: Callable[..., Result], job: BatchJob) -> None:
        said = "3 answers are incomplete (2 max_tokens, 1 refusal)"
        assert f"State      completed: {said}" in run("status", job.id).output
        assert run("list").output.splitlines()[1].endswith("expired 1, incomplete 3")
        assert f" completed: {said}" in run("watch", job.id).output

    def test_says_so_where_its_results_are_exported(
        self, run: Callable[..., Result], job: BatchJob, tmp_path: Path
    ) -> None:
        said = "3 answers are incomplete (2 max_tokens, 1 refusal), 1 answer has an unknown stop reason"
        exported = run("results", job.id, "-o", str(tmp_path / "all.csv")).output
        assert said in exported
        assert f". Which, and why: claude-batch failures {job.id}" in exported

    def test_has_counts_as_json(self, run: Callable[..., Result], job: BatchJob) -> None:
        found = json.loads(run("status", job.id, "--json").output)
        assert found["incomplete"] == {"max_tokens": 2, "refusal": 1, "out_of_patience": 1}
        assert found["repairs"] == {}

    def test_is_not_passed_off_as_good(self, run: Callable[..., Result], app: Celery, store: Store) -> None:
        cut = Maker(app, store).make([CUT], job_id="cut")
        watched = run("watch", cut.id)
        assert watched.exit_code == 3
        assert "Which are incomplete, and why: claude-batch failures cut" in watched.output
        assert run("watch", Maker(app, store).make([SUCCEEDED], job_id="good").id).exit_code == 0

    def test_has_them_among_its_failures(self, run: Callable[..., Result], job: BatchJob) -> None:
        rows = [row.split() for row in run("failures", job.id).output.splitlines()[1:4]]
        assert [row[:3] for row in rows] == [
            ["expired", "1", "0-3"],
            ["max_tokens", "2", "0-2"],
            ["refusal", "1", "0-1"],
        ]
        found = json.loads(run("failures", job.id, "--json").output)
        assert (found["failed"], found["incomplete"]) == (1, {"max_tokens": 2, "refusal": 1})
        listed = run("failures", job.id, "--type", "incomplete", "--list", "--json").output.splitlines()
        assert {(each["custom_id"], each["type"], each["outcome"]) for each in map(json.loads, listed)} == {
            ("0-1", "refusal", "succeeded"),
            ("0-2", "max_tokens", "succeeded"),
            ("1-1", "max_tokens", "succeeded"),
        }

    def test_offers_to_run_failures_again_and_no_answers(self, run: Callable[..., Result], job: BatchJob) -> None:
        assert f"retry-failed {job.id}\n" in run("failures", job.id).output
        both = run("failures", job.id, "--type", "expired", "--type", "refusal").output
        assert f"retry-failed {job.id} --type expired\n" in both
        assert "retry-failed" not in run("failures", job.id, "--type", "refusal").output
        refused = run("retry-failed", job.id, "--type", "refusal")
        assert (refused.exit_code, "refusal_model" in refused.output) == (2, True)
        assert run("failures", job.id, "--type", "succeeded").exit_code == 2


def make_worker() -> WorkerPresence:
    now = datetime.now(timezone.utc)
    return WorkerPresence(
        hostname="celery@here",
        queues=("celery", "nightly"),
        version="0.3.0",
        pool="prefork",
        processes=4,
        started_at=now,
        last_seen=now,
    )


def test_workers_are_listed(run: Callable[..., Result], store: Store) -> None:
    assert "To start one: celery -A tests worker" in run("workers").output
    store.presence.report_worker(make_worker(), 60)
    head, row = run("workers").output.splitlines()
    assert head.split() == ["WORKER", "QUEUES", "POOL", "RELEASE"]
    assert row.split() == ["celery@here", "celery,", "nightly", "prefork", "4", "0.3.0"]
    assert json.loads(run("workers", "--json").output)["queues"] == ["celery", "nightly"]


def test_what_is_changed_is_said_in_json(run: Callable[..., Result], app: Celery) -> None:
    job_id = run("submit", "-", "-q", input=line()).output.strip()
    said = [json.loads(run(command, job_id, "--json").stdout) for command in ("cancel", "delete")]
    assert said[0] == {"job_id": job_id, "cancel_requested": True, "state": "staged", "phase": "queued"}
    assert said[1] == {"job_id": job_id, "deleted": True, "results": 0}
    assert json.loads(run("recover", "--json").stdout) == {"sent": 0}


@pytest.mark.parametrize("command", ["status", "watch", "results", "cancel", "resume", "delete"])
def test_a_job_that_is_not_there_has_an_exit_code_of_its_own(run: Callable[..., Result], command: str) -> None:
    missing = run(command, "nosuch")
    assert missing.exit_code == 4
    assert "no job nosuch in the store" in missing.output


@pytest.mark.parametrize("args", [["list"], ["status", "x"], ["watch", "x"], ["adopt", "msgbatch_1"], ["recover"]])
def test_a_store_that_does_not_answer_has_an_exit_code_of_its_own(
    run: Callable[..., Result], app: Celery, args: list[str]
) -> None:
    app.conf.claude_batch_store_url = nowhere()
    failed = run(*args)
    assert failed.exit_code == 75
    assert "Trying again is safe." in failed.output


def test_an_estimate_needs_neither_broker_nor_store(run: Callable[..., Result], app: Celery) -> None:
    app.conf.update(claude_batch_store_url=nowhere(), broker_url=nowhere())
    app.conf.claude_batch_prices = {"mine": {"input_mtok": 1_000_000, "output_mtok": 1_000_000}}
    found = json.loads(run("estimate", "-", "--json", input=line() + line("b", model="mine")).output)
    assert (found["requests"], found["max_output_tokens"]) == (2, 32)
    assert found["by_model"]["mine"] > 8
    shown = run("estimate", "-", input=line())
    assert "Output tokens       at most 16" in shown.output
    assert run("estimate", "-", input=line(max_tokens=0)).exit_code == 2


def test_an_estimate_says_what_it_cannot_know(run: Callable[..., Result]) -> None:
    document = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
    messages = [{"role": "user", "content": [document, document]}]
    text = run("estimate", "-", input=line(messages=messages) + line("b", messages=messages)).output
    assert "Cost                at least $0.0000; up to $" in text
    assert "Not known           4 files whose size is not known" in text
    assert "at most $" not in text
    endless = line(tools=[{"type": "web_search_20250305", "name": "web_search"}])
    assert "no limit is known" in run("estimate", "-", input=endless).output
    known = run("estimate", "-", input=line()).output
    assert "Cost                about $" in known
    assert "Not known" not in known


def test_an_id_that_is_none_of_a_batch_is_a_wrong_argument(run: Callable[..., Result]) -> None:
    refused = run("adopt", "batch-1")
    assert (refused.exit_code, "msgbatch_..." in refused.output) == (2, True)
