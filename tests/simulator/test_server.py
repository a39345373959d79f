"""Running it: in a thread, in a process, from the command line, from pytest."""

from __future__ import annotations

import ast
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import anthropic
import pytest
from click.testing import CliRunner

import claude_batch_tasks.simulator
from claude_batch_tasks.simulator import Control, Simulator
from claude_batch_tasks.simulator.cli import simulator as command

from .conftest import new_client, request, requests

pytestmark = pytest.mark.latest

PACKAGE = Path(claude_batch_tasks.simulator.__file__).parent
ROOT = PACKAGE.parent.parent
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


def test_it_imports_nothing_of_the_package_it_tests() -> None:
    for path in PACKAGE.rglob("*.py"):
        depth = len(path.relative_to(PACKAGE).parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= depth, path
                assert not (node.module or "").startswith("claude_batch_tasks"), path
            elif isinstance(node, ast.Import):
                assert not any(name.name.startswith("claude_batch_tasks") for name in node.names), path


def test_a_thread_of_its_own_stops_at_once() -> None:
    with Simulator("partial") as simulator:
        assert simulator.state().scenario == "partial"
        threads = threading.active_count()
        client = new_client(simulator)
        client.messages.batches.list()
        start = time.monotonic()
    assert time.monotonic() - start < 3
    assert threading.active_count() == threads - 1
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((simulator.host, simulator.port), 1)


def test_a_process_of_its_own() -> None:
    with Simulator("create-404", process=True) as simulator, new_client(simulator) as client:
        with pytest.raises(anthropic.NotFoundError):
            client.messages.batches.create(requests=requests(1))
        assert simulator.state().scenario == "create-404"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((simulator.host, simulator.port), 1)


def test_a_large_batch_goes_through_while_others_are_answered(simulator: Simulator) -> None:
    simulator.behave(processing_seconds=0)
    text = "x" * 1500
    items = [request(f"r-{n}", f"{n} {text}") for n in range(10_000)]
    waits = []
    with new_client(simulator) as client:
        done = threading.Event()

        def look() -> None:
            while not done.is_set():
                start = time.monotonic()
                simulator.journal(prompts=False)
                waits.append(time.monotonic() - start)

        thread = threading.Thread(target=look)
        thread.start()
        batch = client.messages.batches.create(requests=items)
        lines = client.messages.batches.results(batch.id)
        assert sum(1 for _ in lines) == 10_000
        done.set()
        thread.join()
    assert max(waits) < 3
    assert simulator.journal().totals.paid_batch == 10_000


def test_the_environment_is_all_the_sdk_needs(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in simulator.env.items():
        monkeypatch.setenv(name, value)
    with anthropic.Anthropic() as client:
        assert client.messages.batches.list().data == []


def test_the_command_prints_where_it_is_and_stops_on_a_signal() -> None:
    command_line = [sys.executable, "-m", "claude_batch_tasks.simulator", "--port", "0", "--scenario", "create-404"]
    process = subprocess.Popen(
        [*command_line, "--processing-seconds", "9"], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        head = [process.stdout.readline() for _ in range(4)]
        url = head[2].strip().removeprefix("export ANTHROPIC_BASE_URL=")
        assert head[3].startswith("export ANTHROPIC_API_KEY=")
        control = Control(url)
        for _ in range(100):
            try:
                state = control.state()
                break
            except OSError:
                time.sleep(0.05)
        assert (state.scenario, state.behaviour.processing_seconds) == ("create-404", 9)
        with (
            anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client,
            pytest.raises(anthropic.NotFoundError),
        ):
            client.messages.batches.create(requests=requests(1))
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=10)
        assert time.monotonic() - start < 3
        assert "create   404" in log
        assert "create 404" in log
        assert "Traceback" not in log
    finally:
        process.kill()
        process.wait()


def test_the_command_lists_scenarios_and_explains_mistakes() -> None:
    listed = CliRunner().invoke(command, ["--list-scenarios"])
    assert listed.exit_code == 0
    assert "issue-1432" in listed.output
    wrong = CliRunner().invoke(command, ["--scenario", "nope", "--port", "0"])
    assert wrong.exit_code == 1
    assert "no scenario 'nope'; there are healthy, issue-1432" in wrong.output
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = CliRunner().invoke(command, ["--port", str(taken.getsockname()[1])])
    assert busy.exit_code == 1
    assert "in use" in busy.output


def run_pytest(folder: Path, source: str, *options: str) -> str:
    (folder / "test_users.py").write_text(source)
    env = {**ENV, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    plugin = ["-p", "claude_batch_tasks.simulator.pytest_plugin"]
    run = [sys.executable, "-m", "pytest", "-q", "-rs", *plugin, *options, "test_users.py"]
    return subprocess.run(run, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False).stdout


def test_the_pytest_fixtures(tmp_path: Path) -> None:
    source = """
import anthropic, pytest

def test_one(claude_batch_simulator):
    claude_batch_simulator.reset("create-404-always")
    client = anthropic.Anthropic(base_url=claude_batch_simulator.url, api_key="k", max_retries=0)
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.create(requests=[{"custom_id": "a", "params": {}}])

def test_two(claude_batch_simulator):
    state = claude_batch_simulator.state()
    assert (state.scenario, state.totals.calls) == ("healthy", 0)

def test_three(claude_batch_simulator_factory):
    a, b = claude_batch_simulator_factory("storm"), claude_batch_simulator_factory("partial")
    assert a.url != b.url
    assert b.state().scenario == "partial"
"""
    assert "3 passed" in run_pytest(tmp_path, source)


def test_the_fixture_says_what_is_missing(tmp_path: Path) -> None:
    source = """
import sys
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "starlette" else found(name, *rest)

def test_one(claude_batch_simulator):
    raise AssertionError
"""
    out = run_pytest(tmp_path, source)
    assert "1 skipped" in out
    assert "starlette missing: pip install 'claude-batch-tasks[simulator]'" in out


def test_the_plugin_is_cheap_to_load() -> None:
    code = (
        "import claude_batch_tasks, pytest, sys, time; before = time.process_time();"
        "import claude_batch_tasks.simulator.pytest_plugin;"
        "print([m for m in ('starlette', 'uvicorn') if m in sys.modules]);"
        "print(time.process_time() - before)"
    )
    out = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True, check=True).stdout
    loaded, seconds = out.split("\n", 1)
    assert loaded == "[]"
    assert float(seconds) < 0.2
