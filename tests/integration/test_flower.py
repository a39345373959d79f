"""What a person sees in Flower: ids, counts and reasons, and never a prompt or a key."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import run_batch
from claude_batch_tasks.embedded import Worker, free_port
from claude_batch_tasks.simulator import Fault, Simulator
from tests.factories import make_params

pytestmark = pytest.mark.workers

SECRET = "the text of a prompt"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def flower(environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """A real Flower's address."""
    port = free_port()
    log = tmp_path / "flower.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "claude_batch_tasks.app", "flower", f"--port={port}"],
            env={**environment, "FLOWER_UNAUTHENTICATED_API": "true", "FLOWER_ADDRESS": "127.0.0.1"},
            cwd=tmp_path,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(OSError):
                read(f"{url}/healthcheck")
                break
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def tasks(flower: str) -> list[dict[str, Any]]:
    return list(json.loads(read(f"{flower}/api/tasks")).values())


def by_name(flower: str, name: str) -> list[dict[str, Any]]:
    return [task for task in tasks(flower) if str(task["name"]).endswith(name)]


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return value


def test_a_job_is_readable_and_shows_no_prompt(
    flower: str, app: Celery, environment: dict[str, str], start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    requests = [
        {
            "custom_id": f"review {i}",
            "params": make_params(f"{SECRET} {i}", max_tokens=9),
        }
        for i in range(40)
    ]
    with Simulator("partial") as simulator:
        simulator.faults(Fault("results", "status", status=404, calls=(1, 2, 3)))
        simulator.behave(processing_seconds=3)
        start_worker(simulator.url, CLAUDE_BATCH_POLL_MIN="1", CLAUDE_BATCH_POLL_MAX="1", CLAUDE_BATCH_RETRY_MIN="1")
        time.sleep(1)  # Flower learns of a new worker from its next heartbeat
        result = run_batch.delay(requests, retries=0)

        polling = wait_for(lambda: [t for t in by_name(flower, "poll_batch") if t["state"] == "RETRY"])[0]
        assert "in progress: 0 of 40; next poll in 1.0 s" in polling["exception"]
        assert polling["args"].startswith(f"('{result.id}', 0, 0, ")
        job = wait_for(lambda: [t for t in tasks(flower) if t["uuid"] == result.id and t["state"] == "PROGRESS"])[0]
        assert "0 of 40 done; in progress" in job["result"]
        fetching = wait_for(lambda: [t for t in by_name(flower, "fetch_results") if t["state"] == "RETRY"])[0]
        assert "404 not_found_error" in fetching["exception"]
        assert "taken as propagation delay; retry in" in fetching["exception"]

        result.get(timeout=180)
        done = wait_for(lambda: [t for t in tasks(flower) if t["uuid"] == result.id and t["state"] == "SUCCESS"])[0]
        # Which of the two depends on the order in which Flower hears that it was sent and that it was received.
        assert done["name"] in ("claude_batch_tasks.run_batch", "claude_batch_tasks.finish_job")
        lanes = [task["result"] for task in by_name(flower, "send_messages") if task["state"] == "SUCCESS"]
        assert len(lanes) >= 6
        assert sum(int(number) for result in lanes for number in re.findall(r"(\d+) succeeded", result)) == 6
        assert "33 succeeded" in by_name(flower, "fetch_results")[0]["result"]

    served = read(f"{flower}/api/tasks") + read(f"{flower}/task/{result.id}") + read(f"{flower}/tasks")
    if BROWSER:
        served += rendered(f"{flower}/tasks", tmp_path)
        assert "in progress" in served or "succeeded" in served
        assert result.id in served
    for secret in (SECRET, environment["ANTHROPIC_API_KEY"]):
        assert secret not in served


@pytest.mark.skipif(not BROWSER, reason="no chromium or google-chrome on the PATH; the HTTP API was tested")
def test_its_pages_are_seen_by_a_browser(flower: str, tmp_path: Path) -> None:
    assert "Flower" in rendered(flower, tmp_path)


def rendered(url: str, tmp_path: Path) -> str:
    """The page as a browser shows it, after its scripts have run."""
    assert BROWSER is not None
    options = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync "
        "--disable-component-update --disable-dev-shm-usage --virtual-time-budget=8000 --dump-dom"
    )
    done = subprocess.run(
        [BROWSER, *options.split(), f"--user-data-dir={tmp_path}/browser", url],
        capture_output=True,
        timeout=60,
        check=True,
    )
    return done.stdout.decode()
