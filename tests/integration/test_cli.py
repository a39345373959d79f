"""``claude-batch`` as people run it: beside a worker, in pipes, on a terminal, interrupted."""

from __future__ import annotations

import csv
import gc
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import pytest
from celery import Celery
from click.testing import CliRunner, Result

from claude_batch_tasks import BatchJob, list_jobs
from claude_batch_tasks.cli import claude_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.simulator import Outcome, Simulator
from tests.integration.rig import name_servers, requests
from tests.support import FAST, LendStore, inherited, wait_until

pytestmark = [pytest.mark.latest, pytest.mark.workers]

PROGRAM = str(Path(sys.executable).with_name("claude-batch"))


class World:
    """A worker that all of these tests share, and commands beside it."""

    def __init__(self, simulator: Simulator, app: Celery, env: dict[str, str], folder: Path) -> None:
        self.simulator, self.app, self.env, self.folder = simulator, app, env, folder

    def run(self, *args: str, input: str | None = None) -> Result:
        """A command in this process."""
        result = CliRunner().invoke(claude_batch, args, input=input)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def execute(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A process of its own, until it ends."""
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=60, **{"env": self.env, **options}
        )

    @contextmanager
    def running(self, *args: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """``claude-batch`` in a process of its own, to be talked to."""
        with subprocess.Popen([PROGRAM, *args], env=self.env, cwd=self.folder, text=True, **options) as process:
            try:
                yield process
            finally:
                process.kill()


class Terminal:
    """One that shows standard error and asks, while standard output goes elsewhere."""

    def __init__(self) -> None:
        self._here, end = pty.openpty()
        self.shown = ""
        self.ends: dict[str, Any] = {"stdin": end, "stderr": end, "stdout": subprocess.PIPE, "start_new_session": True}
        self._reader = threading.Thread(target=self._read)

    def type(self, text: str) -> None:
        os.write(self._here, f"{text}\n".encode())

    def _read(self) -> None:
        with suppress(OSError), os.fdopen(self._here, "rb", buffering=0) as here:
            while piece := here.read(10_000):
                self.shown += piece.decode(errors="replace")

    def __enter__(self) -> Terminal:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.ends["stdin"])
        self._reader.join()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, lend_store: LendStore) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("cli")
    with ExitStack() as stack:
        redis, simulator = stack.enter_context(RedisServer()), stack.enter_context(Simulator("healthy"))
        places = name_servers(redis.url, stack.enter_context(lend_store(redis.url)))
        env = {**inherited(), **FAST, **simulator.env, **places}
        worker = Worker(env, folder / "worker.log")
        stack.callback(worker.stop, kill=True)
        worker.start()
        app = Celery("tests", broker=redis.url, backend=redis.url, set_as_current=False)
        app.conf.claude_batch_store_url = places["CLAUDE_BATCH_STORE_URL"]
        app.loader.import_task_module("claude_batch_tasks.tasks")
        # Commands know neither the API nor its key.
        yield World(simulator, app, {**inherited(), **places}, folder)
        gc.collect()
        app.close()


@pytest.fixture
def world(shared: World) -> World:
    shared.app.set_current()
    shared.simulator.reset("healthy")
    return shared


def lines(name: str, count: int) -> str:
    """The requests of a job as JSON lines."""
    made = requests(name, count).items()
    return "".join(json.dumps({"custom_id": custom_id, "params": params}) + "\n" for custom_id, params in made)


def test_a_job_from_a_file_to_its_results(world: World) -> None:
    (world.folder / "requests.jsonl").write_text(lines("file", 300))
    job_id = world.run("submit", str(world.folder / "requests.jsonl"), "--quiet").output.strip()
    watched = world.run("watch", job_id)
    assert watched.exit_code == 0
    assert f"Job {job_id} completed: 300 succeeded" in watched.output
    assert re.search(r"\d\d:\d\d:\d\d  batch 1: fetched, 300 succeeded\n", watched.output)
    status = json.loads(world.run("status", job_id, "--json").output)
    assert (status["state"], status["succeeded"], status["summary"]["succeeded"]) == ("completed", 300, 300)
    assert {"submitted", "created", "fetched", "finished"} <= {event["event"] for event in status["history"]}

    rows = [json.loads(row) for row in world.run("results", job_id).output.splitlines()]
    assert {row["custom_id"] for row in rows} == set(requests("file", 300))
    assert world.run("results", job_id, "--type", "errored").output == ""
    assert world.run("results", job_id, "-o", str(world.folder / "r.parquet"), "--format", "parquet").exit_code == 0
    assert (world.folder / "r.parquet").read_bytes().startswith(b"PAR1")
    # Whoever reads the first of them only is left in peace.
    cut = world.execute("bash", "-c", f"set -o pipefail; '{PROGRAM}' results {job_id} | head -c 14")
    assert (cut.stdout, cut.stderr, cut.returncode) == ('{"custom_id":"', "", 141)
    full = world.execute("bash", "-c", f"'{PROGRAM}' results {job_id} > /dev/full")
    assert full.returncode == 1
    assert full.stderr.startswith("Error: cannot write to standard output: No space left on device.")
    assert full.stderr.count("\n") == 1

    assert world.run("delete", job_id).exit_code == 0
    assert world.run("status", job_id).exit_code == 4


def test_a_job_from_standard_input_that_is_waited_for(world: World) -> None:
    """Nothing but the job's last status is on standard output; that one request failed is the exit code."""
    failing = Outcome("errored", error="invalid_request_error", count=1)
    world.simulator.behave(outcomes=(failing,))
    ended = world.execute(PROGRAM, "submit", "-", "--wait", "--json", input=lines("stdin", 3))
    status = json.loads(ended.stdout)
    assert (status["state"], status["succeeded"], status["errored"]) == ("completed", 2, 1)
    assert "created, 3 requests" in ended.stderr
    assert f"Its results: claude-batch results {status['job_id']}\n" in ended.stderr
    assert ended.returncode == 3


def test_ctrl_c_leaves_the_job_running(world: World) -> None:
    world.simulator.behave(processing_seconds=3600)
    job_id = world.run("submit", "-", "--quiet", input=lines("interrupted", 2)).output.strip()
    with world.running("watch", job_id, stderr=subprocess.PIPE) as watching:
        assert watching.stderr is not None
        for line in watching.stderr:
            if "created" in line:
                break
        watching.send_signal(signal.SIGINT)
        told = watching.stderr.read()
        assert watching.wait(20) == 130
    assert f"Job {job_id} continues." in told
    assert f"\n  claude-batch watch {job_id}\n" in told
    assert BatchJob(job_id, world.app).status().state == "running"
    refused = world.run("delete", job_id)
    assert (refused.exit_code, f"claude-batch cancel {job_id}" in refused.output) == (1, True)

    assert world.run("cancel", job_id).exit_code == 0
    assert world.run("watch", job_id).exit_code == 3
    assert BatchJob(job_id, world.app).status().state == "canceled"
    assert "nothing was canceled" in world.run("cancel", job_id).output


def test_ctrl_c_before_the_last_line_sends_nothing(world: World) -> None:
    before = len(list(list_jobs(app=world.app)))
    with world.running("submit", "-", stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        # More than fits into a pipe, so it is reading.
        process.stdin.write(lines("unfinished", 10_000))
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=20)
    assert (process.returncode, out, told) == (130, "", "\nInterrupted: nothing was sent, and nothing is stored.\n")
    assert len(list(list_jobs(app=world.app))) == before


def test_a_job_that_gave_up_waiting_is_resumed(world: World) -> None:
    world.simulator.behave(processing_seconds=3600)
    job_id = world.run("submit", "-", "-q", "-s", "max_wait=0.5", input=lines("resumed", 2)).output.strip()
    failed = world.run("watch", job_id)
    assert failed.exit_code == 1
    assert f"To resume it: claude-batch resume {job_id}\n" in failed.output
    assert "failed" in world.run("list", "--state", "failed").output
    assert "State      failed: " in world.run("status", job_id).output
    assert world.run("resume", job_id, "-s", "max_wait=none").exit_code == 0
    world.simulator.end()
    assert world.run("watch", job_id, "--quiet").output == ""
    assert BatchJob(job_id, world.app).status().succeeded == 2


def test_a_batch_from_elsewhere_is_adopted(world: World) -> None:
    client = anthropic.Anthropic(base_url=world.simulator.url, api_key="sk-ant-simulated")
    made = client.messages.batches.create(
        requests=[{"custom_id": "mine", "params": requests("elsewhere", 1)["elsewhere 0"]}]  # type: ignore[typeddict-item]
    )
    job_id = world.run("adopt", made.id, "--quiet").output.strip()
    assert world.run("watch", job_id, "--quiet").exit_code == 0
    assert json.loads(world.run("results", job_id).output)["custom_id"] == "mine"
    again = world.run("adopt", made.id)
    assert (again.exit_code, job_id in again.output) == (1, True)


def test_the_same_commands_under_celery(world: World) -> None:
    names = ("broker_url", "result_backend", "claude_batch_store_url")
    conf = {name: world.app.conf[name] for name in names}
    code = f"from celery import Celery\napp = Celery('proj')\napp.conf.update({conf!r})\n"
    (world.folder / "proj.py").write_text(code)
    job_id = world.run("submit", "-", "--quiet", input=lines("celery", 1)).output.strip()
    celery = (sys.executable, "-m", "celery", "-A", "proj", "claude-batch")
    bare = {name: value for name, value in world.env.items() if not name.startswith("CELERY_")}
    listed = world.execute(*celery, "list", "--json", "--limit", "1", env=bare)
    assert json.loads(listed.stdout)["job_id"] == job_id
    missing = world.execute(*celery, "status", "nosuch", env=bare)
    assert (missing.returncode, missing.stderr.startswith("Error: no job nosuch in the store")) == (4, True)


def test_a_terminal_shows_a_bar_and_asks(world: World) -> None:
    world.simulator.behave(processing_seconds=3600)
    (world.folder / "requests.jsonl").write_text(lines("terminal", 4))
    with Terminal() as terminal:
        with world.running("submit", "requests.jsonl", "--wait", **terminal.ends) as waiting:
            wait_until(lambda: "━" in terminal.shown and "running" in terminal.shown)
            assert waiting.stdout is not None
            job_id = waiting.stdout.readline().rstrip("\n")
            with world.running("cancel", job_id, **terminal.ends) as canceling:
                terminal.type("n")
                assert canceling.wait(40) == 1
            assert BatchJob(job_id, world.app).status().state == "running"
            world.run("cancel", job_id)
            assert waiting.wait(40) == 3
        wait_until(lambda: f"claude-batch results {job_id}" in terminal.shown)
    assert f"Cancel job {job_id} with its 4 requests? [y/N]:" in terminal.shown


def drawn(shown: str) -> list[str]:
    """The lines that are left on a terminal after this was written to it."""
    lines, row, column = [""], 0, 0
    for code, up, character in re.findall(r"(\x1b\[(?:(\d+)A|[?\d;]*[a-zA-Z]))|(.)", shown, re.DOTALL):
        if code:
            row = row - int(up) if up else row
            if code == "\x1b[2K":
                lines[row] = ""
        elif character == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif character == "\r":
            column = 0
        else:
            lines[row] = f"{lines[row]:{column}}"[:column] + character + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize("colours", [True, False])
def test_a_bar_leaves_nothing_behind(world: World, colours: bool) -> None:
    world.simulator.behave(processing_seconds=3)
    (world.folder / "requests.jsonl").write_text(lines("bar", 4))
    env = {**world.env, **({} if colours else {"NO_COLOR": "1"})}
    with Terminal() as terminal:
        command = [PROGRAM, "submit", "requests.jsonl", "--wait"]
        with subprocess.Popen(command, env=env, cwd=world.folder, **terminal.ends) as process:
            assert process.wait(60) == 0
        wait_until(lambda: "claude-batch results" in terminal.shown)
    assert "━" in terminal.shown
    assert ("\x1b[32m" in terminal.shown) == colours
    left = drawn(terminal.shown)
    assert not [line for line in left if "━" in line or "next poll" in line]
    events = [line[21:] for line in left if re.match(r"\d{4}-\d\d-\d\d ", line)]
    assert [re.split("[,;]", event)[0] for event in events] == [
        "submitted: 4 requests in 1 batch",
        "started",
        "batch 1: created",
        "batch 1: seen",
        "batch 1: ended",
        "batch 1: fetched",
        "completed",
    ]


def test_that_no_worker_listens_is_said_at_once(world: World) -> None:
    said = world.execute(PROGRAM, "submit", "-", "--queue", "nobody", input=lines("nobody", 1))
    assert said.returncode == 0
    assert said.stderr.count("Workers that listen on queue 'nobody': none.") == 1
    quiet = world.execute(PROGRAM, "submit", "-", "--queue", "nobody", "-q", input=lines("nobody", 1))
    assert (quiet.returncode, quiet.stderr) == (0, "")
    for job_id in (said.stdout.strip(), quiet.stdout.strip()):
        assert world.run("delete", job_id, "--yes").exit_code == 0


def test_the_failures_of_a_job_from_their_counts_to_the_retry_of_some(world: World) -> None:
    """A partial job: some errored by kind, some expired, one refused. Only what is asked for is sent again."""
    refused = Outcome("errored", error="invalid_request_error", message="messages.0: bad")
    busy, late = Outcome("errored", error="overloaded_error", attempts=1), Outcome("expired", attempts=1)
    kinds = [refused, refused, refused, busy, busy, late]
    rules = (msgspec.structs.replace(kind, prompt=f"prompt {i} of partial") for i, kind in enumerate(kinds))
    world.simulator.behave(outcomes=tuple(rules))
    off = ("-s", "fallback=off", "-s", "retries=0")
    submitted = world.run("submit", "-", "--wait", "--label", "nightly", *off, input=lines("partial", 10))
    assert submitted.exit_code == 3
    job_id = submitted.stdout.strip()
    assert f"Which failed, and why: claude-batch failures {job_id}\n" in submitted.stderr

    counted = world.run("failures", job_id[:8])
    assert [row.split()[:2] for row in counted.stdout.splitlines()] == [
        ["FAILURE", "COUNT"],
        ["invalid_request_error", "3"],
        ["overloaded_error", "2"],
        ["expired", "1"],
    ]
    assert "messages.0: bad" in counted.stdout
    assert f"claude-batch retry-failed {job_id}" in counted.stderr
    counts = json.loads(world.run("failures", job_id, "--json").stdout)
    assert (counts["failed"], counts["failures"][0]["type"]) == (6, "invalid_request_error")
    each = [json.loads(row) for row in world.run("failures", job_id, "--list", "--json").stdout.splitlines()]
    assert {row["custom_id"] for row in each} == {f"partial {number}" for number in range(6)}
    assert world.run("failures", job_id, "--type", "expired", "--list").stdout.splitlines()[1].split()[:3] == [
        "expired",
        "partial",
        "5",
    ]

    file = world.folder / "failures.csv"
    assert "6 failures written" in world.run("failures", job_id, "-o", str(file)).stderr
    with file.open(newline="") as rows:
        written = list(csv.DictReader(rows))
    assert {(row["custom_id"], row["error_type"]) for row in written} >= {("partial 0", "invalid_request_error")}
    assert len(written) == 6
    assert json.loads(world.run("failures", job_id, "--csv", str(file), "--json").stdout)["written"] == 6

    retried = world.run("retry-failed", job_id, "--type", "overloaded_error", "--type", "expired", "--wait", *off)
    assert retried.exit_code == 0, retried.output
    new_id = retried.stdout.strip()
    status = json.loads(world.run("status", new_id, "--json").stdout)
    assert (status["parent"], status["requests"], status["succeeded"]) == (job_id, 3, 3)
    assert f"Retried as {new_id}" in world.run("status", job_id).stdout

    alone = [json.loads(row) for row in world.run("results", job_id).stdout.splitlines()]
    both = [json.loads(row) for row in world.run("results", job_id, "--with-retries").stdout.splitlines()]
    assert sum(row["result"]["type"] == "succeeded" for row in alone) == 4
    assert sum(row["result"]["type"] == "succeeded" for row in both) == 7
    assert len(both) == len({row["custom_id"] for row in both}) == 10
    again = world.run("retry-failed", job_id, "--type", "expired", *off)
    assert again.exit_code == 1, again.output
    assert [json.loads(row)["job_id"] for row in world.run("list", "--label", "nightly", "--json").stdout.splitlines()]
