"""docker-compose.yml and Dockerfile name what there is, and what they start starts."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from claude_batch_tasks.app import configuration
from claude_batch_tasks.embedded import free_port
from claude_batch_tasks.simulator import Control

pytestmark = pytest.mark.latest

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def command(service: str, **changes: str) -> list[str]:
    """A service's command as it runs in this environment, with options changed."""
    words = [changes.get(re.sub(r"=.*", "", word).strip("-"), word) for word in SERVICES[service]["command"]]
    return [str(Path(sys.executable).parent / words[0]), *words[1:]]


def test_there_is_everything_a_deployment_needs() -> None:
    assert set(SERVICES) == {"redis", "worker", "beat", "flower", "simulator"}
    assert SERVICES["simulator"]["profiles"] == ["simulator"]
    for name, service in SERVICES.items():
        assert service["healthcheck"]["test"], name
        assert service["restart"] == "always", name


def test_redis_keeps_what_it_is_given() -> None:
    words = SERVICES["redis"]["command"]
    assert words[words.index("--appendonly") + 1] == "yes"
    assert words[words.index("--maxmemory-policy") + 1] == "noeviction"
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]


def test_nothing_is_published_to_other_machines() -> None:
    for service in SERVICES.values():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_key_is_given_to_workers_only() -> None:
    for name, service in SERVICES.items():
        knows = "env_file" in service or any(key.startswith("ANTHROPIC_") for key in service.get("environment", {}))
        assert knows == (name == "worker"), name


def test_a_worker_that_is_stopped_gives_its_messages_back_within_the_grace_period() -> None:
    worker = SERVICES["worker"]
    assert worker["environment"]["REMAP_SIGTERM"] == "SIGQUIT"
    assert int(worker["stop_grace_period"].rstrip("s")) > configuration({})["worker_soft_shutdown_timeout"] + 10


def test_flower_is_told_to_show_counts_and_reasons() -> None:
    columns = SERVICES["flower"]["environment"]["FLOWER_TASKS_COLUMNS"].split(",")
    assert {"name", "uuid", "state", "result", "exception", "args"} <= set(columns)


def test_the_image_runs_as_somebody_without_rights() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "USER app" in lines
    assert lines.index("USER app") > max(i for i, line in enumerate(lines) if line.startswith(("RUN", "COPY")))
    for line in lines:
        if line.startswith("COPY"):
            assert all((ROOT / source).exists() for source in line.split()[1:-1])


def test_the_worker_starts_and_answers_its_health_check(environment: dict[str, str], tmp_path: Path) -> None:
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [*command("worker"), "--hostname=celery@test"], cwd=tmp_path, env=environment, stdout=log, stderr=log
        )
    try:
        check = SERVICES["worker"]["healthcheck"]["test"][1].replace("$$HOSTNAME", "test").split()
        check[0] = command("worker")[0]
        for _ in range(10):
            if subprocess.run(check, env=environment, cwd=tmp_path, capture_output=True, check=False).returncode == 0:
                break
            assert worker.poll() is None, (tmp_path / "worker.log").read_text()
        else:
            raise AssertionError((tmp_path / "worker.log").read_text())
    finally:
        worker.terminate()
        worker.wait(30)


def test_beat_starts(environment: dict[str, str], tmp_path: Path) -> None:
    pidfile = tmp_path / "beat.pid"
    options = {"schedule": f"--schedule={tmp_path}/schedule", "pidfile": f"--pidfile={pidfile}"}
    beat = subprocess.Popen(
        command("beat", **options), cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while not (pidfile.exists() and pidfile.read_text().strip() == str(beat.pid)):
            assert beat.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        beat.terminate()
        beat.wait(20)


@pytest.mark.parametrize("service", ["flower", "simulator"])
def test_its_health_check_finds_it(service: str, environment: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    words = command(service, port=f"--port={port}", host="--host=127.0.0.1", address="--address=127.0.0.1")
    words = [re.sub(r"\$\{SCENARIO:-(.*)\}", r"\1", word) for word in words]
    process = subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = re.search(r"http://localhost:\d+(/[^']*)", SERVICES[service]["healthcheck"]["test"][-1])
    assert url is not None
    try:
        for _ in range(150):
            assert process.poll() is None
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{url[1]}") as answer:
                assert answer.status == 200
                return
            time.sleep(0.2)
        raise AssertionError(f"{service} did not answer at {url[1]}")
    finally:
        process.terminate()
        process.wait(20)


SIMULATOR_IMAGE = (ROOT / "docker" / "simulator" / "Dockerfile").read_text().replace("\\\n", " ").splitlines()


def instructions(name: str) -> list[str]:
    """What follows an instruction in the Dockerfile of the simulator."""
    return [line.removeprefix(name).strip() for line in SIMULATOR_IMAGE if line.startswith(f"{name} ")]


def test_the_image_of_the_simulator_runs_as_somebody_without_rights() -> None:
    assert instructions("USER") == ["simulator"]
    user = SIMULATOR_IMAGE.index("USER simulator")
    assert user > max(i for i, line in enumerate(SIMULATOR_IMAGE) if line.startswith(("RUN", "COPY")))
    for words in map(str.split, instructions("COPY")):
        if not words[0].startswith("--from"):
            assert all((ROOT / source).exists() for source in words[:-1])


@pytest.fixture
def in_the_image(tmp_path: Path) -> list[str]:
    """The beginning of a command, for a Python that finds what the simulator's image has installed, and no more."""
    install = next(line for line in instructions("RUN") if "pip install" in line)
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "claude_batch_tasks").symlink_to(ROOT / "claude_batch_tasks")
    missing = re.findall(r"'([\w.-]+)>=[\d.]+'", install)
    assert "uvicorn" in missing
    while missing:
        distribution = metadata.distribution(missing.pop())
        for file in distribution.files or ():
            if len(file.parts) > 1 or file.suffix in (".py", ".so"):
                link = folder / file.parts[0]
                if not link.exists() and file.parts[0] not in ("..", "__pycache__"):
                    link.symlink_to(str(distribution.locate_file(file.parts[0])))
        needs = [Requirement(each) for each in distribution.requires or ()]
        missing += [each.name for each in needs if each.marker is None or each.marker.evaluate({"extra": ""})]
    start = f"import sys, runpy; sys.path.insert(0, {str(folder)!r}); sys.argv[0] = 'simulator'; "
    return [
        sys.executable,
        "-I",
        "-S",
        "-c",
        start + "runpy.run_module('claude_batch_tasks.simulator', alter_sys=True)",
    ]


def test_the_image_of_the_simulator_has_all_that_it_needs(in_the_image: list[str], tmp_path: Path) -> None:
    port = str(free_port())
    assert instructions("EXPOSE") == ["8787"]
    python, _, module, *options = json.loads(instructions("ENTRYPOINT")[0])
    assert (python, module) == ("python", "claude_batch_tasks.simulator")
    words = [word.replace("8787", port) for word in options]
    check = instructions("HEALTHCHECK")[0].partition("CMD")[2].replace("8787", port)
    process = subprocess.Popen(
        [*in_the_image, *words, "--scenario=create-404"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for _ in range(150):
            if process.poll() is not None:
                raise AssertionError(process.communicate()[1])
            if (
                subprocess.run([sys.executable, *json.loads(check)[1:]], capture_output=True, check=False).returncode
                == 0
            ):
                break
            time.sleep(0.2)
        assert Control(f"http://127.0.0.1:{port}").state().scenario == "create-404"
    finally:
        process.terminate()
        process.wait(20)
